"""Open batches of an output folder: list, fetch and cancel them without their recipe."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spyhop.models.batch_http import BatchCallError, BatchHttp
from spyhop.models.batch_jobs import (
    Batch,
    adopt,
    close,
    connected,
    fetch,
    file_of,
    open_batches,
    progress,
)
from spyhop.models.journal import Journal
from spyhop.schema import InputError
from spyhop.store.inventory import JOURNAL

GONE = 404


@dataclass(frozen=True)
class OpenBatch:
    """A batch, and what its provider says about it."""

    batch: Batch
    state: str
    """As the provider says; a failed call to it is its message."""
    num_fetched: int = 0
    """Replies that were brought into the journal now."""


def look(root: Path, *, is_fetched: bool = False) -> Iterator[OpenBatch]:
    """Yield every open batch; those that have ended are read into the journal, if asked."""
    for journal in _journals(root, is_owned=is_fetched):
        for batch in open_batches(journal):
            yield asyncio.run(_look(journal, batch, is_fetched=is_fetched))


def stop(root: Path, tag: str) -> None:
    """Ask the provider to stop a batch.

    A batch that it no longer has, or whose requests are missing here, is forgotten.

    Raises:
        InputError: If no open batch has this name.
    """
    for journal in _journals(root, is_owned=True):
        for batch in open_batches(journal):
            if batch.tag == tag:
                asyncio.run(_cancel(journal, batch))
                return
    raise InputError(f"{root}: no open batch is named {tag!r}; `spyhop batches` lists them")


def _journals(root: Path, *, is_owned: bool) -> Iterator[Journal]:
    for path in sorted((root / JOURNAL).glob("*.sqlite")):
        journal = Journal(root, path.stem)
        try:
            if not journal.open_jobs():
                continue
        finally:
            journal.close()
        journal = Journal(root, path.stem, is_owned=is_owned)
        try:
            yield journal
        finally:
            journal.close()


async def _look(journal: Journal, batch: Batch, *, is_fetched: bool) -> OpenBatch:
    endpoint, api = connected(batch.config, batch.model)
    async with BatchHttp(endpoint) as http:
        try:
            if not batch.ids and is_fetched:
                await adopt(http, api, journal, batch)
            if not batch.ids:
                return OpenBatch(batch, "start not confirmed; the next run looks for it again")
            found = await progress(http, api, batch)
            if found.state != "ended" or not is_fetched:
                return OpenBatch(batch, found.message or found.state)
            state, num = journal.state(), 0
            async for outcome in fetch(http, api, journal, batch, state, found.files):
                num += outcome.result is not None
        except BatchCallError as error:
            return OpenBatch(batch, str(error))
    close(journal, batch)
    return OpenBatch(batch, "fetched", num)


async def _cancel(journal: Journal, batch: Batch) -> None:
    endpoint, api = connected(batch.config, batch.model)
    async with BatchHttp(endpoint) as http:
        if not batch.ids:
            await adopt(http, api, journal, batch)
        try:
            for each in batch.ids:
                await api.cancel(http, each)
        except BatchCallError as error:
            if error.failure.status != GONE:
                raise
            close(journal, batch)
    if not file_of(journal, batch.tag).exists():
        close(journal, batch)
