"""State of one endpoint: limits, concurrency and pauses, updated from its replies."""

import asyncio
import math
import os
import random
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from spyhop.models.dialect import DIALECTS
from spyhop.models.failures import Failure, remaining
from spyhop.models.limits import SPAN_S, Concurrency, RateLimiter
from spyhop.models.replies import Usage
from spyhop.models.service import Endpoint
from spyhop.schema import ModelError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
MEMORY = 0.1
"""Weight of the last reply in the share of prompt tokens that limits count."""
RESTED = 0.25
"""Share of a silence that an endpoint is given as a rest."""
LEAST_TOLD_PAUSE_S = 0.05
"""Some say "at once" for as long as it lasts; doubled, too, with each failure in a row."""
PATIENT_FAILURES = 3
"""Failures without a reply between them before the whole endpoint is given the rest that it asks
for; where it asks for none, as many as may be in flight. One alone concerns its own call."""


class TokenEstimate(NamedTuple):
    """Tokens of a call: estimated when it is sent, known once it is answered."""

    prompt_tokens: int
    response_tokens: int


class Reservation(NamedTuple):
    """An admission."""

    estimate: TokenEstimate
    sent: float
    slots: dict[str, tuple[int, int]]
    """By rate limit: the slot, and the amount that was set aside in it."""
    most_usd: float


