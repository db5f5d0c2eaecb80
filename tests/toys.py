"""Toy stages, models and rows that several test files share; importable by other processes."""

import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from fake import FakeModel
from spyhop.models import Model, ModelConfig, Reply, Request, Sampling
from spyhop.models.replay import Recorded
from spyhop.runtime import Runtime
from spyhop.schema import Answer, Config, InputError, Message, Query, Row
from spyhop.stage import FOLDER, TABLES, Context, Estimate, stage
from spyhop.store import Artifact, arrow_schema

END, PAD = "<|end|>", "<|pad|>"


class Rows(Config):
    rows: tuple[Answer, ...]


class Numbers(Config):
    num_rows: int = 3
    log: str = ""
    """File that gets a line whenever the stage's function runs."""
    seconds: float = 0.0


class Sum(Config):
    log: str = ""
    broken_while: str = ""
    """The stage fails half-way while this file exists."""


class Number(Row):
    value: int


def named(artifacts: Sequence[Artifact]) -> dict[str, Artifact]:
    return {f"input-{place}": artifact for place, artifact in enumerate(artifacts)}


def tell(log: str, line: str) -> None:
    if log:
        with Path(log).open("a") as stream:
            stream.write(f"{line}\n")


def told(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@stage(version=1, writes=Answer)
def given(ctx: Context, config: Rows) -> Iterator[Answer]:
    return iter(config.rows)


@stage(version=1, writes=Number)
def failing(ctx: Context, config: Numbers) -> Iterator[Number]:
    raise InputError("it fails")
    yield


@stage(version=1, writes=Number)
def threads(ctx: Context, config: Numbers) -> Iterator[Number]:
    yield Number(id=config.log, value=ctx.runtime.threads)


@stage(version=1, writes=Number, plan=lambda config: Estimate(rows=config.num_rows, seconds=7))
def numbers(ctx: Context, config: Numbers) -> Iterator[Number]:
    tell(config.log, f"numbers {os.getpid()}")
    time.sleep(config.seconds)
    for value in range(config.num_rows):
        yield Number(id=str(value), value=value)


@stage(version=1, writes=Number)
def lines(ctx: Context, config: Numbers, *, file: Artifact) -> Iterator[Number]:
    tell(config.log, f"lines {os.getpid()}")
    for place, line in enumerate(file.path.read_text().split()):
        yield Number(id=str(place), value=int(line))


@stage(
    version=1,
    writes=Number,
    plan=lambda config, parts: Estimate(rows=sum(p.rows for p in parts.values())),
)
def added(ctx: Context, config: Sum, *, parts: Mapping[str, Artifact]) -> Iterator[Number]:
    tell(config.log, f"added {os.getpid()}")
    yield Number(
        id="sum", value=sum(row.value for part in parts.values() for row in part.rows(Number))
    )
    if config.broken_while and Path(config.broken_while).exists():
        raise InputError("the toy is broken")


@stage(version=1, writes=Number)
def odd_only(ctx: Context, config: Numbers, *, rows: Artifact) -> Iterator[Number]:
    for row in rows.rows(Number):
        ctx.count(f"value/{row.value % 2}")
        if row.value % 2:
            yield row
        else:
            ctx.drop(row, "even")


@stage(version=1, writes=TABLES)
def table(ctx: Context, config: Numbers, *, rows: Artifact) -> Iterator[object]:
    return rows.batches(["value"])


@stage(version=1, writes=FOLDER)
def folder(ctx: Context, config: Numbers) -> None:
    (ctx.out / "sub").mkdir()
    (ctx.out / "sub" / "text.txt").write_text("a" * config.num_rows)


@stage(version=1, writes=FOLDER)
def bytes_of(ctx: Context, config: Numbers) -> None:
    """Writes as many MB as the config has rows."""
    with (ctx.out / "large.bin").open("wb") as stream:
        for _ in range(config.num_rows):
            stream.write(bytes(1 << 20))


@stage(version=1, writes=Number)
def replies(ctx: Context, config: Numbers, *, model: Model) -> Iterator[Number]:
    asked = (
        Request(id=str(place), messages=[Message(role="user", content=f"number {place}")])
        for place in range(config.num_rows)
    )
    for reply in model.generate(asked, Sampling(), total=config.num_rows):
        yield Number(id=reply.id, value=int(reply.text))


@stage(version=1, writes=Recorded)
def recorded(ctx: Context, config: Numbers) -> Iterator[Recorded]:
    for value in range(config.num_rows):
        yield Recorded(id=str(value), query=f"number {value}", response=str(value))


class LoggedModel(FakeModel):
    """Answers "number 7" with 7 after a moment; whom it is asked stands in a file."""

    def __init__(self, log: Path, seconds: float = 0.0) -> None:
        super().__init__([], name="logged")
        self.log = str(log)
        self.seconds = seconds

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        for request in batch:
            tell(self.log, request.id)
            self.calls += 1
            time.sleep(self.seconds)
        texts = [request.messages[-1].content.split()[-1] for request in batch]
        return [
            Reply(id=r.id, text=text, finish_reason="stop", prompt_tokens=2, response_tokens=1)
            for r, text in zip(batch, texts, strict=True)
        ]


def committed(root: Path) -> int:
    total = 0
    for file in (root / ".journal").glob("*.sqlite"):
        db = sqlite3.connect(file)
        has_table = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchone()
        total += db.execute("SELECT count(*) FROM replies").fetchone()[0] if has_table else 0
        db.close()
    return total


def query(place: int, *, collection: str = "cot", multiple_choice: bool = False) -> Query:
    return Query(
        id=f"q{place}",
        collection=collection,
        task="toy",
        query=f"Question {place}?",
        target=str(place),
        multiple_choice=multiple_choice,
    )


def answer_row(place: int, asked: str, said: str | None, **changes: object) -> Answer:
    turns = [Message(role="user", content=asked)]
    if said is not None:
        turns.append(Message(role="assistant", content=said))
    values: dict[str, object] = {
        "id": f"a{place}",
        "query_id": f"q{place}",
        "collection": "cot",
        "task": "toy",
        "system_id": "1",
        "messages": turns,
        "model": "toy",
        "finish_reason": "stop",
    }
    return Answer.model_validate({**values, **changes})


def artifact_of(root: Path, rows: Sequence[Answer]) -> Artifact:
    return given.run(root, Rows(rows=tuple(rows)))


def rows_artifact(folder_: Path, rows: Sequence[BaseModel]) -> Artifact:
    """Write rows of any type as an artifact outside a store."""
    from spyhop.store import PartWriter, Record, key_of

    folder_.mkdir(parents=True, exist_ok=True)
    writer = PartWriter(folder_, arrow_schema(type(rows[0])))
    for row in rows:
        writer.add(row.model_dump())
    writer.close()
    key = key_of([row.model_dump() for row in rows])
    record = Record(
        key=key, stage="toy.rows", version=1, config={}, inputs={}, digest=key, rows=len(rows)
    )
    return Artifact(folder_, record)


@stage(version=1, writes=Query)
def noise(ctx: Context, config: Numbers) -> Iterator[Query]:
    """Some 2 KB a row that do not compress well."""
    for place in range(config.num_rows):
        yield query(place).model_copy(update={"query": os.urandom(1000).hex()})


@stage(version=1, writes=TABLES)
def no_table(ctx: Context, config: Numbers) -> Iterator[object]:
    return iter(())


@stage(version=1, writes=Number)
def killed(ctx: Context, config: Numbers) -> Iterator[Number]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield Number(id="never", value=0)


class Computed(ModelConfig):
    """A model "with weights": batches of four; a reply tells its batch, as rounding might."""

    needs: ClassVar[str] = "local"
    log: str

    def connect(self, folder: Artifact | None, runtime: Runtime) -> "ComputedBackend":
        return ComputedBackend(self.log)


class ComputedBackend:
    def __init__(self, log: str) -> None:
        self.log = log

    def batches(self, requests: Sequence[Request], kind: str) -> list[list[Request]]:
        turned = list(requests)[::-1]
        return [turned[start : start + 4] for start in range(0, len(turned), 4)]

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        tell(self.log, " ".join([batch[0].messages[-1].content[:2], *(r.id for r in batch)]))
        found = []
        for request in batch:
            text = f"{batch[0].id}: {request.messages[-1].content}"
            is_refused = text.endswith(" 5")
            error = "too long" if is_refused else None
            reason = "error" if is_refused else "stop"
            found.append(Reply(id=request.id, text=text, finish_reason=reason, error=error))
        return found


@stage(version=1, writes=Recorded)
def asked_twice(ctx: Context, config: Numbers, *, model: Model) -> Iterator[Recorded]:
    """Asks every third question three times, and asks about each reply."""
    asked = [
        Request(id=str(n), messages=[Message(role="user", content=f"Question {n // 3}")])
        for n in range(config.num_rows)
    ]
    first = list(model.generate(iter(asked), Sampling()))
    again = [
        Request(id=reply.id, messages=[Message(role="user", content=f"So: {reply.text}")])
        for reply in first
    ]
    for one, two in zip(first, model.generate(iter(again), Sampling()), strict=True):
        yield Recorded(id=one.id, query=one.error or one.text, response=two.text)
