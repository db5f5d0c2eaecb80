"""Replies that shards of a run computed: files beside the journal, written once and renamed.

A shard reads the files of all and the journal, writes files of its own, and locks nothing. The next
run that is no shard takes them into the journal.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from spyhop.models.journal import Journal
from spyhop.schema import ArtifactError
from spyhop.store import atomic_write
from spyhop.store.inventory import JOURNAL

FLUSH_S = 30.0
"""Longest work that a kill loses."""


class ReplyFiles:
    """The files of one model; those read so far are in a journal."""

    def __init__(self, root: Path, identity: str, journal: Journal, *, is_shard: bool) -> None:
        self._folder = root / JOURNAL / f"{identity}.parts"
        self._held: dict[str, str] = {}
        self._last = time.monotonic()
        for path in sorted(self._folder.glob("*.jsonl")):
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != path.stem:
                raise ArtifactError(
                    f"{path}: its content is not what was written; delete it, and its replies are "
                    "computed again"
                )
            replies = dict(json.loads(line) for line in data.splitlines())
            failed = {k for k, reply in replies.items() if json.loads(reply).get("error")}
            journal.put({k: replies[k] for k in replies if is_shard or k not in failed})
            if not is_shard:
                path.unlink()  # the journal has it

    def add(self, replies: Mapping[str, str]) -> None:
        """Write replies, at the latest with those of the next `FLUSH_S`."""
        self._held |= replies
        if time.monotonic() - self._last > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the replies that are held."""
        self._last = time.monotonic()
        if self._held:
            data = "".join(json.dumps(pair) + "\n" for pair in self._held.items()).encode()
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{hashlib.sha256(data).hexdigest()}.jsonl"
            with atomic_write(self._folder / name) as temporary:
                temporary.write_bytes(data)
            self._held = {}
