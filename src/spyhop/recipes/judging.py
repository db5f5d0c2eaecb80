"""Judge models' responses to open questions, or measure the judges themselves."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator, model_validator

from spyhop.evaluate.judging import Form, JudgeConfig, judge, read_prompts
from spyhop.evaluate.open_suite import (
    FOLDER,
    QuestionsConfig,
    ReadyConfig,
    RespondConfig,
    open_questions,
    open_suite_names,
    read_open_suite,
    ready_answers,
    ready_verdicts,
    respond,
)
from spyhop.recipe.graph import Recipe, Ref, Source
from spyhop.recipes.evaluating import step_name
from spyhop.recipes.inputs import DataPlace, add_source, served
from spyhop.report.html import RESULTS
from spyhop.report.judging import VERDICTS, JudgePageConfig, PublishedModel, judge_page
from spyhop.schema import Config, ModelError
from spyhop.settings import InputPath, beside_file, read_toml, validated
from spyhop.store import Artifact
from spyhop.store.atomic import export

QUESTIONS, REPORT, VERDICT = "questions", "report", "verdicts-"
ROWS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".ndjson")
RESULT_FILES = (RESULTS, VERDICTS)


class JudgingConfig(Config):
    """Settings of the `judge` recipe."""

    suite: str
    """Name of a set of open questions, such as `vicuna`, `mt-bench` or `alpaca-eval`; a TOML file
    that describes one; or a file of your own questions."""
    data: DataPlace | None = None
    """Where the questions are: a folder, a file, or `hf://datasets/OWNER/NAME@COMMIT`. Not needed
    for a file of your own."""
    limit: int | None = Field(None, gt=0)
    """At most this many questions: a fixed random sample."""
    models: dict[str, InputPath] = Field(default_factory=dict)
    """Models to judge, by name: a teacher's file, a folder of weights, or a file of answers."""
    reference: str = ""
    """Name of the model that all others are compared with; default: every pair of models."""
    judges: dict[str, InputPath] = Field(min_length=1)
    """Judges by name: a teacher's file, a folder of weights, or a file of verdicts."""
    forms: tuple[Form, ...] = ()
    """Forms of judging; default: the suite's, or `scored` for a single model."""
    prompts: InputPath | None = None
    """Published prompts of judges, such as FastChat's `judge_prompts.jsonl`, instead of ours."""
    respond: RespondConfig = RespondConfig()
    judge: JudgeConfig = JudgeConfig()
    teacher: InputPath | None = None
    """Teacher of the judged models, if any: a judge that is the teacher is flagged."""
    about: InputPath | None = None
    """TOML file of `models`, each with `name`, `group` and number of `labelled` examples."""
    check: bool = False
    """Whether to measure the judges against human labels instead; the suite needs labelled pairs,
    such as `pandalm`."""

    @field_validator("suite")
    @classmethod
    def _found(cls, suite: str, info: ValidationInfo) -> str:
        file = beside_file(Path(suite), info)
        suite = str(file) if suite not in open_suite_names() and file.exists() else suite
        read_open_suite(suite)
        return suite

    @model_validator(mode="after")
    def _has_models(self) -> "JudgingConfig":
        if not self.check and not self.models:
            raise ValueError("name at least one model to judge")
        if self.reference and self.reference not in self.models:
            raise ValueError(f"reference {self.reference!r} is not among the models")
        if self.data is None and not _is_rows(Path(self.suite)):
            raise ValueError(
                f"data is missing: where the files of {self.suite} are; set `data`, or add "
                f"--data {self.suite}=FOLDER"
            )
        return self


