"""Evaluate models on benchmarks: scores with their rates, samples, system messages, a report."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from spyhop import evaluate
from spyhop.collect import MessagesConfig, SystemMessage, read_conversations
from spyhop.collect.shapes import Shape
from spyhop.evaluate.audit import BASE, STUDENT, AuditConfig, AuditedConfig, audit, draw_audited
from spyhop.evaluate.judging import JudgeConfig, judge
from spyhop.evaluate.safety import Support, SupportConfig, check_support
from spyhop.models import Sampling
from spyhop.models.local import FORMAT_FILE
from spyhop.recipe.graph import Recipe, Ref, Source, Use
from spyhop.recipes.inputs import DataPlace, Placed, Suite, add_items, placed, served
from spyhop.report import ReportConfig, page
from spyhop.schema import Config, RecipeError
from spyhop.settings import InputPath
from spyhop.store import Artifact

SCORES, SAMPLED, SWEEP, ITEMS, SUPPORT = "scores-", "sampled-", "sweep-", "items-", "support-"
"""Beginnings of steps' names; a model's name follows, in a sweep also `.` and the message's id."""
NO_JUDGE = "none"
"""Key of an audit without judged preference."""
TEMPERATURE = 0.7
"""Of the Orca paper's evaluation; its first sample is the paper's setting."""


class EvaluatingConfig(Config):
    """Settings of the `eval` recipe."""

    models: dict[str, InputPath] = Field(min_length=1)
    """Folder of weights, or a teacher's file (TOML), by the name of the model in the report."""
    suites: tuple[Suite, ...] = Field(min_length=1)
    data: dict[str, DataPlace] = Field(default_factory=dict)
    """Where each data set is: a folder, a file, or `hf://datasets/OWNER/NAME@COMMIT`."""
    measure: evaluate.MeasureConfig = evaluate.MeasureConfig()
    system_messages: tuple[SystemMessage, ...] = ()
    """System messages to compare; every item is asked under each of them."""
    rows: tuple[InputPath, ...] = ()
    """Training rows of the models, in which the items are looked for."""
    sealed: evaluate.SealConfig | None = None
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
    declared = add_seal(r, config.sealed, config.measure, suites, items, models)
    by = {} if config.classifier is None else {"classifier": served(config.classifier)}
    greedy = _changed(config.measure, num_samples=1)
    scores = add_scores(r, greedy, suites, items, models, SCORES, **declared, **by)
    further: dict[str, Ref | dict[str, Ref]] = {**declared}
    if config.support is not None:
        look, checker = SupportConfig(), served(config.support)
        further["support"] = {
            name: r.add(f"{SUPPORT}{name}", check_support, look, items=items, scores=each,
                        judge=checker)
            for name, each in scores.items()
        }  # fmt: skip
    read = written(config.measure, suites)
    if config.measure.num_samples > 1 and read:
        given = config.measure.sampling.model_dump(exclude_unset=True)
        how = _changed(config.measure, sampling=Sampling(**given | {"temperature": TEMPERATURE}))
        own = {suite.task.name: items[suite.task.name] for suite in read}
        further["sampled"] = add_scores(r, how, read, own, models, SAMPLED, **by)
    swept: dict[str, Ref] = {}
    for message in config.system_messages:
        how = _changed(greedy, system_message=message.text)
        under = {f"{name}.{step_name(message.id)}": use for name, use in models.items()}
        swept |= add_scores(r, how, suites, items, under, SWEEP, **by)
    if swept:
        further["swept"] = swept
    if config.rows:
        rows, rate = read_rows(r, "rows", config.rows), evaluate.ContaminationRateConfig()
        further["shared"] = r.add(
            "shared", evaluate.check_contamination, rate, items=items, answers=rows
        )
    hidden = tuple(suite.task.name for suite in suites if suite.task.hidden)
    shown = ReportConfig(
        title=r.name, hidden=hidden, show_texts=config.show_texts, notes=_format_notes(models)
    )
    r.add("report", page, shown, items=items, scores=scores, **further)
    return r


def read_rows(
    r: Recipe,
    prefix: str,
    paths: Sequence[Path],
    shape: Shape | None = None,
    first: int = 1,
    *,
    are_prompts: bool = False,
) -> dict[str, Ref]:
    """Add a step per file or folder of training rows; return them as `<prefix>-<number>`."""
    how = MessagesConfig(shape=shape, are_prompts=are_prompts)
    names = [f"{prefix}-{first + n}" for n in range(len(paths))]
    return {
        name: r.add(name, read_conversations, how, file=Source(path))
        for name, path in zip(names, paths, strict=True)
    }


