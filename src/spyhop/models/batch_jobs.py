"""Batches in the journal: what was sent, and its results, request by request.

A batch is noted before it is uploaded, after the upload, and after the provider has named it. So
whenever the process is killed, the next one knows what may be running, and never sends it twice.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic_core import from_json

from spyhop.models.batch_apis import BatchApi, Progress, Result, batch_api
from spyhop.models.calls import KeyedRequests, Kind, Request
from spyhop.models.dialect import DIALECTS
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure, read_failure
from spyhop.models.guess import TokenGuess, measure
from spyhop.models.journal import Answered, Failed, Journal, State
from spyhop.models.replies import READERS, Unreadable, parse_call
from spyhop.models.service import Endpoint
from spyhop.models.transport import BatchCallError
from spyhop.schema import ArtifactError, InputError
from spyhop.store.inventory import JOURNAL

NOT_PROCESSED = Failure("throttled", "the batch ended before this request was processed")
COMMITTED_ROWS = 1_000
GONE = 404


@dataclass(slots=True)
class Batch:
    """One batch, as the journal keeps it."""

    tag: str
    """Our name of it."""
    model: str
    endpoint: dict[str, object]
    """The endpoint's settings, so that results can be fetched without the recipe."""
    num: int
    tokens: int
    usd: float
    """Highest price."""
    at: float = field(default_factory=time.time)
    uploaded: str = ""
    """The provider's name of the file."""
    ids: list[str] = field(default_factory=list)
    """The provider's name of the batch; several while it is unknown which one is ours."""
    done: int = 0

    def save(self, journal: Journal) -> None:
        """Commit the batch as it is."""
        url = str(self.endpoint["url"])
        journal.open_job(self.tag, url, json.dumps(asdict(self)), self.at)

    @property
    def config(self) -> Endpoint:
        """The endpoint, as it was when the batch was sent."""
        return Endpoint.model_validate(self.endpoint)

    def may_have_begun(self, api: BatchApi) -> bool:
        """Return whether its start may have been sent: not without a file at the provider."""
        return bool(self.uploaded) or not api.has_file


class Outcome(NamedTuple):
    """One request of a batch that ended."""

    key: str
    kind: Kind
    request: Request
    failure: Failure | None = None
    result: str | None = None
    """JSON of the reply."""
    usd: float = 0.0


def open_batches(journal: Journal) -> list[Batch]:
    """Return the batches whose results are not in the journal yet, oldest first."""
    return [Batch(**json.loads(job)) for job in journal.open_jobs()]


def file_of(journal: Journal, tag: str) -> Path:
    """Return the file with a batch's requests."""
    return journal.path.with_suffix(".batches") / f"{tag}.jsonl"


def write_requests(file: Path, kind: Kind, keyed: KeyedRequests) -> None:
    """Keep the requests of a batch until its results are in the journal."""
    file.parent.mkdir(exist_ok=True)
    with file.open("w", encoding="utf-8") as stream:
        for key, request in keyed:
            stream.write(
                f'{{"key":"{key}","kind":"{kind}","request":{request.model_dump_json()}}}\n'
            )


def read_requests(file: Path) -> Iterator[tuple[str, Kind, Request]]:
    """Yield (key, kind, request) of a batch."""
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        raise ArtifactError(
            f"{file}: the requests of a batch are missing, so its results cannot be read; restore "
            f"the file, or give up the batch with `spyhop batches --cancel {file.stem}`"
        ) from None
    with stream:
        for line in stream:
            row = from_json(line)
            yield row["key"], row["kind"], Request.model_validate(row["request"])


async def adopt(api: BatchApi, journal: Journal, batch: Batch) -> None:
    """Look in the provider's list for a batch whose start was not confirmed; note its id.

    Ids of other open batches are not its own.
    """
    if not batch.may_have_begun(api):
        return
    others = {each for other in open_batches(journal) for each in other.ids}
    found = await api.find(batch.tag, batch.uploaded, batch.num, batch.at)
    batch.ids = [each for each in found if each not in others]
    if batch.ids:
        batch.save(journal)


def close(journal: Journal, batch: Batch) -> None:
    """Forget a batch whose results, if any, are in the journal."""
    journal.close_job(batch.tag)
    file_of(journal, batch.tag).unlink(missing_ok=True)


async def progress(api: BatchApi, batch: Batch) -> Progress:
    """Return how far a batch is; one of several that may be ours counts as the slowest."""
    found = [await api.progress(each) for each in batch.ids]
    batch.done = sum(each.done for each in found) // len(found)
    if any(each.state == "running" for each in found):
        return found[0]._replace(state="running")
    files = tuple(file for each in found for file in each.files)
    return found[0]._replace(files=files, state="ended" if files else found[0].state)


async def fetch(
    api: BatchApi, journal: Journal, batch: Batch, state: State, files: Iterable[str]
) -> AsyncIterator[Outcome]:
    """Yield the outcome of every request, each once, committed before it is yielded.

    Lines in any order, twice, of foreign keys, or missing: a request without a usable line was not
    processed. Replies that the journal has are not paid a second time.
    """
    kept = read_requests(file_of(journal, batch.tag))
    pending = {key: (kind, request) for key, kind, request in kept}
    endpoint, some = batch.config, list[Outcome]()
    for where in files:
        async for result in api.results(where):
            if result.key not in pending:
                continue
            outcome = _outcome(result, *pending[result.key], endpoint, api)
            if outcome.failure is NOT_PROCESSED:
                continue  # another line, or another file, may have its reply
            del pending[result.key]
            some.append(outcome)
            if len(some) == COMMITTED_ROWS:
                _commit(journal, batch, state, some)
                for each in some:
                    yield each
                some = []
    _commit(journal, batch, state, some)
    some += [Outcome(key, *asked, NOT_PROCESSED) for key, asked in pending.items()]
    for each in some:
        yield each


