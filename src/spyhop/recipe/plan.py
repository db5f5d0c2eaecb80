"""Estimates of a run, before anything is spent."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from spyhop.models import Local, ModelUse
from spyhop.models.capabilities import LOG_PROBABILITIES, has_all
from spyhop.models.endpoint import Remote
from spyhop.models.journal import left_state
from spyhop.models.service import Demand
from spyhop.recipe.graph import Chosen, RecipeStep, Ref, Source, Use, mapped, models
from spyhop.recipe.resolve import Resolved
from spyhop.stage import CHARS_PER_TOKEN, Calls, Estimate
from spyhop.store import Artifact
from spyhop.store.files import byte_lines, parquet_head
from spyhop.train.cost import read_shape

COUNTED_BYTES = 1 << 30
"""Text sources up to this size have their lines counted; larger ones are estimated from bytes."""
LINE_BYTES = 300
STREAMED_SUFFIXES = (".bz2", ".gz", ".zst")
CORE_FLOPS = 40e9
"""Operations per second of a core on matrices."""
DECODING_FACTOR = 5
"""Cost of a written token beside that of a read one: memory, not arithmetic, limits it."""
UNKNOWN_PARAMETERS = 1_000_000
PACKED_SUFFIXES = (".br", ".bz2", ".gz", ".parquet", ".xz", ".zst")
UNPACKED_RATIO = 5
"""Growth of a packed web page or table when unpacked."""
TEXT_SUFFIXES = (".csv", ".json", ".jsonl", ".tsv", ".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One line of a plan."""

    step: RecipeStep
    is_made: bool
    estimate: Estimate
    demands: dict[str, Demand] = field(default_factory=dict)
    """Demand on served models, by the model's name."""
    waits_for: tuple[str, ...] = ()
    """Promote steps that must choose first; their choice may make this step unnecessary, so its
    figures are upper bounds."""

    @property
    def usd(self) -> float:
        """Dollars, as expected."""
        return sum(demand.usd for demand in self.demands.values())

    @property
    def most_usd(self) -> float:
        """Upper bound of dollars: the longest responses, and every further call."""
        return sum(demand.most_usd for demand in self.demands.values())

    @property
    def hours(self) -> float:
        """Time on one core, plus waiting for the limits of endpoints."""
        return self.estimate.seconds / 3600 + sum(each.hours for each in self.demands.values())

    @property
    def binds(self) -> str:
        """Bottleneck of its calls, and what a cache and batches are expected to save."""
        found = [f"{each.binds} ({name})" for name, each in self.demands.items() if each.binds]
        cached = sum(each.cached_tokens for each in self.demands.values())
        saved = sum(each.saved_usd for each in self.demands.values())
        found += [f"{cached:,} tokens in cached"] if cached else []
        return ", ".join([*found, *([f"batches save ${saved:,.2f}"] if saved else [])])


def plan(resolved: Resolved) -> list[PlannedStep]:
    """Return an estimate of every step; finished steps have their actual figures."""
    estimates: dict[str, Estimate] = {}
    lines = []
    undecided = resolved.undecided()
    for step in resolved.recipe.steps:
        if made := resolved.made.get(step.name):
            line = _recorded(step, made)
        else:
            estimate = _estimate(resolved, step, estimates)
            line = PlannedStep(
                step=step, is_made=False, estimate=estimate, waits_for=tuple(undecided[step.name]),
                demands=_demands(step, estimate, resolved.root),
            )  # fmt: skip
        estimates[step.name] = line.estimate
        lines.append(line)
    return lines


def _recorded(step: RecipeStep, made: Artifact) -> PlannedStep:
    usage = made.record.usage
    counted = ("requests", "prompt_tokens", "response_tokens")
    calls = Calls(**{name: int(usage.get(name, 0)) for name in counted})
    calls = replace(calls, most_response_tokens=calls.response_tokens)
    num_bytes = sum(_table_size(part)[1] for part in made.path.glob("*.parquet"))
    estimate = Estimate(
        rows=made.num_rows,
        row_tokens=num_bytes / max(1, made.num_rows) / CHARS_PER_TOKEN,
        parts=tuple(num for name, num in made.record.counts.items() if name.startswith("turn/")),
        calls={"all": calls} if calls.requests else {}, seconds=made.record.seconds,
    )  # fmt: skip
    usd = usage.get("usd", 0.0)
    demands = {"all": Demand(usd=usd, most_usd=usd, hours=0.0, binds="")} if usd else {}
    shaped = _with_shape(estimate, made.path)
    return PlannedStep(step=step, is_made=True, estimate=shaped, demands=demands)


