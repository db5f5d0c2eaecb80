"""Estimates of prompt tokens, before an endpoint has counted them."""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

Texture = Literal["prose", "mixed", "dense", "foreign"]
"""How a text is cut into tokens: words; words among signs, as in code; mostly digits and signs;
another script."""

FIRST: dict[Texture, float] = {"prose": 0.5, "mixed": 0.75, "dense": 1.0, "foreign": 1.0}
"""Most tokens per byte, before any reply. English has 0.25; no tokenizer gives above 1."""
FIRST_FIXED = 8.0
"""Tokens of a template around a prompt, before any reply."""
LEAST_PER_BYTE = 1 / 16
"""No prompt but one of blanks has fewer: on this alone one may be called too large."""

_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n"
_MIXED_ABOVE, _DENSE_FROM = 0.15, 0.4
_FOREIGN_BELOW = 0.75
_MEMORY = 0.01
"""Weight of the last reply in the fit."""
_QUICK_MEMORY = 0.1
"""Its weight in how far the fit is behind."""
_SOFT_BYTES = 64.0
"""Errors are weighed in proportion to a prompt's tokens; to this size its bytes say little."""
_PRIOR_FIXED, _PRIOR_SLOPE = 1e-8, 0.05
"""Weight of the first estimate where replies cannot correct it: the slope, if all have one size."""
_FIRST_SPREAD, _FIRST_COUNT = 0.25, 5
"""Relative error of the first estimates, and how many replies it weighs."""
_SPREADS = 4.0


class Size(NamedTuple):
    """Size and kind of a prompt's text."""

    num_bytes: int
    texture: Texture = "prose"


def measure(texts: Iterable[str]) -> Size:
    """Return the size of a prompt's texts together."""
    num_bytes = num_signs = num_letters = 0
    for text in texts:
        raw = text.encode()
        num_letters += len(text)
        num_bytes += len(raw)
        num_signs += len(raw.translate(None, _PLAIN))
    if num_letters < _FOREIGN_BELOW * num_bytes:
        return Size(num_bytes, "foreign")
    if num_signs <= _MIXED_ABOVE * num_bytes:
        return Size(num_bytes, "prose")
    return Size(num_bytes, "mixed" if num_signs < _DENSE_FROM * num_bytes else "dense")


class TokenGuess:
    """Tokens of a prompt before the endpoint has counted them, learned from those it counted.

    For each texture of text: a fixed part (template, hidden prompt) and one for each byte, fitted
    to the last hundred or so answers in proportion to their size.
    """

    def __init__(self) -> None:
        self._fixed = FIRST_FIXED
        self._fits: dict[Texture, _Fit] = {}

    def of(self, size: Size, num_in_flight: int = 0) -> int:
        """Return the tokens of a prompt, with a margin for what the guess was wrong by lately.

        Guesses err apart, so that many at a time err less in sum: the margin is four standard
        deviations of the mean of those in flight, prompts of unequal size being worth fewer.
        """
        fit = self._fits.get(size.texture)
        if fit is None:
            return math.ceil(self._fixed + FIRST[size.texture] * size.num_bytes)
        return fit.of(size.num_bytes, num_in_flight)

    def learn(self, size: Size, tokens: int) -> None:
        """Learn from a prompt that the endpoint counted."""
        if size.num_bytes <= 0 or tokens <= 0:
            return
        fit = self._fits.get(size.texture)
        if fit is None:
            fit = self._fits[size.texture] = _Fit(FIRST[size.texture], self._fixed)
        fit.learn(size.num_bytes, tokens)
        self._fixed = fit.fixed


class _Fit:
    """Least squares of relative errors, old replies forgotten; O(1) for each."""

    def __init__(self, slope: float, fixed: float) -> None:
        self.slope = self._first_slope = slope
        self.fixed = self._first_fixed = fixed
        self._uu = self._uv = self._vv = self._uz = self._vz = 0.0
        self._behind = 0.0
        self._square = _FIRST_SPREAD**2
        self._num_seen = 0

    def of(self, num_bytes: int, num_in_flight: int) -> int:
        margin = max(self._behind, _SPREADS * math.sqrt(self._square / (num_in_flight + 1)))
        return max(1, round((self.fixed + self.slope * num_bytes) * (1.0 + margin)))

    def learn(self, num_bytes: int, tokens: int) -> None:
        self._num_seen += 1
        if self._num_seen > 1:  # the first one is what the fit begins with
            error = min(4.0, tokens / max(1.0, self.fixed + self.slope * num_bytes) - 1.0)
            self._behind += _QUICK_MEMORY * (error - self._behind)
            memory = max(_MEMORY, 1.0 / (self._num_seen + _FIRST_COUNT))
            self._square += memory * (error * error - self._square)
        u = 1.0 / (num_bytes + _SOFT_BYTES)
        v, z, kept = num_bytes * u, tokens * u, 1.0 - _MEMORY
        self._uu = kept * self._uu + u * u
        self._uv = kept * self._uv + u * v
        self._vv = kept * self._vv + v * v
        self._uz = kept * self._uz + u * z
        self._vz = kept * self._vz + v * z
        uu, vv = self._uu + _PRIOR_FIXED, self._vv + _PRIOR_SLOPE
        uz = self._uz + _PRIOR_FIXED * self._first_fixed
        vz = self._vz + _PRIOR_SLOPE * self._first_slope
        determinant = uu * vv - self._uv * self._uv
        self.fixed = (uz * vv - vz * self._uv) / determinant
        self.slope = max(0.0, (vz * uu - uz * self._uv) / determinant)
        if self.fixed < 0.0:
            self.fixed, self.slope = 0.0, vz / vv
