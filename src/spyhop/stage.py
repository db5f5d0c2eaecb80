"""Stages: plain functions that turn a config and inputs into an artifact, at most once.

A stage has one of three shapes, told by `writes`:

* a `Row` subclass: the function yields rows of that type;
* `TABLES`: it yields Arrow record batches of one schema (or returns none);
* `FOLDER`: it writes files into `ctx.out`.
"""

import errno
import inspect
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
from pydantic import BaseModel

from spyhop import __version__
from spyhop.runtime import Runtime, Shard
from spyhop.schema import (
    TOO_MANY_FILES,
    ArtifactError,
    Config,
    InputError,
    RecipeError,
    Row,
    Unfinished,
)
from spyhop.store import (
    Artifact,
    InputRecord,
    PartWriter,
    Record,
    Source,
    Work,
    arrow_schema,
    claim,
    find,
    key_of,
)
from spyhop.store.artifact import DROPPED

TABLES: Final = "tables"
FOLDER: Final = "folder"
REPORT_S = 0.2
"""Least time between two reports of progress over rows."""
_LIMITS = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "{}: the disk or quota is full; finished work is "
    "kept. Free some space (`spyhop clean` lists what can be deleted) and run again",
    (errno.EMFILE, errno.ENFILE): TOO_MANY_FILES,
}
"""Messages by the errors of limits of the system."""
_PROVENANCE = {
    "spyhop": __version__,
    "python": platform.python_version(),
    "platform": f"{sys.platform}-{platform.machine()}",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a stage; `total` is None if unknown."""

    doing: str
    done: float = 0
    total: float | None = None
    unit: str = ""
    note: str = ""
    is_lasting: bool = False
    """A note for people that stays in the output."""
    usage: Mapping[str, float] = field(default_factory=dict)
    """Requests, tokens and dollars so far."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Failed attempts so far, by kind."""


class ModelInput(Protocol):
    """A model as a stage's input: its identity now, its weights when the stage runs."""

    @property
    def key(self) -> str:
        """Hash of what the model is."""

    @property
    def digest(self) -> str:
        """Hash of the content of its files."""

    @property
    def folder(self) -> Artifact | None:
        """Where its files are, if it has any."""

    def open(self, ctx: "Context") -> Any:  # noqa: ANN401 (Any: `Model` is defined in a later room)
        """Return the model, its replies journaled under `ctx.root`."""


StageInput = Artifact | ModelInput | Mapping[str, Artifact | ModelInput]


CHARS_PER_TOKEN = 4.0
"""For plans: English under the usual tokenizers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls of a stage to one model."""

    requests: int
    prompt_tokens: int
    response_tokens: int = 0
    """As expected."""
    most_response_tokens: int = 0
    """Upper bound: every response reaches max_new_tokens."""
    further_prompt_tokens: int = 0
    """Worst-case extra prompt tokens: retries, and prompts that include earlier responses."""
    further_response_tokens: int = 0
    """Worst-case extra response tokens of such calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Estimated rows, calls and time of a step, before anything runs."""

    rows: int = 0
    row_tokens: float = 0.0
    """Mean tokens of the text of a row; 0 where it is unknown."""
    calls: Mapping[str, Calls] = field(default_factory=dict)
    """By the name of the model's input; prices and limits are the runner's business."""
    trained_tokens: int = 0
    """Tokens read in training."""
    gives_log_probabilities: bool = True
    """Of a model: whether it gives those of options, as far as `spyhop doctor` has seen."""
    parameters: int = 0
    """Of a model: those that it computes with; 0 where it is none, or unknown."""
    num_layers: int = 0
    hidden_size: int = 0
    flops: float = 0.0
    """Floating-point operations of training."""
    path: Path | None = None
    """Of an input from outside: the file or folder itself."""
    state_bytes: int = 0
    """Of training: weights, gradients and optimiser."""
    seconds: float = 0.0
    """On one core of a current machine, from the rates measured in `benchmarks/`."""
    parts: tuple[int, ...] = ()
    """Of a source: rows of each file; of a collection: rows of each task; of questions: of each
    turn; empty if unknown."""
    num_bytes: int = 0
    """Of a source: what its files hold once they are unpacked, guessed for packed ones."""


Estimates = Mapping[str, Estimate]
"""Estimates of several inputs by name."""


def sum_estimates(estimates: Iterable[Estimate]) -> Estimate:
    """Return the rows of several inputs together, and their mean length where it is known."""
    every = list(estimates)
    known = [each for each in every if each.row_tokens]
    tokens = sum(each.rows * each.row_tokens for each in known)
    return Estimate(
        rows=sum(each.rows for each in every),
        row_tokens=tokens / max(1, sum(each.rows for each in known)),
    )


@dataclass(slots=True)
class Context:
    """Everything that a stage may use besides its inputs."""

    root: Path
    out: Path
    """The artifact's folder while it is made."""
    state: Path
    """Kept when the process dies, deleted when the stage ends: checkpoints and the like."""
    runtime: Runtime
    report: Callable[[Progress], None]
    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    usage: dict[str, float] = field(default_factory=dict)
    resources: ExitStack = field(default_factory=ExitStack)
    """Closed when the stage ends, however it ends."""
    models: dict[str, Any] = field(default_factory=dict)
    """Open models by identity: a model that two inputs name is opened once."""
    shard: Shard | None = None
    """Which parts to make, if other processes make the others."""
    parts: Path = Path()
    """Folder of finished parts, common to all shards, deleted when the stage ends."""
    num_calls: int = 0
    """Calls to models that have all their replies."""
    _drops: PartWriter | None = None

    def count(self, name: str, num: int = 1) -> None:
        """Add to a counter of the record."""
        self.counts[name] += num

    def use(self, name: str, amount: float) -> None:
        """Add to the usage: requests, tokens, dollars."""
        if amount:
            self.usage[name] = self.usage.get(name, 0) + amount

    def notice(self, text: str) -> None:
        """Log a line that stays in the output of the run."""
        self.report(Progress(text, is_lasting=True))

    def drop(self, row: BaseModel | str, reason: str) -> None:
        """Drop a row: its reason is counted, and the row is kept in `dropped`."""
        if self._drops is None:
            folder = self.out / DROPPED
            folder.mkdir()
            self._drops = PartWriter(folder, _DROP_SCHEMA)
        self.dropped[reason] += 1
        text = row if isinstance(row, str) else row.model_dump_json()
        self._drops.add({"reason": reason, "row": text})

    def track(
        self, items: Iterable[Any], doing: str, *, total: int | None = None, unit: str = "rows"
    ) -> Iterator[Any]:
        """Yield the items, reporting progress at most every `REPORT_S`."""
        last = 0.0
        for done, item in enumerate(items):
            if (now := time.monotonic()) - last >= REPORT_S:
                self.report(Progress(doing, done, total, unit))
                last = now
            yield item
        self.report(Progress(doing, total or 0, total, unit))

    def close(self) -> None:
        """End the folder of dropped rows."""
        if self._drops is not None:
            self._drops.close()


_DROP_SCHEMA = pa.schema([pa.field(name, pa.string(), False) for name in ("reason", "row")])


@dataclass(frozen=True, slots=True)
class Stage:
    """A function with a name, a version and a shape. Call `run`, or add it to a recipe."""

    name: str
    """`<room>.<function>`; part of the key and of the artifact's folder name."""
    version: int
    """Raised by hand whenever the same config and inputs give another output."""
    function: Callable[..., Any]
    writes: type[Row] | str
    """A row type, `TABLES` or `FOLDER`."""
    config_type: type[Config]
    inputs: tuple[str, ...]
    optional: frozenset[str]
    plan: Callable[..., Estimate] | None
    """`plan(config, **inputs: Estimate | Estimates)`, called before any run."""
    shows_names: bool = False
    """Whether its output shows the names of its inputs, which are then part of the key."""
    needs: str = ""
    """Extra of the package that it needs, whatever its inputs are."""
    has_parts: bool = False
    """Whether it makes the parts of `ctx.shard` only, in `ctx.parts`. Shards also share stages
    that ask models with weights."""

    def __reduce__(self) -> tuple[Callable[..., "Stage"], tuple[str, str]]:
        """Pickle by name: the module attribute is the stage, its function is not importable."""
        return _by_name, (self.function.__module__, self.function.__name__)

    def key(self, config: Config, inputs: Mapping[str, StageInput]) -> str:
        """Return the artifact's key: stage, version, config and the inputs' keys in their order."""
        keys = {
            name: [[label, item.key] if label and self.shows_names else item.key
                   for label, item in by_name(value).items()]
            for name, value in inputs.items()
        }  # fmt: skip
        return key_of([self.name, self.version, config, keys])

    def find(self, root: Path, config: Config, inputs: Mapping[str, StageInput]) -> Artifact | None:
        """Return the finished artifact if it was made from inputs of today's content."""
        found = find(root, self.name, self.key(config, inputs))
        if found is None:
            return None
        recorded = {n: [each.digest for each in some] for n, some in found.record.inputs.items()}
        return found if recorded == _digests(inputs) else None

    def run(
        self,
        root: Path,
        config: Config,
        *,
        runtime: Runtime | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
        origins: Mapping[str, Mapping[str, str]] | None = None,
        force: bool = False,
        shard: Shard | None = None,
        **inputs: StageInput,
    ) -> Artifact:
        """Return the artifact, made now unless it is there already.

        `origins` are the steps or files that the inputs come from, for the record. With `force` it
        is made even if it exists; the old one stays until the new one is finished. A `shard` makes
        its own parts, and the artifact once the parts of all are there; else it is `Unfinished`.
        What the stage raises is raised, and the next run resumes the work.
        """
        self.check(config, inputs)
        key = self.key(config, inputs)
        digests = _digests(inputs)
        if not force and (found := self.find(root, config, inputs)):
            return found
        say = lambda text: report(Progress(text, is_lasting=True))  # noqa: E731
        num_calls = -1
        while True:
            with _system_limits(root), claim(root, self.name, key, digests, say, shard) as work:
                if not force and (found := self.find(root, config, inputs)):
                    work.discard()  # made by the run that was waited for
                    return found
                where = (root, work.out, work.state, runtime or Runtime(), report)
                ctx = Context(*where, shard=shard, parts=work.parts)
                try:
                    with ctx.resources:
                        return self._make(ctx, work, config, inputs, origins or {})
                except Unfinished:
                    is_told = shard is not None and work.mark(shard, ctx.num_calls)
                    if not is_told or ctx.num_calls == num_calls:
                        raise
                    num_calls = ctx.num_calls  # all have done their parts: look again

    def _make(
        self,
        ctx: Context,
        work: Work,
        config: Config,
        inputs: Mapping[str, StageInput],
        origins: Mapping[str, Mapping[str, str]],
    ) -> Artifact:
        started = time.monotonic()
        opened = {name: _opened(ctx, value) for name, value in inputs.items()}
        num_rows = self._write(ctx, self.function(ctx, config, **opened))
        ctx.close()
        _check_sources(ctx.root, inputs)
        made_from = {
            name: [
                InputRecord(
                    name=origins.get(name, {}).get(slot, slot or name), slot=slot, key=item.key,
                    digest=item.digest,
                )
                for slot, item in by_name(value).items()
            ]
            for name, value in inputs.items()
        }  # fmt: skip
        return work.finish(Record(
            key=self.key(config, inputs), stage=self.name, version=self.version,
            config=config.model_dump(mode="json"), inputs=made_from, rows=num_rows,
            counts=dict(sorted(ctx.counts.items())), dropped=dict(sorted(ctx.dropped.items())),
            usage=dict(sorted(ctx.usage.items())), seconds=round(time.monotonic() - started, 3),
            created=datetime.now(UTC).isoformat(timespec="seconds"), provenance=_PROVENANCE,
        ))  # fmt: skip

    def check(self, config: Config, inputs: Collection[str]) -> None:
        """Refuse a config or inputs that the stage does not take."""
        if type(config) is not self.config_type:
            raise RecipeError(f"{self.name} takes {self.config_type.__name__}, not {config!r:.60}")
        unknown = sorted(set(inputs) - set(self.inputs))
        missing = sorted(set(self.inputs) - set(inputs) - self.optional)
        if unknown or missing:
            raise RecipeError(
                f"{self.name} takes the inputs {list(self.inputs)}; "
                f"missing: {missing}, unknown: {unknown}"
            )

    def _write(self, ctx: Context, output: Any) -> int | None:  # noqa: ANN401 (three shapes)
        if self.writes == FOLDER:
            return None
        writer: PartWriter | None = None
        if isinstance(self.writes, type):
            writer = PartWriter(ctx.out, arrow_schema(self.writes))
            for row in output:
                writer.add(row.model_dump())
        else:
            for batch in output:
                writer = writer or PartWriter(ctx.out, batch.schema)
                writer.add_batch(batch)
        if writer is None:
            name = ctx.out.parent.name
            raise ArtifactError(f"{name}: no record batch from the stage, so no schema")
        writer.close()
        return writer.num_rows


def stage(
    *,
    version: int,
    writes: type[Row] | str,
    plan: Callable[..., Estimate] | None = None,
    shows_names: bool = False,
    needs: str = "",
    has_parts: bool = False,
) -> Callable[[Callable[..., Any]], Stage]:
    """Turn `function(ctx, config, *, inputs...)` into a `Stage` with these fields."""

    def wrap(function: Callable[..., Any]) -> Stage:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
        room = function.__module__.removeprefix("spyhop.").split(".")[0]
        return Stage(
            name=f"{room}.{function.__name__}", version=version, function=function, writes=writes,
            config_type=parameters[1].annotation, plan=plan,
            inputs=tuple(parameter.name for parameter in parameters[2:]),
            optional=frozenset(p.name for p in parameters[2:] if p.default is not p.empty),
            shows_names=shows_names, needs=needs, has_parts=has_parts,
        )  # fmt: skip

    return wrap


def _by_name(module: str, name: str) -> Stage:
    found: Stage = getattr(import_module(module), name)
    return found


def by_name(value: StageInput) -> Mapping[str, Artifact | ModelInput]:
    """Return the artifacts and models of an input by name; a single one has the empty name."""
    return value if isinstance(value, Mapping) else {"": value}


def _opened(ctx: Context, value: StageInput) -> Any:  # noqa: ANN401 (what the stage takes)
    if isinstance(value, Mapping):
        return {name: _opened(ctx, item) for name, item in value.items()}
    folder = value if isinstance(value, Artifact) else value.folder
    if folder is not None and folder.record.rows is None:  # parts are verified when they are read
        folder.verify()
    return value if isinstance(value, Artifact) else value.open(ctx)


def _digests(inputs: Mapping[str, StageInput]) -> dict[str, list[str]]:
    return {
        name: [item.digest for item in by_name(value).values()] for name, value in inputs.items()
    }


def _check_sources(root: Path, inputs: Mapping[str, StageInput]) -> None:
    """Refuse to finish if a source changed after its digest was taken."""
    items = [item for value in inputs.values() for item in by_name(value).values()]
    folders = [item if isinstance(item, Artifact) else item.folder for item in items]
    for folder in folders:
        if folder is not None and folder.record.stage == "source":
            now = Source(folder.path).open(root)
            if now.key != folder.key:
                raise InputError(f"{folder.path}: it changed while it was read; run again")


@contextmanager
def _system_limits(root: Path) -> Iterator[None]:
    """Name a limit of the system, also where libraries wrap its error or quote the first of it."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            for codes, message in _LIMITS.items():
                is_limit = isinstance(cause, OSError) and cause.errno in codes
                if is_limit or os.strerror(codes[0]) in str(cause):
                    raise ArtifactError(message.format(root)) from None
            cause = cause.__cause__ or cause.__context__
        raise
