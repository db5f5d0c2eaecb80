"""Pure functions on text: normalise, extract answers and verdicts, n-grams, near duplicates."""
