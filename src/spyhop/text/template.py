"""Texts with places to fill."""

import re


def fill(template: str, **values: str) -> str:
    """Return a text with its `{name}`s replaced, in one pass: what is put in stays as it is."""
    names = "|".join(values)
    return re.sub(rf"\{{({names})\}}", lambda found: values[found[1]], template)
