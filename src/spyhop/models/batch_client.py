"""The client of a served model that is asked by batches: sends them, waits, reads the results.

It has the methods of `EndpointClient`, so that a stage does not see which one answers. A request
is sent again only when its batch is known to have ended without a reply, or never to have begun.
"""

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from spyhop.models import batch_jobs as jobs
from spyhop.models.batch_apis import MARGIN, batch_api
from spyhop.models.batch_jobs import Batch, Outcome
from spyhop.models.calls import KeyedRequests, Kind, Request, Sampling
from spyhop.models.dialect import CHOICE_TOKENS, NOTHING_SHARED, ApiCall, group_of, shared_parts
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure
from spyhop.models.guess import TokenGuess, measure
from spyhop.models.journal import Journal
from spyhop.models.replies import failed_result
from spyhop.models.schedule import PendingBatch, ReplyCounts, no_room
from spyhop.models.service import Service
from spyhop.models.transport import BatchCallError
from spyhop.schema import ModelError, Unfinished
from spyhop.store import atomic_write

FIRST_POLL_S, LONGEST_POLL_S = 2.0, 60.0
SETTLE_S = 20.0
"""A batch whose start was not confirmed may appear in the provider's list this much later."""
FULL_S = 60.0
"""Pause after a provider refused a batch because too many tokens wait."""

NO_UNICODE = Failure("rejected", "the prompt is no valid Unicode")

Keyed = dict[str, Request]