def judging(config: JudgingConfig, name: str = "judge") -> Recipe:
    """Judge models' responses to open questions by other models, or measure the judges."""
    r, shipped = Recipe(name), read_open_suite(config.suite)
    suite = shipped.model_copy(update={"citation": "", "note": ""})
    data = add_source(r, config.data or config.suite, suite.name)
    asked = QuestionsConfig(suite=suite, limit=config.limit)
    questions = r.add(QUESTIONS, open_questions, asked, folder=data)
    answers: dict[str, Ref] = {}
    people: dict[str, Ref] = {}
    given: dict[str, Ref | dict[str, Ref]] = {"questions": questions, "answers": answers}
    if config.check:
        for side, column in enumerate(suite.responses):
            ready, step = ReadyConfig(suite=suite, side=side), f"answers-{side + 1}"
            answers[column] = r.add(step, ready_answers, ready, questions=questions, folder=data)
        people["labels"] = r.add("labels", ready_verdicts, ready, **given, folder=data)
    for title, path in config.models.items():
        step = f"answers-{step_name(title)}"
        if _is_rows(path):
            ready, file = ReadyConfig(suite=suite, name=title), Source(path)
            answers[title] = r.add(step, ready_answers, ready, questions=questions, folder=file)
        else:
            own = config.respond
            answers[title] = r.add(step, respond, own, questions=questions, model=served(path))
    verdicts: dict[str, Ref] = {}
    usual: tuple[Form, ...] = (suite.form,) if len(config.models) > 1 else ("scored",)
    forms = config.forms or (("pairwise",) if config.check else usual)
    for title, path in config.judges.items():
        if _is_rows(path):
            ready, step = ReadyConfig(suite=suite), f"{VERDICT}{step_name(title)}"
            verdicts[title] = r.add(step, ready_verdicts, ready, **given, folder=Source(path))
            continue
        for form in forms:
            key = title if len(forms) == 1 else f"{title} {form}"
            step, how = f"{VERDICT}{step_name(key)}", _judge_config(config, form)
            verdicts[key] = r.add(step, judge, how, **given, judge=served(path))
    paths = [FOLDER / "published" / f"{suite.name}.toml", config.about]
    published = tuple(
        validated(path, PublishedModel, each, "models", {})
        for path in paths if path is not None and (path == config.about or path.exists())
        for each in read_toml(path).get("models", [])
    )  # fmt: skip
    page = JudgePageConfig(
        title=r.name, lead=shipped.citation, doubted=suite.doubted, flags=flags(config),
        published=published,
    )  # fmt: skip
    r.add(REPORT, judge_page, page, **given, verdicts=verdicts, **people)
    return r


def flags(config: JudgingConfig) -> tuple[str, ...]:
    """Return a warning for each judge that is the teacher of the models, or one of them."""
    teacher = _labels("", config.teacher) if config.teacher else frozenset()
    found = []
    for title, path in config.judges.items():
        ours = _labels(title, path)
        if ours & teacher:
            found.append(
                f"Warning: the judge {title} is the teacher: it may prefer its own style in the "
                "models that learned from it."
            )
        for name, model in config.models.items():
            if ours & _labels(name, model):
                found.append(f"Warning: the judge {title} judges its own responses ({name}).")
    return tuple(found)


def export_results(made: Mapping[str, Artifact], out: Path) -> str:
    """Copy figures and verdicts to the output folder, and return their paths."""
    files = [export(made[REPORT].file(name), out / name) for name in RESULT_FILES]
    return "\n".join(map(str, files))


def check_verdicts(made: Mapping[str, Artifact]) -> None:
    """Refuse a judge none of whose verdicts could be read; the page has its replies."""
    for name, verdicts in made.items():
        counts = verdicts.record.counts
        missing = {k.partition("/")[2]: n for k, n in counts.items() if k.startswith("missing/")}
        if name.startswith(VERDICT) and 0 < sum(missing.values()) == verdicts.num_rows:
            why = ", ".join(f"{reason}: {num:,}" for reason, num in sorted(missing.items()))
            raise ModelError(
                f"{name.removeprefix(VERDICT)}: all {verdicts.num_rows:,} verdicts of this judge "
                f"are missing ({why}); read its replies in the report, then use another judge"
            )


def _labels(name: str, path: Path) -> frozenset[str]:
    """Return the names of a model: its own, and that of its weights; case and owner aside."""
    names = [name]
    if not _is_rows(path):
        use = served(path)
        names.append(use.config.label)
        names += [str(use.folder.path.resolve())] if isinstance(use.folder, Source) else []
    return frozenset(each.lower().rpartition("/")[2] for each in names if each)


def _judge_config(config: JudgingConfig, form: Form) -> JudgeConfig:
    """Return the settings of a judge for a form, with its own or the published prompts."""
    own = JudgeConfig(form=config.judge.form).prompts
    changed = {case: text for case, text in config.judge.prompts.items() if text != own[case]}
    if config.prompts is not None:
        changed = {**read_prompts(config.prompts, form), **changed}
    given = config.judge.model_dump(exclude_unset=True, exclude={"prompts"})
    update = {"form": form, "reference": config.reference, "prompts": changed}
    return JudgeConfig.model_validate(given | update)


def _is_rows(path: Path) -> bool:
    return any(suffix in ROWS for suffix in path.suffixes)
