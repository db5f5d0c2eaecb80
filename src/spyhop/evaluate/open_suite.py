"""Open questions, responses and verdicts, read from published files as a suite's data says.

A suite is a TOML file in `evaluate/suites/`, or your own; no code knows any of them by name. Rows
of answers and verdicts find their question by its id, or else by its text.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from spyhop.collect.shapes import conversation
from spyhop.evaluate.judging import Form, read_questions, read_responses, with_reading
from spyhop.models import Model, Sampling
from spyhop.models.script import Ask, Script, play
from spyhop.schema import (
    Config,
    InputError,
    Message,
    Question,
    RecipeError,
    Response,
    Verdict,
    prompt_turns,
)
from spyhop.settings import read_toml, validated
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact, Artifacts, canonical, row_id
from spyhop.store.files import field
from spyhop.store.rows import read_rows, row_files
from spyhop.text.template import fill, names
from spyhop.text.verdict import Winner, read_grades

FOLDER = Path(__file__).with_name("suites")
RESPONSES = ("choices.0.turns", "turns", "text", "output", "response", "answer")
MODELS, ANSWER_ID = ("generator", "model_id", "model"), ("answer_id",)
PAIR = ("output_1", "output_2")
SIDES = (("generator_1", "generator_2"), ("answer1_id", "answer2_id"), ("a", "b"))
JUDGES = ("annotator", "reviewer_id", "judge")
WINNERS = ("preference", "gpt_result", "pandalm_result", "winner")
"""Columns of published files, by their meaning; the first that a row has counts."""


class OpenSuite(Config):
    """A set of open questions. Templates contain `{column}`s of the rows."""

    name: str
    files: str = "*"
    """Files of the questions."""
    id: tuple[str, ...] = ("question_id", "id")
    """Columns of the question's id; without one it is the hash of the text."""
    topic: tuple[str, ...] = ("topic", "category", "skill")
    question: tuple[str, ...] = ()
    """Templates of the question, or the column of its turns; the first whose columns a row has
    counts. Default: the user's turns of a row of any known shape."""
    references: str = ""
    """Files of reference answers, with the questions' ids."""
    published: int = 0
    """Number of questions as published."""
    num_turns: int = 1
    """Of each question, for plans."""
    form: Form = "pairwise"
    """Default form of judging."""
    doubted: tuple[str, ...] = ()
    """Ids of questions without which rates are reported, too."""
    responses: tuple[str, ...] = ("response_a", "response_b")
    """Columns of a labelled pair of responses."""
    models: str = ""
    """Column that names the two models of a pair, joined by `_`."""
    labels: tuple[str, ...] = ("label",)
    """Columns of human labels: 1 or 2 (a or b) is the better one, 0 (tie) for neither."""
    citation: str = ""
    note: str = ""


