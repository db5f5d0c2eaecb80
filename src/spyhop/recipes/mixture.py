"""The data side of the Orca recipe: collections -> draws -> no copies -> no test items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from spyhop import collect
from spyhop.augment import AnswerConfig, MeasureLossesConfig, answer, measure_errors, measure_losses
from spyhop.collect.messages import read_prompts
from spyhop.collect.prompts import PromptQueriesConfig, prompt_queries
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source
from spyhop.recipes.inputs import one_of, served
from spyhop.schema import Config, NoConfig
from spyhop.settings import InputPath
from spyhop.stage import Stage
from spyhop.text.contamination import ContaminationConfig

Kind = Literal["flan_cot", "natural_instructions", "t0", "records", "table", "prompts"]


class Place(Config):
    """Location of files: a local path, or a remote address."""

    path: InputPath | None = None
    """File or folder on this machine."""
    fetch: collect.FetchConfig | None = None
    """Files on the hub or in a bucket; fetched once."""

    _one_place = model_validator(mode="after")(one_of("path", "fetch"))


class Pilot(Config):
    """Pilot model that rates queries; needed for strata by difficulty."""

    file: InputPath
    """A teacher's file (TOML) or a folder of weights: the assistant, or any small model."""
    by: Literal["errors", "loss"] = "errors"
    """Measure of difficulty. `errors`: share of the pilot's answers that are wrong by the gold
    answer. `loss`: its loss per token on the gold answer."""
    num_rows: int | None = Field(None, gt=0)
    """Rows to draw for the pilot by Algorithm 1; the final draw is from these alone. Default: all
    rows are rated."""
    answers: AnswerConfig = AnswerConfig()
    """How it is asked, for `errors`."""


class Collection(Place):
    """A collection of queries, and the number of rows to draw from it."""

    kind: Kind = "flan_cot"
    """Form of the files. `table` are Parquet, JSONL or CSV files of any size and columns, drawn
    from as they are; `records` are the same with up to some 10^7 rows, read one by one: columns may
    be dotted, and an error names the line. `prompts` are your own conversations of any shape in
    docs/rows.md, with system messages and several turns; prompts without a system message are
    paired with one, like queries."""
    name: str = ""
    """Name of the collection, if its kind does not set it; shares of system messages and the
    report go by it."""
    pattern: str = ""
    """Files to read; each form has its own default."""
    columns: collect.Columns = collect.Columns()
    """For `records` and `table`."""
    only: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """For `table`: column to patterns of the values to keep."""
    licence: str = ""
    """Licence of the rows, for the model card."""
    num_rows: int | None = Field(None, gt=0)
    """Rows to draw by Algorithm 1. Default: all."""
    max_per_task: int | None = Field(None, gt=0)
    """Most rows of a task, drawn by hash. Default: no limit."""
    exclude: tuple[str, ...] = ()
    """Patterns of tasks to exclude."""
    strata: tuple[collect.Stratum, ...] = ()
    """Strata in which the draw is balanced."""
    pilot: Pilot | None = None
    """Rates queries for strata by difficulty."""

    @model_validator(mode="after")
    def _is_named(self) -> "Collection":
        if self.kind in ("records", "table", "prompts") and not self.name:
            raise ValueError(f"kind = {self.kind!r} needs a name for the collection")
        if self.kind == "prompts" and (self.pattern or self.columns != collect.Columns()):
            raise ValueError('pattern and columns are not for kind = "prompts"')
        if self.only and self.kind != "table":
            raise ValueError('only = ... is for kind = "table"')
        if (self.pilot is None) == any(each.by == "difficulty" for each in self.strata):
            raise ValueError("strata by difficulty and a [pilot] belong together")
        return self

    @property
    def label(self) -> str:
        """Name of the collection."""
        known = {"flan_cot": "cot", "natural_instructions": "niv2", "t0": "t0"}
        return self.name or known[self.kind]


class Ready(Place):
    """Answers from an existing data set."""

    read: collect.ReadyConfig = collect.ReadyConfig()
    by: Literal["teacher", "assistant"] = "teacher"
    """Whose answers they count as: the student learns from the assistant's first."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Steps of the mixture."""

    data: dict[str, Ref]
    """Draws by collection, then the cleaning steps."""
    queries: RecipeStep
    """Clean queries, of which prompts are made."""
    own: dict[str, Ref]
    """Prompts of collections that are whole prompts."""


