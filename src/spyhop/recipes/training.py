"""Train a model on your rows in one or more phases, with a probe, scores, a card and a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from spyhop.augment import ModerateConfig, moderate
from spyhop.collect import MessagesConfig, read_preferences
from spyhop.collect.shapes import Shape
from spyhop.evaluate import ContaminationRateConfig, MeasureConfig, check_contamination
from spyhop.models import Local
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.evaluating import add_scores, read_rows
from spyhop.recipes.inputs import Suite, add_items, placed, served
from spyhop.report import ReportConfig, page
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.store import Artifact
from spyhop.store.atomic import export
from spyhop.train import DivergenceConfig, TuneConfig, reference_config, score_pairs, tune
from spyhop.train.probe import ProbeConfig, probe
from spyhop.train.release import ReleaseConfig, release, with_title

STUDENT, MODEL = "student", "model"
"""The steps that train, and that write the folder to publish."""
EPOCHS = 3.0
"""Default length of a training."""
BUDGETS = {"tokens", "epochs"}


class TrainingPhase(Config):
    """A further training phase of the same model, on other rows."""

    rows: tuple[InputPath, ...] = Field(min_length=1)
    """Files or folders of training rows."""
    train: TuneConfig | None = None
    """Unset fields inherit from the first training phase."""


class TrainingConfig(Config):
    """Settings of the `train` recipe."""

    rows: tuple[InputPath, ...] = Field(min_length=1)
    """Files or folders of rows, of any shape that has a response."""
    shape: Shape | None = None
    """Shape of the rows, such as `messages` or `alpaca`. Default: each row's own, by its keys."""
    base: InputPath
    """A Hugging Face folder of a causal language model of any class."""
    teacher: InputPath | None = None
    """For `objective.divergence`: folder of a model, or file (TOML) of a server with
    `prompt_logprobs`, of the base's tokenizer. Default: the base."""
    train: TuneConfig = TuneConfig(epochs=EPOCHS)
    then: tuple[TrainingPhase, ...] = ()
    """Further phases, as the teacher's answers follow the assistant's in Orca."""
    held_out: tuple[InputPath, ...] = ()
    """Validation rows (held-out loss only), in the same format."""
    moderate: InputPath | None = None
    """Classifier folder, or file of a moderation endpoint; training rows that it flags are dropped,
    and the model card states their share. Default: no moderation."""
    probe: ProbeConfig | None = ProbeConfig()
    suites: tuple[Suite, ...] = ()
    """Benchmarks on which base and student are measured."""
    measure: MeasureConfig = MeasureConfig()
    release: ReleaseConfig = ReleaseConfig()

    @model_validator(mode="after")
    def _objectives_are_served(self) -> "TrainingConfig":
        phases = [self.train, *(phase.train for phase in self.then)]
        objectives = [each.objective for each in phases if each and each.objective]
        if self.moderate and objectives:
            raise ValueError("moderate reads answers, not the rows of train.objective; remove one")
        if self.teacher and not any(isinstance(each, DivergenceConfig) for each in objectives):
            raise ValueError("teacher is for train.objective.divergence; set it, or remove teacher")
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:  # noqa: ANN401 (plain TOML)
        """Add the default budget, and let further phases inherit unset fields from `train`."""
        if not isinstance(values, dict) or not isinstance(values.get("train", {}), dict):
            return values
        first = _over({"epochs": EPOCHS}, values.get("train", {}))
        then = values.get("then", ())
        if isinstance(then, list):
            then = [
                {**phase, "train": _over(first, phase["train"])}
                if isinstance(phase, dict) and isinstance(phase.get("train"), dict)
                else phase
                for phase in then
            ]
        return {**values, "train": first, "then": then}