def open_suite_names() -> list[str]:
    """Return the suites that ship with spyhop."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_open_suite(name: str) -> OpenSuite:
    """Return a suite by its name or TOML file; a file of rows is a suite of your own."""
    path = FOLDER / f"{name}.toml" if name in open_suite_names() else Path(name)
    if path.suffix != ".toml":
        if not path.exists():
            known = ", ".join(open_suite_names())
            raise RecipeError(f"no suite {name!r}; known: {known}; or name a file of questions")
        return OpenSuite(name=path.stem)
    return validated(path, OpenSuite, {"name": path.stem, **read_toml(path)}, "", {})


class QuestionsConfig(Config):
    """Questions to read."""

    suite: OpenSuite
    limit: int | None = Field(None, gt=0)
    """At most this many questions: a fixed random sample."""


def plan_questions(config: QuestionsConfig, folder: Estimate) -> Estimate:
    """Count the published questions, and the rows of each turn."""
    rows = config.suite.published or folder.rows
    rows = rows if config.limit is None else min(rows, config.limit)
    return Estimate(rows=rows, parts=(rows,) * config.suite.num_turns)


@stage(version=1, writes=Question, plan=plan_questions)
def open_questions(
    ctx: Context, config: QuestionsConfig, *, folder: Artifact
) -> Iterator[Question]:
    """Yield the questions of a suite; equal ones are one."""
    suite, found = config.suite, dict[str, Question]()
    references = _references(ctx, suite, folder.path)
    for where, row in _rows(folder.path, suite.files):
        turns = _question(suite, row, where)
        name = _text(row, suite.id) or row_id(suite.name, *turns)
        question = Question(
            id=name, suite=suite.name, topic=_text(row, suite.topic), turns=turns,
            references=references.get(name, []),
        )  # fmt: skip
        if found.setdefault(name, question).turns != turns:
            raise InputError(f"{where}: a second question has the id {name!r}")
    if not found:
        raise InputError(f"{folder.path}: no questions of {suite.name}; the files have no rows")
    if suite.published not in (0, len(found)):
        ctx.notice(f"{suite.name}: {len(found):,} questions; published are {suite.published:,}")
    kept = set(sorted(found, key=lambda name: row_id("0/limit", name))[: config.limit])
    for question in (found[name] for name in found if name in kept):
        for turn in range(1, len(question.turns) + 1):
            ctx.count(f"turn/{turn}")
        yield question


class ReadyConfig(Config):
    """Ready answers or verdicts to read."""

    suite: OpenSuite
    name: str = ""
    """Name of the model: in a file of compared pairs, its responses are read."""
    side: int | None = None
    """For labelled pairs: which of the two responses, 0 or 1."""


def _one_each(config: ReadyConfig, questions: Estimate, **inputs: object) -> Estimate:
    return Estimate(rows=questions.rows)


@stage(version=1, writes=Response, plan=_one_each)
def ready_answers(
    ctx: Context, config: ReadyConfig, *, questions: Artifact, folder: Artifact
) -> Iterator[Response]:
    """Yield ready answers to the questions. Counts: `foreign`, rows of other questions."""
    suite, side = config.suite, config.side
    for where, row, question in _matched(ctx, config, questions, folder):
        columns = [*RESPONSES] if side is None else [suite.responses[side]]
        for text, name in zip(PAIR, SIDES[0], strict=True):  # a file of compared pairs
            columns = [text] if text in row and row.get(name, "") == config.name else columns
        value = _first(row, columns)
        if value is None:
            turns = conversation(row, where, needs_response=True).turns
            value = [turn.content for turn in turns if turn.role == "assistant"]
        model = _text(row, MODELS)
        if side is not None:
            model = [*_text(row, (suite.models,)).split("_"), "", ""][side]
        texts = list(map(str, value)) if isinstance(value, list) else [str(value)]
        yield Response(id=question.id, model=model, origin=_text(row, ANSWER_ID), turns=texts)


@stage(version=1, writes=Verdict, plan=_one_each)
def ready_verdicts(
    ctx: Context, config: ReadyConfig, *, questions: Artifact, answers: Artifacts, folder: Artifact
) -> Iterator[Verdict]:
    """Yield ready verdicts: AlpacaEval's annotations, Vicuna's reviews, labels, or spyhop's own.

    Reviews are read as a judge's replies; one whose stored score differs from its text is reported.
    With `side`, the verdicts are the suite's human labels.

    Counts: `foreign`, `missing/<reason>`, `differs`.
    """
    known = {name: name for name in answers}
    for name, artifact in answers.items():
        for response in read_responses(artifact).values():
            known |= {key: name for key in (response.model, response.origin) if key}
    for where, row, question in _matched(ctx, config, questions, folder):
        judge = _text(row, JUDGES) or folder.path.stem
        if "review_id" in row:  # a reviewer's id ends with the name of its prompt
            judge = judge.rpartition("-")[0] or judge
        sides = next(([str(row[k]) for k in some] for some in SIDES if some[0] in row), [*answers])
        a, b = (known.get(side, "") for side in sides)
        if not a or not b:
            ctx.count("foreign")
            continue
        columns: dict[str, tuple[str, ...]] = {judge: WINNERS}
        if config.side is not None:
            columns = {name: (name,) for name in config.suite.labels}
        for name, column in columns.items():
            fields: dict[str, Any] = {"item_id": question.id, "judge": name, "a": a, "b": b}
            fields |= {"suite": question.suite, "topic": question.topic}
            if "item_id" in row:
                fields |= row
            elif "review_id" not in row:
                winner = _winner(_text(row, column).lower())
                fields |= {"winner": winner, "missing": "" if winner else "no_verdict"}
            fields["id"] = row_id(name, canonical(row))
            try:
                verdict = Verdict.model_validate(fields)
            except ValidationError as error:
                first = error.errors()[0]
                raise InputError(f"{where}: {first['loc'][0]}: {first['msg']}") from None
            if "review_id" in row:
                verdict = _reviewed(ctx, verdict, row, where)
            if verdict.missing:
                ctx.count(f"missing/{verdict.missing}")
            yield verdict


class RespondConfig(Config):
    """How models are asked."""

    system_message: str = ""
    """System message; an empty one is not sent."""
    sampling: Sampling = Sampling(max_new_tokens=1024, temperature=0.7)
    """Default: that of MT-bench and Orca."""


def plan_respond(config: RespondConfig, questions: Estimate, model: Estimate) -> Estimate:
    """One request per turn; later turns repeat the earlier ones."""
    rows = sum(questions.parts) or questions.rows
    most, again = rows * config.sampling.max_new_tokens, rows - questions.rows
    calls = Calls(
        requests=rows, prompt_tokens=rows * 60, response_tokens=most // 4,
        most_response_tokens=most, further_prompt_tokens=again * config.sampling.max_new_tokens,
    )  # fmt: skip
    return Estimate(rows=questions.rows, calls={"model": calls})


@stage(version=1, writes=Response, plan=plan_respond)
def respond(
    ctx: Context, config: RespondConfig, *, questions: Artifact, model: Model
) -> Iterator[Response]:
    """Yield a model's responses to every question, turn by turn. Counts: `ending/<ending>`."""

    def ask(question: Question) -> Script[Response]:
        messages, turns, ending = list[Message](), list[str](), "empty"
        for turn in question.turns:
            messages += prompt_turns(turn, "" if messages else config.system_message)
            (reply,) = yield [Ask(model, list(messages), config.sampling)]
            turns, ending = [*turns, reply.text], reply.ending
            messages.append(Message(role="assistant", content=reply.text))
            if reply.error is not None:
                break
        return Response(id=question.id, model=model.label, turns=turns, ending=ending)

    for row in play(map(ask, read_questions(questions)), model):
        ctx.count(f"ending/{row.ending}")
        yield row