def add_scores(
    r: Recipe,
    how: evaluate.MeasureConfig,
    suites: Sequence[Placed],
    items: Mapping[str, Ref],
    models: Mapping[str, Use],
    prefix: str = SCORES,
    **more: Ref | Use,
) -> dict[str, Ref]:
    """Add a step that scores each model on the items, and return them by the model's name."""
    asked = how.for_tasks(suite.task for suite in suites)
    return {
        name: r.add(f"{prefix}{name}", evaluate.measure, asked, items=items, model=use, **more)
        for name, use in models.items()
    }


def add_seal(
    r: Recipe,
    declared: evaluate.SealConfig | None,
    how: evaluate.MeasureConfig,
    suites: Sequence[Placed],
    items: Mapping[str, Ref],
    models: Collection[str],
) -> dict[str, Ref]:
    """Add the declaration on the suites that have its metric, as an input of the scoring steps."""
    if declared is None:
        return {}
    if unknown := [name for name in declared.arms if name not in models]:
        raise RecipeError(f"sealed.arms: {unknown[0]!r} is none of {', '.join(models)}")
    asked = how.for_tasks(suite.task for suite in suites)
    metrics = {name: asked.protocol(name).metric for name in items}
    decisive = {name: each for name, each in items.items() if metrics[name] == declared.metric}
    if not decisive:
        has = "; ".join(f"{name} has {metric!r}" for name, metric in metrics.items())
        raise RecipeError(f"sealed.metric = {declared.metric!r}: {has or 'there are no suites'}")
    return {"sealed": r.add("sealed", evaluate.seal, declared, items=decisive)}


def add_audits(
    r: Recipe,
    judges: Sequence[Use],
    items: Mapping[str, Ref],
    base: Ref,
    student: Ref,
    teacher: Mapping[str, Ref],
) -> dict[str, Ref]:
    """Add each judge's verdicts on base and student, and an audit; return these by judge.

    Without a judge, the audit rests on accuracy and form. `base` and `student` are scores on the
    items, `teacher` the answers that the student was trained on.
    """
    pair, made = {BASE: base, STUDENT: student}, dict[str, Ref]()
    if not judges:
        return {NO_JUDGE: r.add("audit", audit, AuditConfig(), teacher=teacher, **pair)}
    drawn = r.add("audit.items", draw_audited, AuditedConfig(), items=items)
    for number, by in enumerate(judges, 1):
        name = "audit" if number == 1 else f"audit-{number}"
        verdicts = r.add(
            f"{name}.verdicts", judge, JudgeConfig(), questions=drawn, answers=pair, judge=by
        )
        made[by.config.label] = r.add(
            name, audit, AuditConfig(), base=base, student=student, teacher=teacher,
            verdicts=verdicts,
        )  # fmt: skip
    return made


def written(how: evaluate.MeasureConfig, suites: Sequence[Placed]) -> list[Placed]:
    """Return the suites in which responses are read, instead of options scored."""
    asked = how.for_tasks(suite.task for suite in suites)
    return [each for each in suites if asked.protocol(each.task.name).method == "generate"]


def _format_notes(models: Mapping[str, Use]) -> tuple[str, ...]:
    """Return a note on each folder of weights that names no chat format."""
    found = []
    for name, use in models.items():
        if isinstance(use.folder, Source) and getattr(use.config, "format", "") == "saved":
            folder = use.folder.path / getattr(use.config, "subfolder", "")
            named = [folder / FORMAT_FILE, folder / "chat_template.jinja"]
            settings = folder / "tokenizer_config.json"
            is_said = settings.is_file() and '"chat_template"' in settings.read_text("utf-8")
            if folder.is_dir() and not is_said and not any(path.is_file() for path in named):
                found.append(f"{name} has no chat template: it is asked in Orca's blocks.")
    return tuple(found)


def _changed(how: evaluate.MeasureConfig, **changes: object) -> evaluate.MeasureConfig:
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
        rows: Iterable[dict[str, Any]]
        if name.startswith((SCORES, SAMPLED)):
            rows = evaluate.score_rows(name.partition("-")[2], items, scores)
        elif name.startswith(SUPPORT):
            rows = (row.model_dump() for row in scores.rows(Support))
        else:
            continue
        files.append(out / f"{name}.jsonl")
        evaluate.write_scores(files[-1], rows)
    return files