class BatchClient:
    """Asks a served model by batches. Owns the journal for as long as it is open."""

    hold_s = 0.0

    def __init__(
        self, model: str, extra: Mapping[str, Any], omit: Sequence[str], service: Service,
        journal: Journal,
    ) -> None:  # fmt: skip
        self.counts = ReplyCounts()
        self._endpoint = EndpointState(service.endpoints[0], model)
        self._api = batch_api(self._endpoint)
        self._extra, self._omit, self._service = extra, omit, service
        self._journal = journal.beside()
        self._open = {batch.tag: batch for batch in jobs.open_batches(self._journal)}
        self._keys = {
            tag: {key for key, _, _ in jobs.read_requests(jobs.file_of(self._journal, tag))}
            for tag in self._open
        }
        self.last = journal.state()
        self.state = self.last.taken_over()
        self._guess = TokenGuess()
        self._attempts: Counter[str] = Counter()
        self._full_until = 0.0
        self._listed_from = time.monotonic() + SETTLE_S
        """Until then a batch that is not in the provider's list may still appear there."""
        self._stopping = threading.Event()
        self._worker = ThreadPoolExecutor(1, "batches")  # one call at a time

    def ask(self, kind: Kind, sampling: Sampling, keyed: KeyedRequests) -> PendingBatch:
        """Hand over requests by key; `PendingBatch.done` is set when all of them are settled."""
        pending = PendingBatch(num_pending=len(keyed))
        self._worker.submit(self._run, pending, kind, sampling, dict(keyed))
        return pending

    def shares(self) -> list[str]:
        """Return how far the batches are."""
        return [jobs.summary(self._open.values())] if self._open else []

    def stop(self) -> None:
        """Wait for nothing more; the provider works on, and the next run fetches the results."""
        self._stopping.set()

    def close(self) -> None:
        """End. Open batches stay in the journal."""
        self.stop()
        self._worker.shutdown()
        self.state.is_closed, self.state.reserved_usd = True, 0.0
        self._journal.commit([], [], self.state)
        self._journal.close()

    def _run(self, pending: PendingBatch, kind: Kind, sampling: Sampling, keyed: Keyed) -> None:
        try:
            asyncio.run(self._answer(pending, kind, sampling, keyed))
        except BaseException as error:  # noqa: BLE001 (the edge of a thread)
            pending.error = error
        pending.done.set()

    async def _answer(
        self, pending: PendingBatch, kind: Kind, sampling: Sampling, keyed: Keyed
    ) -> None:
        for key, request in list(keyed.items()):
            try:
                request.model_dump_json()
            except PydanticSerializationError:
                pending.results[key] = failed_result(kind, request.id, NO_UNICODE)
                pending.failed.add(key)
                del keyed[key]
        async with self._api.http:
            poll_s = FIRST_POLL_S
            while keyed:
                try:
                    has_moved = await self._step(pending, kind, sampling, keyed)
                except BatchCallError as error:
                    if not error.is_passing:
                        raise ModelError(self._endpoint.advice(error.failure)) from None
                    self.counts.failures[error.failure.kind] += 1
                    self.counts.last_failure, has_moved = str(error), False
                poll_s = FIRST_POLL_S if has_moved else min(LONGEST_POLL_S, 1.5 * poll_s)
                if not has_moved:
                    await self._sleep(poll_s)

    async def _step(
        self, pending: PendingBatch, kind: Kind, sampling: Sampling, keyed: Keyed
    ) -> bool:
        """Do what can be done now; return whether anything was."""
        for batch in list(self._open.values()):
            for wait_s in (0.0, self._listed_from - time.monotonic()):
                if not batch.ids:  # its start was not confirmed
                    await self._sleep(wait_s)
                    await jobs.adopt(self._api, self._journal, batch)
            if not batch.ids:
                self._forget(batch)
                if batch.may_have_begun(self._api):  # and appear still later
                    self.state.num_maybe_twice += batch.num
                    self.state.reserve(batch.usd)
        waiting = set().union(*self._keys.values())
        new = [(key, request) for key, request in keyed.items() if key not in waiting]
        if new and await self._send(kind, sampling, new):
            return True
        has_moved = False
        for batch in list(self._open.values()):
            has_moved |= await self._look(batch, pending, keyed)
        return has_moved

    async def _send(self, kind: Kind, sampling: Sampling, new: KeyedRequests) -> bool:
        """Send as many requests as one batch, the provider's queue and the budget take."""
        if time.monotonic() < self._full_until:
            return False
        tag = f"spyhop-{time.time_ns():x}"
        upload = jobs.file_of(self._journal, tag).with_suffix(".upload")
        upload.parent.mkdir(exist_ok=True)
        try:
            some, tokens, usd = self._write(upload, kind, sampling, new)
            if not some:
                return False
            with atomic_write(jobs.file_of(self._journal, tag)) as aside:
                jobs.write_requests(aside, kind, some)
            config = self._endpoint.config.model_dump(mode="json")
            batch = Batch(tag, self._endpoint.model, config, len(some), tokens, usd)
            batch.save(self._journal)
            self._open[tag], self._keys[tag] = batch, {key for key, _ in some}
            self.state.reserved_usd += batch.usd
            try:
                batch.uploaded = await self._api.upload(tag, upload)
                batch.save(self._journal)
                batch.ids = [await self._api.create(tag, batch.uploaded, upload)]
            except BatchCallError as error:
                if not error.is_unknown:
                    self._forget(batch)
                self._listed_from = time.monotonic() + SETTLE_S
                raise
            batch.save(self._journal)
            return True
        finally:
            upload.unlink(missing_ok=True)

    def _write(
        self, file: Path, kind: Kind, sampling: Sampling, new: KeyedRequests
    ) -> tuple[list[tuple[str, Request]], int, float]:
        """Write the lines of a batch; return its requests, prompt tokens and highest price."""
        config, api, budget_usd = self._endpoint.config, self._api, self._service.budget_usd
        held = sum(batch.tokens for batch in self._open.values())
        room = MARGIN * config.batch_tokens - held if config.batch_tokens else math.inf
        money = math.inf if budget_usd is None else budget_usd - self.state.bound_usd
        written = CHOICE_TOKENS if kind == "choose" else sampling.max_new_tokens
        is_marked = self._endpoint.dialect.marks_cache
        parts = shared_parts(request for _, request in new) if is_marked else {}
        some: list[tuple[str, Request]] = []
        tokens, usd, size = 0, 0.0, 0
        with file.open("wb") as stream:
            for key, request in new:
                call = ApiCall(
                    kind, request, sampling, self._endpoint.model, 1, config.tokens_field,
                    parts.get(group_of(request), NOTHING_SHARED),
                )  # fmt: skip
                fields = self._endpoint.dialect.fields(call, self._extra, self._omit)
                line = to_json(api.line(key, fields)) + b"\n"
                texts = [*(turn.content for turn in request.messages), request.text]
                prompt = self._guess.of(measure([*texts, request.continuation]))
                price = config.most_usd(prompt, written)
                if (
                    len(some) >= MARGIN * api.most_requests
                    or size + len(line) > MARGIN * api.most_bytes
                    or usd + price > money
                    or (tokens + prompt > room and (some or self._open))
                ):
                    break
                size, tokens, usd = size + len(line), tokens + prompt, usd + price
                stream.write(line)
                some.append((key, request))
        if not some and usd + price > money and not self._open:
            raise no_room(self._service.budget_usd or math.inf, price, self.state)
        return some, tokens, usd

    async def _look(self, batch: Batch, pending: PendingBatch, keyed: Keyed) -> bool:
        if not batch.ids:
            return False
        found = await jobs.progress(self._api, batch)
        if found.state == "running":
            return False
        if found.state == "failed":
            self._forget(batch)
            if "limit" not in found.message:
                url = self._endpoint.config.url
                raise ModelError(f"{url}: the batch was refused: {found.message}")
            self.counts.last_failure = found.message  # the provider's queue is full
            self._full_until = time.monotonic() + FULL_S
            return False
        spent = self.state.spent_usd
        async for outcome in jobs.fetch(self._api, self._journal, batch, self.state, found.files):
            if outcome.key in keyed:
                self._settle(outcome, pending, keyed)
        self.counts.usd += self.state.spent_usd - spent
        self._forget(batch)
        return True

    def _settle(self, outcome: Outcome, pending: PendingBatch, keyed: Keyed) -> None:
        key, failure = outcome.key, outcome.failure
        if outcome.result is not None:
            self.counts.num_answered += 1
            self.counts.answered_at = time.monotonic()
            pending.results[key] = outcome.result
        elif failure is not None:
            self.counts.failures[failure.kind] += 1
            self.counts.last_failure = f"{self._endpoint.config.url}: {failure.line}"
            self._attempts[key] += 1
            if failure.kind in ("rejected", "refused", "fatal"):
                pending.results[key] = failed_result(outcome.kind, outcome.request.id, failure)
                pending.failed.add(key)
            elif self._attempts[key] >= self._service.max_attempts:
                pending.left[failure.kind] += 1
                pending.cause = self.counts.last_failure
            else:
                return  # it goes into another batch
        del keyed[key]
        pending.num_pending -= 1

    def _forget(self, batch: Batch) -> None:
        jobs.close(self._journal, batch)
        self._open.pop(batch.tag, None)
        self._keys.pop(batch.tag, None)
        self.state.reserved_usd = sum(batch.usd for batch in self._open.values())

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless the run is asked to stop."""
        until = time.monotonic() + seconds
        while not self._stopping.is_set() and time.monotonic() < until:
            await asyncio.sleep(min(0.2, max(0.0, until - time.monotonic())))
        if self._stopping.is_set():
            raise Unfinished(
                f"stopped; {jobs.summary(self._open.values())}: run again to fetch the results, or "
                "see `spyhop batches`"
            )