def training(config: TrainingConfig, name: str = "train") -> Recipe:
    """Train a base on your own rows, probe the model, and write a model card and a report."""
    r = Recipe(name)
    base = Source(config.base)
    is_own = isinstance(config.train.objective, DivergenceConfig)
    watched = read_rows(r, "held-out", config.held_out, config.shape, are_prompts=is_own)
    more = {"held_out": watched} if watched else {}
    phases = [TrainingPhase(rows=config.rows, train=config.train), *config.then]
    model: RecipeStep | Source = base
    students: dict[str, Ref] = {}
    answers: dict[str, Ref] = {}
    watched_pairs: dict[str, Ref] = {}
    for number, phase in enumerate(phases, 1):
        settings = phase.train or config.train
        is_own = isinstance(settings.objective, DivergenceConfig)
        first = len(answers) + 1
        some = read_rows(r, "rows", phase.rows, config.shape, first, are_prompts=is_own)
        if config.moderate is not None:
            by, how = served(config.moderate), ModerateConfig()
            some = {
                f"{name}.moderated": r.add(
                    f"{name}.moderated", moderate, how, answers=each, model=by
                )
                for name, each in some.items()
            }
        answers |= some
        name = STUDENT if number == len(phases) else f"student.{number}"
        rows: dict[str, Any] = {"answers": some, **more}
        if is_own:
            use = None if config.teacher is None else served(config.teacher)
            is_folder = use is not None and isinstance(use.folder, Source)  # opened for training
            rows["teacher"] = (use.folder if use and is_folder else use) or base
        elif settings.objective is not None:
            pairs = _read_pairs(r, "rows", phase.rows, len(answers) - len(some) + 1)
            watched_pairs = watched_pairs or _read_pairs(r, "held-out", config.held_out)
            more_pairs = {"held_out": watched_pairs} if watched_pairs else {}
            rows = {"answers": pairs, **more_pairs}
            read = reference_config(settings)
            rows["reference"] = r.add(
                f"{name}.reference", score_pairs, read, base=model, pairs=pairs, **more_pairs
            )
        model = students[name] = r.add(name, tune, settings, base=model, **rows)
    found: dict[str, Ref] = {}
    if config.probe is not None:
        asked = Use(Local(name=r.name), model)
        found["probe"] = r.add("probe", probe, config.probe, answers=answers, model=asked)
    given = with_title(config.release, r.name)
    measured: dict[str, Ref | dict[str, Ref]] = {}
    if suites := placed(config.suites):
        items = add_items(r, suites)
        models = {"base": Use(Local(name="base"), base), STUDENT: Use(Local(name=STUDENT), model)}
        scores = add_scores(r, config.measure, suites, items, models)
        look = ContaminationRateConfig()
        shared = r.add("shared", check_contamination, look, items=items, answers=answers)
        measured = {"items": items, "scores": scores, "shared": shared}
    own: dict[str, Any] = {"scores": scores[STUDENT]} if suites else {}
    if before := {name: each for name, each in students.items() if name != STUDENT}:
        own["earlier"] = before
    r.add(MODEL, release, given, model=model, base=base, answers=answers, **found, **own)
    hidden = tuple(suite.task.name for suite in suites if suite.task.hidden)
    shown = ReportConfig(title=r.name, hidden=hidden)
    probes = {r.name: found["probe"]} if found else {}
    r.add("report", page, shown, answers=answers, students=students, probes=probes, **measured)
    return r


def export_results(made: Mapping[str, Artifact], out: Path) -> str:
    """Link `out/model` to the model, and return a line that says so."""
    return f"model: {export(made[MODEL].path, out / MODEL)}"


def _read_pairs(r: Recipe, kind: str, paths: Sequence[InputPath], first: int = 1) -> dict[str, Ref]:
    """Read preferences; each step is named like that of their chosen responses."""
    return {
        f"{kind}-{n}": r.add(
            f"{kind}-{n}.pairs", read_preferences, MessagesConfig(), file=Source(path)
        )
        for n, path in enumerate(paths, first)
    }


def _over(first: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings updated table by table; a new budget or objective replaces the old one."""
    kept = {k: v for k, v in first.items() if k not in BUDGETS or not BUDGETS & set(changes)}
    tables = {
        name: _over(kept[name], value)
        for name, value in changes.items()
        if isinstance(value, Mapping)
        and isinstance(kept.get(name), Mapping)
        and name != "objective"
    }
    return {**kept, **changes, **tables}
