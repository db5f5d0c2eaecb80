"""Evaluate models on benchmarks: scores with their rates, samples, system messages, a report."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, model_validator

from spyhop.collect import MessagesConfig, SystemMessage, read_conversations
from spyhop.evaluate import (
    ContaminationRateConfig,
    MeasureConfig,
    SealConfig,
    check_contamination,
    measure,
    score_rows,
    seal,
    write_scores,
)
from spyhop.evaluate.support import Support, SupportConfig, check_support
from spyhop.models import Sampling
from spyhop.recipe.graph import Recipe, Ref, Source, Use
from spyhop.recipes.inputs import DataPlace, Placed, Suite, add_items, placed, served
from spyhop.report.evaluation import EvaluationPageConfig, evaluation_page
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.store import Artifact

SCORES, SAMPLED, SWEEP, ITEMS, SUPPORT = "scores-", "sampled-", "sweep-", "items-", "support-"
"""Beginnings of steps' names; a model's name follows, in a sweep also `.` and the message's id."""
TEMPERATURE = 0.7
"""Of the Orca paper's evaluation; its first sample is the paper's setting."""


class EvaluatingConfig(Config):
    """Settings of the `eval` recipe."""

    models: dict[str, InputPath] = Field(min_length=1)
    """Folder of weights, or a teacher's file (TOML), by the name of the model in the report."""
    suites: tuple[Suite, ...] = Field(min_length=1)
    data: dict[str, DataPlace] = Field(default_factory=dict)
    """Where each data set is: a folder, a file, or `hf://datasets/OWNER/NAME@COMMIT`."""
    measure: MeasureConfig = MeasureConfig()
    num_samples: int = Field(0, ge=0)
    """Responses per item at temperature 0.7, beside the greedy ones; 4 or more give a standard
    error between samples. The first one is the Orca paper's setting."""
    system_messages: tuple[SystemMessage, ...] = ()
    """System messages to compare; every item is asked under each of them."""
    rows: tuple[InputPath, ...] = ()
    """Training rows of the models, in which the items are looked for."""
    sealed: SealConfig | None = None
    classifier: InputPath | None = None
    """Classifier of toxic text (folder, or a file with a moderation endpoint) for suites with the
    metric `toxicity`. Default: the built-in one, for ToxiGen."""
    support: InputPath | None = None
    """Model that checks which sentences of responses the passage in the question does not support:
    one that judges (file or folder), or a folder of a model of entailment."""
    show_texts: bool = False
    """Whether the page has some responses of suites that may offend, behind a line to open."""

    @model_validator(mode="after")
    def _known(self) -> "EvaluatingConfig":
        if odd := [name for name in self.models if name != step_name(name)]:
            raise ValueError(f"models.{odd[0]}: use a-z, 0-9, '_', '-' and '.' for names")
        arms = () if self.sealed is None else self.sealed.arms
        if unknown := [name for name in arms if name not in self.models]:
            raise ValueError(f"sealed.arms: {unknown[0]!r} is none of {', '.join(self.models)}")
        ids = [message.id for message in self.system_messages]
        if len(set(ids)) < len(ids):
            raise ValueError("two system_messages have the same id")
        return self