def mixture(
    r: Recipe,
    collections: Sequence[Collection],
    distinct_config: collect.DistinctConfig,
    decontaminate_config: ContaminationConfig | None,
    items: Mapping[str, Ref],
    seed: int,
) -> Mixture:
    """Add the steps from files to clean queries."""
    drawn = {each.label: add_collection(r, each, seed) for each in collections}
    queries = r.add("distinct", collect.distinct, distinct_config, queries=drawn)
    data: dict[str, Ref] = {**drawn, "distinct": queries}
    if items and decontaminate_config is not None:
        queries = r.add(
            "clean", collect.decontaminate, decontaminate_config, queries=queries, items=items
        )
        data["clean"] = queries
    own: dict[str, Ref] = {
        each.label: r.step(f"own-{each.label}") for each in collections if each.kind == "prompts"
    }
    return Mixture(data, queries, own)


def ready(r: Recipe, given: Sequence[Ready], by: Literal["teacher", "assistant"]) -> dict[str, Ref]:
    """Add the steps of ready answers, and return them by name."""
    names = {f"ready-{n}": each for n, each in enumerate(given, 1) if each.by == by}
    return {
        name: r.add(name, collect.read_answers, each.read, folder=add_folder(r, each, name))
        for name, each in names.items()
    }


def add_collection(r: Recipe, each: Collection, seed: int) -> RecipeStep:
    """Add the steps that read and draw a collection's queries."""
    folder = add_folder(r, each, each.label)
    table = collect.SourceTable(
        collection=each.name, columns=each.columns, pattern=each.pattern or "*.parquet",
        only=each.only, licence=each.licence,
    )  # fmt: skip
    size = collect.DrawConfig(
        num_rows=each.num_rows, max_per_task=each.max_per_task, exclude=each.exclude,
        strata=each.strata, table=table if each.kind == "table" else None, seed=seed,
    )  # fmt: skip
    read: Ref = folder
    if each.kind == "prompts":
        given = r.add(f"own-{each.label}", read_prompts, collect.MessagesConfig(), file=folder)
        collection = PromptQueriesConfig(collection=each.label)
        read = r.add(f"queries-{each.label}", prompt_queries, collection, prompts=given)
    elif each.kind != "table":
        stage = _READERS[each.kind]
        said = {
            "collection": each.name,
            **each.model_dump(include={"pattern", "columns", "licence"}),
        }
        fields = stage.config_type.model_fields  # the rest of the reader's settings is default
        known = {name: value for name, value in said.items() if value and name in fields}
        how = stage.config_type.model_validate(known)
        read = r.add(f"queries-{each.label}", stage, how, folder=folder)
    if each.pilot is not None:
        some, hard = _rated(r, each, each.pilot, read, size)
        size, queries = size.model_copy(update={"table": None}), {each.label: some}
        return r.add(f"drawn-{each.label}", collect.draw, size, queries=queries, difficulty=hard)
    if isinstance(read, RecipeStep) and size == collect.DrawConfig(seed=seed):
        return read
    return r.add(f"drawn-{each.label}", collect.draw, size, queries={each.label: read})


def add_folder(r: Recipe, place: Place, name: str) -> RecipeStep | Source:
    """Return where files are; those elsewhere become the step `fetched-<name>`."""
    if place.path is not None:
        return Source(place.path)
    assert place.fetch is not None
    return r.add(f"fetched-{name}", collect.fetch, place.fetch)


_READERS: dict[str, Stage] = {
    "flan_cot": collect.read_flan_cot,
    "natural_instructions": collect.read_natural_instructions,
    "t0": collect.read_t0,
    "records": collect.read_records,
}


def _rated(
    r: Recipe, each: Collection, pilot: Pilot, queries: Ref, size: collect.DrawConfig
) -> tuple[RecipeStep, RecipeStep]:
    """Add a collection's pilot; return its queries and how hard they are."""
    label = each.label
    drawn_size = collect.DrawConfig(num_rows=pilot.num_rows, table=size.table, seed=size.seed)
    drawn = r.add(f"pilot-{label}", collect.draw, drawn_size, queries={label: queries})
    model, name = served(pilot.file), f"hard-{label}"
    if pilot.by == "loss":
        how = MeasureLossesConfig()
        return drawn, r.add(name, measure_losses, how, queries=drawn, model=model)
    plain = collect.PairConfig(
        messages=(collect.SystemMessage(id="pilot", text=""),), shares={"*": {"pilot": 1}}
    )
    prompts = r.add(f"pilot-{label}.prompts", collect.pair, plain, queries=drawn)
    asked = f"pilot-{label}.answers"
    answers = r.add(asked, answer, pilot.answers, prompts=prompts, teacher=model)
    return drawn, r.add(name, measure_errors, NoConfig(), answers=answers)
