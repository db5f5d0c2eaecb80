"""Decide what to do after a failed call. Uses no network and no clock."""

import random
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from spyhop.models.failures import NO_CREDIT, Failure
from spyhop.models.schedule import PendingCall
from spyhop.schema import ModelError, Unfinished, is_known_reason

HOPELESS_REJECTIONS = 20
"""First requests that are all rejected: the settings are wrong, not the requests."""
RETRY_S, LONGEST_RETRY_S = 0.2, 60.0
PATIENT_THROTTLES = 4
HOPELESS_FATAL = 20
"""Statuses about the key or the address, one after the other, on a key that has had replies."""
HOPELESS_PAGES, HOPELESS_PAGES_PROVEN = 5, 20
"""Web pages in place of replies, one after the other."""
FIRST_REASONS = 50
"""Replies of an endpoint whose finish reasons are checked."""


class Decision(NamedTuple):
    """What to do with a failed call.

    * `retry`: send it again after `delay_s`
    * `next`, `last`: put it back into the queue, first or behind all others
    * `give_up`: it fails permanently; `leave`: the next run asks it again
    * `none`: the run ends
    """

    action: Literal["retry", "next", "last", "give_up", "leave", "none"]
    delay_s: float = 0.0


@dataclass(slots=True)
class RetryPolicy:
    """Decides on failed calls, and when the run as a whole should stop."""

    max_attempts: int
    patience_s: float
    known_reasons: frozenset[str] = frozenset()
    """Finish reasons that the settings map."""
    is_proven: bool = False
    """Whether the model has ever answered."""
    num_rejected: int = 0
    num_fatal: int = 0
    num_pages: int = 0
    """Those since the last reply."""
    _reasons: dict[str, list[bool]] = field(default_factory=dict)
    """By endpoint: whether each of the first finish reasons is known."""

    def answered(self) -> None:
        """Count a reply."""
        self.is_proven = True
        self.num_fatal = self.num_pages = 0

    def decide(self, call: PendingCall, failure: Failure, *, is_large: bool) -> Decision:
        """Count a failure of a call and return what to do with the call."""
        if failure.kind in ("rejected", "refused"):
            return Decision("give_up")
        if failure.kind == "fatal":
            return Decision("give_up" if self._concerns_one(failure) else "none")
        if (failure.retry_after_s or 0.0) > self.patience_s:
            return Decision("leave")
        if failure.kind == "throttled":
            # a provider answers 429 to a prompt larger than its limit, too, and each attempt at one
            # waits until the whole limit is free
            call.num_throttled += 1
            patient = 0 if is_large else PATIENT_THROTTLES
            if call.num_throttled <= patient:
                return Decision("retry", _delay_s(call.num_throttled, failure))
            is_hopeful = call.num_throttled <= self.max_attempts * max(1, patient)
            return Decision("last" if is_hopeful else "leave")
        call.num_failures += 1
        if call.num_failures < self.max_attempts:
            return Decision("retry", _delay_s(call.num_failures, failure))
        return Decision("give_up" if failure.kind == "malformed" else "leave")

    def _concerns_one(self, failure: Failure) -> bool:
        """Whether a status about the key or the address may concern one request alone."""
        return self.is_proven and failure.status not in (401, NO_CREDIT)

    def stop(self, failure: Failure, advice: str, silent_s: float) -> Exception | None:
        """Return the error that ends the run after a failure, if it should end."""
        if failure.status == NO_CREDIT:
            return Unfinished(f"{advice}; add credit and run again to resume")
        if failure.kind == "fatal":
            if not self._concerns_one(failure):
                return ModelError(advice)
            self.num_fatal += 1
            if self.num_fatal >= HOPELESS_FATAL:
                return Unfinished(f"{advice} ({self.num_fatal} in a row); run again to resume")
            return None
        if failure.kind == "page":
            self.num_pages += 1
            if self.num_pages >= (HOPELESS_PAGES_PROVEN if self.is_proven else HOPELESS_PAGES):
                return Unfinished(f"{advice} ({self.num_pages} times); run again to resume")
        self.num_rejected += failure.kind == "rejected"
        if self.num_rejected >= HOPELESS_REJECTIONS and not self.is_proven:
            return ModelError(f"{advice} (all of the first {self.num_rejected} requests)")
        return self.stop_silent(silent_s, advice)

    def stop_silent(
        self, silent_s: float, cause: str, what: str = "no reply for"
    ) -> Exception | None:
        """Return the error that ends the run if no reply comes for longer than `patience_s`."""
        if silent_s > self.patience_s:
            return Unfinished(f"{what} {silent_s:.0f} s ({cause}); run again to resume")
        return None

    def judge_reason(self, url: str, reason: str) -> Exception | None:
        """Return the error that ends the run where most first finish reasons are unknown."""
        seen = self._reasons.setdefault(url, [])
        if len(seen) == FIRST_REASONS:
            return None
        seen.append(reason in self.known_reasons or is_known_reason(reason))
        if len(seen) < FIRST_REASONS or 2 * seen.count(True) >= FIRST_REASONS:
            return None
        return Unfinished(
            f"{url}: {seen.count(False)} of the first {FIRST_REASONS} replies end with a finish "
            f"reason that is not known, such as {reason!r}; say how such replies end with "
            f'finish_reasons = {{ "{reason}" = "whole" }} (or "cut") and run again: '
            "the replies are kept"
        )


def _delay_s(num_failures: int, failure: Failure) -> float:
    """Return the wait before a call is sent again: what its endpoint asks for, or longer."""
    delay_s = min(LONGEST_RETRY_S, RETRY_S * 2.0 ** (num_failures - 1)) * random.uniform(0.5, 1.5)
    return max(delay_s, failure.retry_after_s or 0.0)
