"""What happens to a call that failed. Knows no network and no clock of its own."""

import random
from dataclasses import dataclass
from typing import Literal, NamedTuple

from spyhop.models.schedule import PendingCall
from spyhop.models.wire import Failure
from spyhop.schema import ModelError, Unfinished

HOPELESS_REJECTIONS = 20
"""First requests that are all rejected: the settings are wrong, not the requests."""
RETRY_S, LONGEST_RETRY_S = 0.2, 60.0
PATIENT_THROTTLES = 4


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
    is_proven: bool = False
    """Whether the model has ever answered."""
    num_rejected: int = 0

    def decide(self, call: PendingCall, failure: Failure, *, is_large: bool) -> Decision:
        """Count a failure of a call and return what to do with the call.

        Args:
            call: Its counts of failures are raised.
            failure: Why it failed.
            is_large: Whether its size is above a limit, as far as it can be estimated.
        """
        if failure.kind in ("rejected", "refused"):
            return Decision("give_up")
        if failure.kind == "fatal":
            return Decision("none")
        if failure.kind == "throttled":
            return self._throttled(call, is_large)
        call.num_failures += 1
        if call.num_failures < self.max_attempts:
            delay_s = min(LONGEST_RETRY_S, RETRY_S * 2.0 ** (call.num_failures - 1))
            return Decision("retry", delay_s * random.uniform(0.5, 1.5))
        return Decision("give_up" if failure.kind == "malformed" else "leave")

    def _throttled(self, call: PendingCall, is_large: bool) -> Decision:
        """Requeue a throttled call; one that a limit never lets through goes last, then is left.

        A provider answers 429 to a prompt larger than its limit, too. A call that is estimated to
        be larger goes last at once, since each attempt waits until the whole limit is free.
        """
        call.num_throttled += 1
        patient = 0 if is_large else PATIENT_THROTTLES
        if call.num_throttled <= patient:
            return Decision("next")
        is_hopeful = call.num_throttled <= self.max_attempts * max(1, patient)
        return Decision("last" if is_hopeful else "leave")

    def stop(self, failure: Failure, advice: str, silent_s: float) -> Exception | None:
        """Return the error that ends the run after a failure, if it should end.

        Args:
            failure: The last one.
            advice: What went wrong and how to mend it, for people.
            silent_s: Seconds since the last reply.
        """
        if failure.kind == "fatal":
            return ModelError(advice)
        self.num_rejected += failure.kind == "rejected"
        if self.num_rejected >= HOPELESS_REJECTIONS and not self.is_proven:
            return ModelError(f"{advice} (all of the first {self.num_rejected} requests)")
        if silent_s > self.patience_s:
            return Unfinished(f"no reply for {silent_s:.0f} s ({advice}); run again to resume")
        return None

    def stop_waiting(self, rest_s: float) -> Exception | None:
        """Return the error that ends the run where all endpoints ask for a pause this long."""
        if rest_s > self.patience_s:
            return Unfinished(f"all endpoints ask to wait {rest_s:.0f} s; run again later")
        return None