def _outcome(
    result: Result, kind: Kind, request: Request, endpoint: Endpoint, api: BatchApi
) -> Outcome:
    """Return the outcome of a line, read as the reply of an ordinary call."""
    if not result.status:
        return Outcome(result.key, kind, request, NOT_PROCESSED)
    if result.status != 200:
        failure = read_failure(result.status, {}, result.raw, datetime.now(UTC))
        return Outcome(result.key, kind, request, failure)
    guess = TokenGuess().of(measure(turn.content for turn in request.messages))
    try:
        (choice, *_), usage = parse_call(
            result.raw, kind, [request], guess, DIALECTS[endpoint.api].read
        )
    except Unreadable as error:
        return Outcome(result.key, kind, request, error.failure)
    usd = usage.usd(endpoint)
    reply = READERS[kind](request, choice, usage, usd).model_dump_json()
    reply = api.http.masked(reply.encode()).decode()  # a key may be spelled in escapes
    return Outcome(result.key, kind, request, None, reply, usd)


def _commit(journal: Journal, batch: Batch, state: State, some: list[Outcome]) -> None:
    """Commit outcomes with what they cost, those that the journal has excepted."""
    known = journal.get([each.key for each in some])
    now, url = time.time(), str(batch.endpoint["url"])
    answered, failed = [], []
    for key, _, _, failure, result, usd in some:
        if result is not None and key not in known:
            answered.append(Answered(key, result, url, 1, now - batch.at, now))
            state.spent_usd += usd
        elif failure is not None:
            how = (failure.kind, failure.line, url, 1, now - batch.at, now)
            failed.append(Failed(key, *how, failure.is_maybe_billed))
            if failure.is_maybe_billed:
                state.num_maybe_billed += 1
                state.reserve(batch.usd / batch.num)
    journal.commit(answered, failed, replace(state, is_closed=True, reserved_usd=0.0))


def summary(batches: Iterable[Batch]) -> str:
    """Return how many batches are open, and how many of their requests are done."""
    some = list(batches)
    done, num = sum(each.done for each in some), sum(each.num for each in some)
    return f"{len(some)} batches at the provider, {done:,} of {num:,} requests done"


class OpenBatch(NamedTuple):
    """A batch, and what its provider says about it."""

    batch: Batch
    state: str
    """As the provider says; a failed call to it is its message."""
    num_fetched: int = 0
    """Replies that were brought into the journal now."""


def look(root: Path, *, is_fetched: bool = False) -> Iterator[OpenBatch]:
    """Yield every open batch; those that have ended are read into the journal, if asked."""
    for journal, batch in _all_open(root, is_owned=is_fetched):
        yield asyncio.run(_look(journal, batch, is_fetched=is_fetched))


def stop(root: Path, tag: str) -> None:
    """Ask the provider to stop a batch.

    A batch that it no longer has, or whose requests are missing here, is forgotten.

    Raises:
        InputError: If no open batch has this name.
    """
    for journal, batch in _all_open(root, is_owned=True):
        if batch.tag == tag:
            asyncio.run(_cancel(journal, batch))
            return
    raise InputError(f"{root}: no open batch is named {tag!r}; `spyhop batches` lists them")


def _all_open(root: Path, *, is_owned: bool) -> Iterator[tuple[Journal, Batch]]:
    for path in sorted((root / JOURNAL).glob("*.sqlite")):
        with closing(Journal(root, path.stem)) as journal:
            has_jobs = bool(journal.open_jobs())
        if has_jobs:
            with closing(Journal(root, path.stem, is_owned=is_owned)) as journal:
                for batch in open_batches(journal):
                    yield journal, batch


async def _look(journal: Journal, batch: Batch, *, is_fetched: bool) -> OpenBatch:
    api = batch_api(EndpointState(batch.config, batch.model))
    async with api.http:
        try:
            if not batch.ids and is_fetched:
                await adopt(api, journal, batch)
            if not batch.ids:
                return OpenBatch(batch, "start not confirmed; the next run looks for it again")
            found = await progress(api, batch)
            if found.state != "ended" or not is_fetched:
                return OpenBatch(batch, found.message or found.state)
            state, num = journal.state(), 0
            async for outcome in fetch(api, journal, batch, state, found.files):
                num += outcome.result is not None
        except BatchCallError as error:
            return OpenBatch(batch, str(error))
    close(journal, batch)
    return OpenBatch(batch, "fetched", num)


async def _cancel(journal: Journal, batch: Batch) -> None:
    api = batch_api(EndpointState(batch.config, batch.model))
    async with api.http:
        if not batch.ids:
            await adopt(api, journal, batch)
        try:
            for each in batch.ids:
                await api.cancel(each)
        except BatchCallError as error:
            if error.failure.status != GONE:
                raise
            close(journal, batch)
    if not file_of(journal, batch.tag).exists():
        close(journal, batch)