def _table_size(file: Path) -> tuple[int, int]:
    """Return the rows of a Parquet file, and what its columns take before compression."""
    table = parquet_head(file)
    groups = [table.row_group(place) for place in range(table.num_row_groups)]
    return table.num_rows, sum(group.total_byte_size for group in groups)


def _estimate(resolved: Resolved, step: RecipeStep, known: dict[str, Estimate]) -> Estimate:
    """Return a stage's own estimate, with responses as long as the models' files expect them.

    Models in this process add the time that they need for their calls, on one core.
    """
    if step.stage.plan is None:
        return Estimate()
    inputs = mapped(step, lambda ref: _of(ref, known, resolved.root))
    estimate = step.stage.plan(step.config, **inputs)
    calls, seconds = dict(estimate.calls), estimate.seconds
    for name, use in models(step).items():
        if name not in calls:
            continue
        if use.service is not None:
            calls[name] = use.service.expected(calls[name])
        if isinstance(use.config, Local) and use.folder is not None:
            size = _of(use.folder, known, resolved.root).parameters or UNKNOWN_PARAMETERS
            written = DECODING_FACTOR * calls[name].response_tokens
            seconds += 2 * size * (calls[name].prompt_tokens + written) / CORE_FLOPS
    return replace(estimate, calls=calls, seconds=seconds)


def _demands(step: RecipeStep, estimate: Estimate, root: Path) -> dict[str, Demand]:
    found: dict[str, Demand] = {}
    for name, use in models(step).items():
        calls = estimate.calls.get(name)
        if calls is not None and use.service is not None:
            label = use.config.label
            earlier = left_state(root, ModelUse(use.config).digest)
            share = earlier.cached_tokens / max(1, earlier.prompt_tokens)
            label = f"{label} as {name}" if label in found else label
            found[label] = use.service.plan(calls, share)
    return found


def _of(ref: Ref, known: Mapping[str, Estimate], root: Path) -> Estimate:
    while isinstance(ref, Chosen):
        ref = ref.after
    if isinstance(ref, RecipeStep):
        return known[ref.name]
    if isinstance(ref, Source):
        return _text_of(ref.path)
    if isinstance(ref, Use) and isinstance(ref.config, Remote) and ref.service is not None:
        names = (LOG_PROBABILITIES, "prefill")
        is_scored = has_all(root, ref.config.model, ref.service, names)
        return Estimate(gives_log_probabilities=is_scored)
    return Estimate()


def _text_of(path: Path) -> Estimate:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    sizes = [file.stat().st_size for file in files]
    unpacked = sum(
        size * (UNPACKED_RATIO if file.suffix in PACKED_SUFFIXES else 1)
        for file, size in zip(files, sizes, strict=True)
    )
    rows, row_bytes, parts = sum(sizes) // LINE_BYTES, float(LINE_BYTES), tuple[int, ...]()
    if sum(sizes) <= COUNTED_BYTES:
        counted = [_counted(file) for file in files]
        parts = tuple(num for num, _ in counted)
        rows = sum(parts)
        row_bytes = sum(size for _, size in counted) / max(1, rows)
    found = Estimate(
        rows=rows, row_tokens=row_bytes / CHARS_PER_TOKEN, parts=parts, num_bytes=unpacked,
        path=path,
    )  # fmt: skip
    return _with_shape(found, path)


def _with_shape(estimate: Estimate, folder: Path) -> Estimate:
    """Add the shape of the model, if the folder contains one."""
    shape = read_shape(folder)
    names = ("parameters", "num_layers", "hidden_size")
    return replace(estimate, **{name: getattr(shape, name) for name in names} if shape else {})


def _counted(file: Path) -> tuple[int, int]:
    """Return the rows of a table or text file, and their bytes; zeros for other files."""
    kind = Path(file.stem).suffix if file.suffix in STREAMED_SUFFIXES else file.suffix
    if kind == ".parquet":
        return _table_size(file)
    if kind not in TEXT_SUFFIXES:
        return 0, 0
    num_lines = num_bytes = 0
    for line in byte_lines(file):
        num_lines += 1
        num_bytes += len(line)
    return num_lines, num_bytes