def _rows(folder: Path, pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in row_files(folder, pattern):
        yield from read_rows(file)


def _matched(
    ctx: Context, config: ReadyConfig, questions: Artifact, folder: Artifact
) -> Iterator[tuple[str, dict[str, Any], Question]]:
    """Yield rows with their questions; others are counted as `foreign`."""
    suite, known = config.suite, list(read_questions(questions))
    by_id = {question.id: question for question in known}
    by_text = {question.turns[0].strip(): question for question in known}
    for where, row in _rows(folder.path, "*" if config.side is None else suite.files):
        name = _text(row, ("item_id", *suite.id))
        question = by_id.get(name) if name else by_text.get(_question(suite, row, where)[0].strip())
        if question is None:
            ctx.count("foreign")
        else:
            yield where, row, question


def _question(suite: OpenSuite, row: dict[str, Any], where: str) -> list[str]:
    for template in suite.question:
        values = {name: _first(row, [name]) for name in names(template)}
        if None not in values.values():
            turns = next((each for each in values.values() if isinstance(each, list)), None)
            text = fill(template, **{name: str(each) for name, each in values.items()})
            return [str(turn) for turn in turns or [text.strip()]]
    if suite.question:
        raise InputError(f"{where}: no {' or '.join(suite.question)}; it has {', '.join(row):.80}")
    turns = [turn.content for turn in conversation(row, where).turns if turn.role == "user"]
    if not turns:
        raise InputError(f"{where}: no turn of a user")
    return turns


def _references(ctx: Context, suite: OpenSuite, folder: Path) -> dict[str, list[str]]:
    if not suite.references:
        return {}
    rows: list[tuple[str, dict[str, Any]]] = []
    with suppress(InputError):
        rows = list(_rows(folder, suite.references)) if folder.is_dir() else []
    if not rows:
        ctx.notice(f"{folder}: no reference answers ({suite.references}); judged without them")
    return {_text(row, suite.id): field(row, RESPONSES[0], where, list) for where, row in rows}


def _first(row: dict[str, Any], columns: Iterable[str]) -> Any:  # noqa: ANN401 (from outside)
    """Return the first of these values that a row has; a dotted column leads through objects."""
    for column in columns:
        with suppress(InputError):
            if (value := field(row, column, "", object)) is not None:
                return value
    return None


def _text(row: dict[str, Any], columns: Iterable[str]) -> str:
    """Return the first of these values as text; whole numbers without a point."""
    value = _first(row, columns)
    is_whole = isinstance(value, float) and value.is_integer()
    return "" if value is None else str(int(value) if is_whole else value)


def _winner(named: str) -> Winner | None:
    """Return the winner that a column names: a letter, or AlpacaEval's share from 1 (a) to 2."""
    share = {"a": 1.0, "b": 2.0, "tie": 1.5}.get(named, -1.0)
    with suppress(ValueError):
        share = float(named)
    if share in (0, 1.5):
        return "tie"
    return ("a" if share < 1.5 else "b") if 1 <= share <= 2 else None


def _reviewed(ctx: Context, verdict: Verdict, row: dict[str, Any], where: str) -> Verdict:
    text = field(row, "text", where)
    found, stored = read_grades(text), row.get("score")
    if stored is not None and tuple(map(float, stored)) != found.grades:
        ctx.count("differs")
        ctx.notice(f"{where}: the review says {list(found.grades)}, its stored score is {stored}")
    return with_reading(verdict, found, text).model_copy(update={"order": "ab"})
