"""Estimates of a run, before anything is spent."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from spyhop.models import Local, ModelUse
from spyhop.models.capabilities import LOG_PROBABILITIES, has_all
from spyhop.models.endpoint import Remote
from spyhop.models.journal import left_state
from spyhop.models.service import Demand
from spyhop.recipe.graph import Chosen, RecipeStep, Source, Use, models
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
            estimate = _with_local_time(step, _estimate(resolved, step, estimates), estimates)
            line = PlannedStep(
                step=step, is_made=False, estimate=estimate, waits_for=tuple(undecided[step.name]),
                demands=_demands(step, estimate, resolved.root),
            )  # fmt: skip
        estimates[step.name] = line.estimate
        lines.append(line)
    return lines


def calls_of(estimate: Estimate) -> Calls:
    """Return the sum of a step's calls over all its models."""
    names = [each.name for each in fields(Calls)]
    calls = list(estimate.calls.values())
    return Calls(**{name: sum(getattr(each, name) for each in calls) for name in names})


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
        calls={"all": calls} if calls.requests else {},
        seconds=made.record.seconds,
    )
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
    """Return a stage's own estimate, with responses as long as the models' files expect them."""
    if step.stage.plan is None:
        return Estimate()
    inputs = {
        name: {slot: _of(ref, known, resolved.root) for slot, ref in value.items()}
        if isinstance(value, dict)
        else _of(value, known, resolved.root)
        for name, value in step.inputs.items()
    }
    estimate = step.stage.plan(step.config, **inputs)
    services = {name: use.service for name, use in models(step).items() if use.service is not None}
    calls = {
        name: services[name].expected(each) if name in services else each
        for name, each in estimate.calls.items()
    }
    return replace(estimate, calls=calls)


def _with_local_time(
    step: RecipeStep, estimate: Estimate, known: Mapping[str, Estimate]
) -> Estimate:
    """Add the time that models in this process need for their calls, on one core."""
    seconds = estimate.seconds
    for name, use in models(step).items():
        calls = estimate.calls.get(name)
        if calls is None or not isinstance(use.config, Local) or use.folder is None:
            continue
        size = _size(use.folder, known) or UNKNOWN_PARAMETERS
        read, written = calls.prompt_tokens, DECODING_FACTOR * calls.response_tokens
        seconds += 2 * size * (read + written) / CORE_FLOPS
    return replace(estimate, seconds=seconds)


def _size(folder: RecipeStep | Source | Chosen, known: Mapping[str, Estimate]) -> int:
    """Return the parameters of a model, where they are known."""
    while isinstance(folder, Chosen):
        folder = folder.after
    if isinstance(folder, RecipeStep):
        return known[folder.name].parameters
    shape = read_shape(folder.path)
    return shape.parameters if shape else 0


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


def _of(
    ref: RecipeStep | Source | Use | Chosen, known: dict[str, Estimate], root: Path
) -> Estimate:
    while isinstance(ref, Chosen):
        ref = ref.after
    if isinstance(ref, RecipeStep):
        return known[ref.name]
    if isinstance(ref, Source):
        return _text_of(ref)
    if isinstance(ref, Use) and isinstance(ref.config, Remote) and ref.service is not None:
        names = (LOG_PROBABILITIES, "prefill")
        is_scored = has_all(root, ref.config.model, ref.service, names)
        return Estimate(gives_log_probabilities=is_scored)
    return Estimate()


def _text_of(source: Source) -> Estimate:
    path = source.path
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    sizes = [file.stat().st_size for file in files]
    unpacked = sum(
        size * (UNPACKED_RATIO if file.suffix in PACKED_SUFFIXES else 1)
        for file, size in zip(files, sizes, strict=True)
    )
    if sum(sizes) > COUNTED_BYTES:
        rows, row_tokens = sum(sizes) // LINE_BYTES, LINE_BYTES / CHARS_PER_TOKEN
        return Estimate(rows=rows, row_tokens=row_tokens, num_bytes=unpacked, path=path)
    counted = [_counted(file) for file in files]
    rows, num_bytes = sum(num for num, _ in counted), sum(size for _, size in counted)
    found = Estimate(
        rows=rows, row_tokens=num_bytes / max(1, rows) / CHARS_PER_TOKEN,
        parts=tuple(num for num, _ in counted), num_bytes=unpacked, path=path,
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