def evaluating(config: EvaluatingConfig, name: str = "eval") -> Recipe:
    """Evaluate models: scores with their rates, samples, system messages and a report."""
    r = Recipe(name)
    suites = placed(config.suites, config.data)
    items = add_items(r, suites)
    models = {name: served(path) for name, path in config.models.items()}
    declared: dict[str, Ref] = {}
    if config.sealed is not None:
        declared["sealed"] = r.add("sealed", seal, config.sealed, items=items)
    by = {} if config.classifier is None else {"classifier": served(config.classifier)}
    scores = add_scores(r, config.measure, suites, items, models, SCORES, **declared, **by)
    further: dict[str, Ref | dict[str, Ref]] = {**declared}
    if config.support is not None:
        further["support"] = {
            name: r.add(
                f"{SUPPORT}{name}", check_support, SupportConfig(),
                items=items, scores=each, judge=served(config.support),
            )
            for name, each in scores.items()
        }  # fmt: skip
    if config.num_samples:
        further["sampled"] = _add_sampled(r, config, suites, items, models, **by)
    if config.system_messages:
        further["swept"] = _add_sweep(r, config, suites, items, models, **by)
    if config.rows:
        rows = {
            f"rows-{n}": r.add(f"rows-{n}", read_conversations, MessagesConfig(), file=Source(path))
            for n, path in enumerate(config.rows, 1)
        }
        look = ContaminationRateConfig()
        further["shared"] = r.add("shared", check_contamination, look, items=items, answers=rows)
    hidden = tuple(suite.task.name for suite in suites if suite.task.hidden)
    page = EvaluationPageConfig(title=r.name, hidden=hidden, show_texts=config.show_texts)
    r.add("report", evaluation_page, page, items=items, scores=scores, **further)
    return r


def add_scores(
    r: Recipe,
    how: MeasureConfig,
    suites: Sequence[Placed],
    items: Mapping[str, Ref],
    models: Mapping[str, Use],
    prefix: str = SCORES,
    **more: Ref | Use,
) -> dict[str, Ref]:
    """Add a step that scores each model on the items, and return them by the model's name."""
    asked = how.for_tasks(suite.task for suite in suites)
    return {
        name: r.add(f"{prefix}{name}", measure, asked, items=items, model=use, **more)
        for name, use in models.items()
    }


def _add_sampled(
    r: Recipe,
    config: EvaluatingConfig,
    suites: Sequence[Placed],
    items: Mapping[str, Ref],
    models: Mapping[str, Use],
    **by: Use,
) -> dict[str, Ref]:
    """Add several samples of every item that is answered by a response."""
    how = _changed(config.measure, num_samples=config.num_samples)
    sampling = Sampling(
        **how.sampling.model_dump(exclude_unset=True) | {"temperature": TEMPERATURE}
    )
    how = _changed(how, sampling=sampling)
    written = [suite for suite in suites if _is_written(config.measure, suite)]
    own = {suite.task.name: items[suite.task.name] for suite in written}
    return add_scores(r, how, written, own, models, SAMPLED, **by) if written else {}


def _is_written(how: MeasureConfig, suite: Placed) -> bool:
    return how.for_tasks([suite.task]).protocol(suite.task.name).method == "generate"


def _add_sweep(
    r: Recipe,
    config: EvaluatingConfig,
    suites: Sequence[Placed],
    items: Mapping[str, Ref],
    models: Mapping[str, Use],
    **by: Use,
) -> dict[str, Ref]:
    """Add the scores of every model under every system message, by `model.message`."""
    found: dict[str, Ref] = {}
    for message in config.system_messages:
        how = _changed(config.measure, system_message=message.text)
        own = {f"{name}.{step_name(message.id)}": use for name, use in models.items()}
        found |= add_scores(r, how, suites, items, own, SWEEP, **by)
    return found


def _changed(how: MeasureConfig, **changes: object) -> MeasureConfig:
    """Return the settings with changes that count as set."""
    return type(how).model_validate({**how.model_dump(exclude_unset=True), **changes})


def step_name(text: str) -> str:
    """Return a text as part of a step's name."""
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-.") or "model"


def export_results(made: Mapping[str, Artifact], out: Path) -> list[Path]:
    """Write `scores-NAME.jsonl` of every model, also of its samples, and return the files."""
    items = {name: each for name, each in made.items() if name.startswith(ITEMS)}
    files = []
    for name, scores in made.items():
        if name.startswith((SCORES, SAMPLED)):
            path = out / f"{name}.jsonl"
            write_scores(path, score_rows(name.partition("-")[2], items, scores))
            files.append(path)
        if name.startswith(SUPPORT):
            path = out / f"{name}.jsonl"
            write_scores(path, (row.model_dump() for row in scores.rows(Support)))
            files.append(path)
    return files
