"""Before anything is spent: estimates of a run, and checks of models, samples and budgets."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spyhop.lazy import missing
from spyhop.models import Local, ModelUse, Sampling
from spyhop.models.capabilities import LOG_PROBABILITIES, has_all, refusal
from spyhop.models.doctor import reachable
from spyhop.models.endpoint import Remote
from spyhop.models.journal import left_state
from spyhop.models.service import Demand, Service
from spyhop.recipe.graph import Chosen, Recipe, RecipeStep, Ref, Source, Use, mapped, models
from spyhop.recipe.resolve import Resolved
from spyhop.schema import ModelError, NotInstalled, RecipeError
from spyhop.stage import CHARS_PER_TOKEN, Calls, Estimate
from spyhop.store import Artifact, canonical
from spyhop.store.files import byte_lines, parquet_head
from spyhop.train import TuneConfig
from spyhop.train.cost import FEWEST_STEPS, read_shape

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


def check_extras(resolved: Resolved) -> None:
    """Refuse a run whose due steps need libraries that are not installed."""
    due = (step for step in resolved.recipe.steps if step.name not in resolved.made)
    for text in _missing_extras(due):
        raise NotInstalled(f"nothing was run yet; {text}")


def _missing_extras(steps: Iterable[RecipeStep]) -> Iterator[str]:
    """Yield a line for each extra that is not installed, with the first step that needs it."""
    first: dict[str, str] = {}
    for step in steps:
        for extra in (step.stage.needs, *(use.config.needs for use in models(step).values())):
            first.setdefault(extra, step.name)
    yield from filter(None, (missing(f"step {name}", extra) for extra, name in first.items()))


def check_models(resolved: Resolved) -> None:
    """Check what due steps need of served models, and their keys and connections if several.

    A single model's key needs no separate check: its first request fails before anything is paid.
    """
    due = [step for step in resolved.recipe.steps if step.name not in resolved.made]
    served: dict[str, tuple[Remote, Service]] = {}
    for step in due:
        sampling, uses = getattr(step.config, "sampling", None), models(step).values()
        for use in uses:
            if use.service is None or not isinstance(use.config, Remote):
                continue
            config = use.config
            served[canonical(config)] = config, use.service
            if isinstance(sampling, Sampling) and len(uses) == 1 and (
                reason := refusal(resolved.root, config.model, use.service, sampling, config.omit)
            ):  # fmt: skip
                raise ModelError(f"nothing was sent yet; {step.name}: {config.label}: {reason}")
    if len(served) < 2:
        return
    failed = [
        f"{config.label}: {check.name}: {check.text}"
        for config, service in served.values()
        for check in reachable(config, service)
        if not check.ok
    ]
    if failed:
        raise ModelError(f"nothing was sent yet; {'; '.join(failed)}")


def check_samples(recipe: Recipe) -> None:
    """Refuse several samples of one prompt where temperature 0 is sent: they would be equal."""
    for step in recipe.steps:
        sampling = getattr(step.config, "sampling", None)
        sent = [
            use
            for use in models(step).values()
            if not (isinstance(use.config, Remote) and "temperature" in use.config.omit)
        ]
        for name in ("num_samples", "num_instructions"):
            num = getattr(step.config, name, 1)
            if sent and isinstance(sampling, Sampling) and sampling.is_greedy and num > 1:
                raise RecipeError(
                    f"{step.name}: {name} = {num} at temperature 0 gives equal samples; set "
                    "sampling.temperature above 0"
                )


def warnings(lines: Sequence[PlannedStep]) -> Iterator[str]:
    """Yield a line for each missing extra, too small budget and too short training."""
    due = [line for line in lines if not line.is_made]
    yield from _missing_extras(line.step for line in due)
    yield from _budgets(due)
    for line in due:
        config, tokens = line.step.config, line.estimate.trained_tokens
        if isinstance(config, TuneConfig) and tokens:
            steps = -(-tokens // config.batch_tokens)
            if steps < FEWEST_STEPS:
                yield (
                    f"{line.step.name}: {steps} training steps are too few to learn from; lower "
                    f"train.batch_tokens ({config.batch_tokens:,}), or train for more epochs"
                )


def _budgets(due: Sequence[PlannedStep]) -> Iterator[str]:
    budgets: dict[str, float] = {}
    expected, highest = defaultdict[str, float](float), defaultdict[str, float](float)
    for line in due:
        for use in models(line.step).values():
            label, demand = use.config.label, line.demands.get(use.config.label)
            if use.service is not None and use.service.budget_usd is not None and demand:
                budgets[label] = use.service.budget_usd
                expected[label] += demand.usd
                highest[label] += demand.most_usd
    for label, budget in budgets.items():
        start = f"{label}: budget_usd = {budget:,.2f}"
        if budget < expected[label]:
            yield (
                f"{start} is below the expected cost of ${expected[label]:,.2f}; the run will stop "
                "before its end"
            )
        elif budget < highest[label]:
            yield (
                f"{start} covers the expected ${expected[label]:,.2f}, not the highest cost of "
                f"${highest[label]:,.2f}"
            )
