"""A batch API: what every provider's form of it offers.

A batch is one file of requests that a provider answers within a day at a lower price. Each line
has the payload of an ordinary call, and the key by which its result is recognised.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic_core import from_json

from spyhop.models.batch_http import BatchHttp, Json
from spyhop.models.service import Endpoint

MARGIN = 0.9
"""Share of a provider's limits that a batch uses."""
PAGE = 100
CLOCK_S = 600.0
"""A provider's clock and ours may differ by this much."""
MEGABYTE = 1_000_000
ENDED = ("completed", "success", "succeeded", "ended", "expired", "cancelled", "timeout_exceeded")


class Progress(NamedTuple):
    """How far a provider is with a batch."""

    state: Literal["running", "ended", "failed"]
    """`failed`: the provider refused the batch as a whole, and answered nothing."""
    done: int = 0
    files: tuple[str, ...] = ()
    """Where the results are."""
    message: str = ""


class Result(NamedTuple):
    """One line of results."""

    key: str
    status: int
    """As of an ordinary call; 0: the request was not processed, and is not billed."""
    raw: bytes
    """The body."""


@dataclass(frozen=True)
class BatchApi:
    """The batch API of one provider. Subclasses speak its form."""

    most_requests: ClassVar[int]
    most_bytes: ClassVar[int]

    endpoint: Endpoint
    model: str
    path: str
    """Of an ordinary call."""

    def line(self, key: str, body: Json) -> Json:
        """Return a line of a batch file."""
        return {"custom_id": key, "body": body}

    async def upload(self, http: BatchHttp, tag: str, file: Path) -> str:
        """Send the file, and return its name at the provider; it starts nothing."""
        return ""

    async def create(self, http: BatchHttp, tag: str, uploaded: str, file: Path) -> str:
        """Start the batch and return its id."""
        raise NotImplementedError

    async def find(
        self, http: BatchHttp, tag: str, uploaded: str, num: int, since: float
    ) -> list[str]:
        """Return the ids of batches that this file may have started; the whole list is read."""
        raise NotImplementedError

    async def progress(self, http: BatchHttp, job_id: str) -> Progress:
        """Return how far a batch is."""
        raise NotImplementedError

    async def cancel(self, http: BatchHttp, job_id: str) -> None:
        """Ask the provider to stop; results so far are kept, and billed."""
        raise NotImplementedError

    async def results(self, http: BatchHttp, where: str) -> AsyncIterator[Result]:
        """Yield the results of one file; lines that are no JSON are skipped."""
        async for line in self.lines(http, where):
            try:
                row = from_json(line)
            except ValueError:
                continue
            if isinstance(row, dict) and (found := self.read(row)):
                yield found

    def lines(self, http: BatchHttp, where: str) -> AsyncIterator[bytes]:
        """Yield the lines of a file of results."""
        return http.lines(where)

    def read(self, row: Json) -> Result | None:
        """Return the result in a line, None if it names no request."""
        raise NotImplementedError


def errors_of(job: Json) -> str:
    """Return what a provider says about a batch that failed."""
    errors: Any = job.get("errors") or job.get("error") or "no reason stated"
    if isinstance(errors, Mapping):
        errors = errors.get("data") or errors
    some = errors if isinstance(errors, list) else [errors]
    said = [
        f"{each.get('code') or ''} {each.get('message') or ''}".strip()
        if isinstance(each, Mapping)
        else str(each)
        for each in some[:3]
    ]
    return "; ".join(said)