class EndpointState:
    """The state of one endpoint. Times are of the event loop's clock."""

    def __init__(self, endpoint: Endpoint, default_model: str) -> None:
        self.config = endpoint
        self.model = endpoint.model or default_model
        self.dialect = DIALECTS[endpoint.api]
        path = self.dialect.path.format(model=self.model, version=endpoint.api_version)
        self.url = endpoint.url + path
        """Where calls go."""
        self.concurrency = Concurrency(endpoint.concurrency)
        self.is_up = True
        """Whether calls may be sent: false for a replica that does not answer."""
        self.is_lost = False
        """Whether a replica has been silent for so long that its calls are given up."""
        self.is_suspect = asyncio.Event()
        """Set once a replica has lost a call: its next health check is then due."""
        self._counts_cached = bool(self.dialect.counts_cached.match(self.model))
        self._counted = 1.0
        """Share of prompt tokens that rate limits count, as seen lately."""
        self.paused_until = -math.inf
        self.turn = 0.0
        """Advances by 1/weight with each call; among those that are free the lowest is next."""
        self._num_failed = 0
        """Failures since the last reply."""
        self._failures_in_row = 0
        """The same, those that were in flight together counted as one."""
        self._silent_since = math.inf
        """When the last reply came, or else the first failed request was sent."""
        self._is_proven = False
        self._failed_at = -math.inf
        self.limiters = {name: RateLimiter(limit) for name, limit in endpoint.limits.items()}

    @property
    def key(self) -> str:
        """The endpoint's key, read from the environment only here and never stored."""
        name = self.config.key_env
        return os.environ.get(name, "").strip() if name else ""

    def headers(self) -> dict[str, str]:
        """Return the headers of a call."""
        headers = {"Content-Type": "application/json", **self.dialect.headers}
        name = self.config.key_env
        if not name:
            return headers
        if not self.key:
            raise ModelError(f"{self.config.url}: set the environment variable {name} to its key")
        return headers | {self.dialect.key_header: self.dialect.key_form.format(self.key)}

    @property
    def proxy(self) -> str | None:
        """The proxy that the environment names for this address."""
        parts = urlsplit(self.url)
        return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)

    def advice(self, failure: Failure) -> str:
        """Return the failure's message and, if known, the remedy."""
        said, name = f"{self.config.url}: {failure.line}", self.config.key_env
        if failure.status in (401, 403):
            set_it = f"set the environment variable {name} to a key that is valid there"
            return f"{said}; {set_it if name else 'name the variable of its key with key_env'}"
        if failure.kind == "rejected":
            return f"{said}; list rejected fields in omit, or set tokens_field"
        if failure.status in (404, 405):
            return f"{said}; check url and model ({self.model!r})"
        if failure.kind == "lost" and not failure.is_maybe_billed:
            return f"{said}; is it running, and is the url right?"
        if (failure.status >= 500 or failure.kind == "page") and not self._is_proven:
            is_short = self.config.api != "azure" and not re.search(r"/v\d", self.config.url)
            return f"{said}; is the url right{', without /v1' if is_short else ''}?"
        return said

    def ready_at(self, estimate: TokenEstimate, now: float) -> float:
        """Return when a call may be sent: `now`, later, or infinity while all slots are taken."""
        when = max(self.concurrency.room_at(now), self.paused_until)
        if when == math.inf:
            return when
        amounts = self._amounts(estimate).items()
        return max([when, *(self.limiters[name].ready_at(some, now) for name, some in amounts)])

    def fits(self, estimate: TokenEstimate) -> bool:
        """Return whether a call fits the limits at all."""
        return all(
            _amount(name, estimate) <= limiter.limit for name, limiter in self.limiters.items()
        )

    def admit(self, estimate: TokenEstimate, now: float) -> Reservation:
        """Count a call that is sent now."""
        self.concurrency.in_flight += 1
        slots = {
            name: (self.limiters[name].add(amount, now), amount)
            for name, amount in self._amounts(estimate).items()
        }
        return Reservation(estimate, now, slots, self.config.most_usd(*estimate))

    def answered(
        self, reservation: Reservation, usage: Usage, headers: Mapping[str, str], now: float
    ) -> float:
        """Count what the call took in truth, and return its price in dollars."""
        self.concurrency.in_flight -= 1
        self.concurrency.succeeded(reservation.sent, now)
        self._num_failed = self._failures_in_row = 0
        self._silent_since = now
        self._is_proven = True
        is_used = self.config.counts == "used"
        response = usage.response_tokens if is_used else reservation.estimate.response_tokens
        counted = usage.prompt_tokens
        if not self._counts_cached:  # a call that misses the cache makes the next ones count whole
            counted -= usage.cached_tokens
            share = counted / max(1, usage.prompt_tokens)
            self._counted = max(share, self._counted + MEMORY * (share - self._counted))
        known = TokenEstimate(counted, response)
        for name, (slot, amount) in reservation.slots.items():
            self.limiters[name].change(slot, _amount(name, known) - amount)
        for name, (limit, left, reset_s) in remaining(headers).items():
            amount = _amount(name, known)
            if left < amount:  # wait until one more call fits
                part = min(1.0, (amount - left) / limit) if limit > 0 else 1.0
                wait_s = min(reset_s * part, SPAN_S)  # some give a date where seconds are meant
                self.paused_until = max(self.paused_until, now + wait_s)
        return usage.usd(self.config)

    def failed(self, reservation: Reservation, failure: Failure, now: float) -> None:
        """Back off as the failure asks for."""
        self.concurrency.in_flight -= 1
        if failure.kind in ("rejected", "refused", "malformed", "fatal", "page"):
            return
        if failure.is_overrun:
            self.concurrency.overran(reservation.sent, now)
        self._num_failed += 1
        self._silent_since = min(self._silent_since, reservation.sent)
        if reservation.sent >= self._failed_at:  # requests that were in flight together fail as one
            self._failures_in_row += 1
            self._failed_at = now
        told_s, num = failure.retry_after_s, self._num_failed
        if told_s is not None and (num >= PATIENT_FAILURES or not self._is_proven):
            grown = 2.0 ** min(self._failures_in_row - 1, 8)
            seconds = max(told_s, LEAST_TOLD_PAUSE_S * grown)
        elif told_s is None and num >= max(PATIENT_FAILURES, self.concurrency.allowed):
            silent_s = RESTED * (now - self._silent_since) * random.uniform(0.5, 1.5)
            seconds = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, silent_s))
        else:
            return
        self.paused_until = max(self.paused_until, now + seconds)

    def _amounts(self, estimate: TokenEstimate) -> dict[str, int]:
        """Return what is set aside of each limit: all of it for what is guessed to be larger."""
        if self._counted < 1.0:
            prompt_tokens = math.ceil(self._counted * estimate.prompt_tokens)
            estimate = estimate._replace(prompt_tokens=prompt_tokens)
        return {n: min(_amount(n, estimate), each.limit) for n, each in self.limiters.items()}


def _amount(limit: str, estimate: TokenEstimate) -> int:
    prompt, response = estimate
    amounts = {"requests": 1, "prompt tokens": prompt, "response tokens": response}
    return amounts.get(limit, prompt + response)
