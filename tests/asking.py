"""How tests ask a served model: a store, a context, a service; also in a process of its own."""

import json
import multiprocessing
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from server import KEY
from spyhop.models import ModelUse, Reply, Request, Sampling, Service
from spyhop.models.base import Model
from spyhop.models.dialect import DIALECTS, ApiCall
from spyhop.models.endpoint import Remote
from spyhop.models.journal import State
from spyhop.schema import Message
from spyhop.stage import Context, Progress, Runtime

KEY_ENV = "TOY_KEY"
SPAWN = multiprocessing.get_context("spawn")
SHORT = Sampling(max_new_tokens=40)
REMOTE = Remote(model="teacher")


def requests(num: int, *, start: int = 0, samples: int = 1, words: str = "") -> list[Request]:
    return [
        Request(
            id=f"r{place}" if samples == 1 else f"r{place}.{sample}",
            messages=[Message(role="user", content=f"number {place}{words}")],
            sample_index=sample,
        )
        for place in range(start, start + num)
        for sample in range(samples)
    ]


def service(*urls: str, at_all: dict[str, Any] | None = None, **fields: Any) -> Service:
    """A service of endpoints with the key in `KEY_ENV`; `fields` are those of the endpoints."""
    endpoints = [{"url": url, "key_env": KEY_ENV, **fields} for url in urls]
    return Service.model_validate({"endpoints": endpoints, **(at_all or {})})


@contextmanager
def opened(
    root: Path, where: Service, *, remote: Remote = REMOTE, notices: list[str] | None = None
) -> Iterator[tuple[Model, Context]]:
    """A model with the context it was opened in; both end with the block."""
    root.mkdir(parents=True, exist_ok=True)

    def report(progress: Progress) -> None:
        if notices is not None and progress.is_lasting:
            notices.append(progress.doing)

    ctx = Context(root, root, root, Runtime(device="cpu"), report)
    with ctx.resources:
        yield ModelUse(remote, service=where).open(ctx), ctx


def ask(
    root: Path,
    where: Service,
    asked: Sequence[Request],
    sampling: Sampling = SHORT,
    *,
    remote: Remote = REMOTE,
    notices: list[str] | None = None,
) -> list[Reply]:
    """Every reply of one run."""
    with opened(root, where, remote=remote, notices=notices) as (model, _):
        return list(model.generate(asked, sampling))


def rows(root: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query finds in the one journal of a store."""
    (path,) = (root / ".journal").glob("*.sqlite")
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def committed(root: Path) -> dict[str, Reply]:
    """Replies that the journal of a store holds, by the id of their request."""
    if not list((root / ".journal").glob("*.sqlite")):
        return {}
    found = [Reply.model_validate_json(text) for (text,) in rows(root, "SELECT reply FROM replies")]
    return {reply.id: reply for reply in found}


def left_state(root: Path) -> State:
    """What the last owner of a store's one journal left for the next."""
    [(text,)] = rows(root, "SELECT value FROM state")
    return State(**json.loads(text))


def change_state(root: Path, **fields: Any) -> None:
    """Change what the last owner left."""
    (path,) = (root / ".journal").glob("*.sqlite")
    with sqlite3.connect(path) as db:
        [(text,)] = db.execute("SELECT value FROM state").fetchall()
        text = json.dumps(json.loads(text) | fields)
        db.execute("UPDATE state SET value = ?", (text,))
    db.close()
    path.with_suffix(".digest").unlink(missing_ok=True)


def server_key(request: Request, sampling: Sampling = SHORT, *, num_samples: int = 1) -> str:
    """What the test server's books call the call of a request."""
    call = ApiCall("generate", request, sampling, "teacher", num_samples)
    raw = DIALECTS["openai"].body(call, {}, ())
    return blake2b(raw, digest_size=16).hexdigest()


def run_to_end(root: str, where: Service, num: int, key: str = KEY) -> None:
    """Ask in a process of its own, and write one line per reply."""
    import os

    os.environ[KEY_ENV] = key
    folder, notices = Path(root), []
    found = ask(folder, where, requests(num), notices=notices)
    lines = [json.dumps([reply.id, reply.text, reply.error]) for reply in found]
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "notices.json").write_text(json.dumps(notices))


def until(is_so: Any, seconds: float = 10.0) -> None:
    """Wait for something that must come to be."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)
