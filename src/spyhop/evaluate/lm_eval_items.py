"""Make the items of lm-eval's tasks, with prompts equal byte for byte to those of lm-eval 0.4.13.

A prompt is the description, the worked examples and the item, in plain text. The quirks are
lm-eval's: a field names a column where it can, digits become an index where there are choices, and
lists are read from the text that a template writes.
"""

import ast
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spyhop.evaluate.lm_eval import LmEvalSuite, LmEvalTask, Template
from spyhop.evaluate.shots import Drawer, Sampler
from spyhop.evaluate.splits import Rows, split_rows
from spyhop.schema import InputError, Item
from spyhop.text.options import labels
from spyhop.text.sandbox import Sandbox, is_text

_FIELDS = ("doc_to_text", "doc_to_choice", "doc_to_target", "gen_prefix", "description")
_NO_LITERAL = (SyntaxError, ValueError, MemoryError, RecursionError)


@dataclass(frozen=True, slots=True)
class _Doc:
    """The fields of a row."""

    where: str
    text: Any
    choices: list[str] | None
    target: Any
    prefix: str
    description: str = ""

    @property
    def gold_text(self) -> str:
        """The right answer as a worked example shows it."""
        value = self.target
        if self.choices and isinstance(value, int):
            value = self.choices[_place(value, self.choices, self.where)]
        elif isinstance(value, list) and value:
            value = value[0]
        if not isinstance(value, str):
            raise InputError(f"{self.where}: the answer {value!r:.60} is not text")
        return value


def lm_eval_items(
    suite: LmEvalSuite, folder: Path, wanted: tuple[str, ...] | None, sandbox: Sandbox
) -> Iterator[list[Item]]:
    """Yield the items of each task, without ids."""
    known = [member.task for member in suite.members]
    if unknown := sorted(set(wanted or ()) - set(known)):
        raise InputError(f"{suite.name}: no task {', '.join(unknown)}; known: {', '.join(known)}")
    for task in suite.members:
        if wanted is None or task.task in wanted:
            yield list(_items(suite, task, folder, sandbox))


def _items(suite: LmEvalSuite, task: LmEvalTask, folder: Path, sandbox: Sandbox) -> Iterator[Item]:
    rows = split_rows(folder, task.dataset_name, task.split, task.files(task.split))
    docs = _docs(task, rows, sandbox)
    for doc, shots in zip(docs, _shots(task, rows, folder, sandbox), strict=True):
        yield _item(suite, task, doc, doc.description + shots)


def _item(suite: LmEvalSuite, task: LmEvalTask, doc: _Doc, before: str) -> Item:
    choices, delimiter = doc.choices or [], task.target_delimiter
    golds: list[Any] = doc.target if isinstance(doc.target, list) else [doc.target]
    contexts = list[str]()
    question, texts = doc.text, [f"{delimiter}{choice}" for choice in choices]
    if task.output_type == "loglikelihood":
        golds, choices = [0], [_written(doc.target, doc.where)]
        texts = choices
    elif task.output_type == "generate_until":
        golds, texts = _gold_texts(doc), []
    elif isinstance(doc.text, int) and choices:  # the choices are prompts of one continuation
        golds, texts = [doc.text], [f"{delimiter}{doc.target}"] * len(choices)
        contexts = [f"{before}{choice}{doc.prefix}" for choice in choices]
        question = choices[_place(doc.text, choices, doc.where)]
    question = _written(question, doc.where)
    known = labels(len(texts))
    if texts:
        golds = [known[_place(gold, choices, doc.where)] for gold in golds]
    if not golds or not (texts or task.output_type == "generate_until"):
        raise InputError(f"{doc.where}: no choices, or no right one")
    return Item(
        id="",
        suite=suite.name,
        task=task.task,
        question=f"{before}{question}",
        text=question,
        options=known,
        target=golds[0],
        golds=golds if len(golds) > 1 else [],
        chance=len(golds) / len(known) if len(known) > 1 else 0.0,
        cue="" if contexts else f"{_gap(question, doc.prefix, delimiter)}{doc.prefix}",
        continuations=texts,
        contexts=contexts,
        topic=task.topic,
    )


def _shots(task: LmEvalTask, rows: Rows, folder: Path, sandbox: Sandbox) -> list[str]:
    """Return the worked examples before each item."""
    if not task.num_fewshot:
        return [""] * len(rows)
    split, samples = task.shot_split, task.fewshot_config.samples
    pool: Rows = [(f"{task.task}: sample {n}", row) for n, row in enumerate(samples, 1)]
    if split:
        files = task.files(split)
        is_own = split == task.split
        pool = rows if is_own else split_rows(folder, task.dataset_name, split, files)
    sampler: Sampler = "first_n" if task.fewshot_config.sampler == "first_n" else "seeded"
    inner = [row for _, row in pool]
    drawer = Drawer(inner, task.num_fewshot, sampler, excludes=task.excludes_item)
    drawn = [drawer.draw(row) for _, row in rows]
    places = sorted({place for each in drawn for place in each})
    shot = task.as_shot()
    docs = _docs(shot, [pool[place] for place in places], sandbox)
    texts = {place: _example(shot, doc) for place, doc in zip(places, docs, strict=True)}
    return ["".join(texts[place] for place in each) for each in drawn]


def _example(task: LmEvalTask, doc: _Doc) -> str:
    text, choices, delimiter = doc.text, doc.choices, task.target_delimiter
    if isinstance(text, int) and choices:
        text = choices[_place(text, choices, doc.where)]
        doc = replace(doc, choices=None)
    text = _written(text, doc.where)
    gap = _gap(text, doc.prefix, delimiter)
    if doc.target in (None, ""):
        return f"{text}{gap}{doc.prefix}"
    answer = f"{doc.prefix}{_gap(doc.prefix, doc.gold_text, ' ')}{doc.gold_text}"
    return f"{text}{gap if doc.prefix else delimiter}{answer}{task.fewshot_delimiter}"


def _gap(before: str, after: str, delimiter: str) -> str:
    """Return the delimiter where neither text is empty or has white space at the joint."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return ""
    return delimiter


def _docs(task: LmEvalTask, rows: Rows, sandbox: Sandbox) -> list[_Doc]:
    """Return the fields of rows."""
    columns = set(rows[0][1]) if rows else set()
    fields = {name: getattr(task, name) for name in _FIELDS}
    templates = {
        name: given
        for name, given in fields.items()
        if isinstance(given, str) and given not in columns and is_text(given)
    }
    docs = []
    for where, row, made in sandbox.values(templates, rows):
        text, choice, target, prefix, description = (
            made.get(name, _own(given, row)) for name, given in fields.items()
        )
        choices = _choices(choice, task.doc_to_choice in columns, where)
        text, target = (
            _index(found, given, columns, choices)
            for found, given in ((text, task.doc_to_text), (target, task.doc_to_target))
        )
        if task.doc_to_target not in columns:
            target = _list(target)
        docs.append(_Doc(where, text, choices, target, str(prefix or ""), str(description or "")))
    return docs


def _own(given: Template, row: Mapping[str, Any]) -> Any:  # noqa: ANN401 (a value of a row)
    """Return the column that a field names; else the field itself is the value."""
    if isinstance(given, tuple):
        return list(given)
    return row[given] if isinstance(given, str) and given in row else given


def _choices(found: object, is_column: bool, where: str) -> list[str] | None:
    if found is None:
        return None
    if isinstance(found, str) and not is_column:
        try:
            found = ast.literal_eval(found)
        except _NO_LITERAL:
            raise InputError(f"{where}: doc_to_choice gives no list: {found!r:.80}") from None
    if not isinstance(found, list | tuple) or not found:
        raise InputError(f"{where}: doc_to_choice gives no list: {found!r:.80}")
    return [str(each) for each in found]


def _index(found: Any, given: Template, columns: set[str], choices: list[str] | None) -> Any:  # noqa: ANN401
    """Return digits that a template wrote as the index of a choice."""
    is_made = isinstance(given, str) and given not in columns
    if is_made and choices is not None and isinstance(found, str) and found.isdigit():
        return int(found)
    return found


def _list(found: Any) -> Any:  # noqa: ANN401
    """Return the list whose text a template wrote; any other value as it is."""
    if isinstance(found, str) and len(found) > 1 and found[0] + found[-1] == "[]":
        with suppress(*_NO_LITERAL):
            return ast.literal_eval(found)
    return found


def _place(gold: Any, choices: list[str], where: str) -> int:  # noqa: ANN401 (index or text)
    """Return the index of the right choice."""
    if isinstance(gold, str) and gold in choices:
        return choices.index(gold)
    if isinstance(gold, int) and 0 <= gold < len(choices):
        return int(gold)
    raise InputError(f"{where}: the answer {gold!r:.60} is not among {len(choices)} choices")


def _gold_texts(doc: _Doc) -> list[str]:
    """Return the accepted answers of an item that is answered freely."""
    golds = doc.target
    if doc.choices is not None:
        golds = doc.choices[_place(golds, doc.choices, doc.where)]
    return [str(gold) for gold in (golds if isinstance(golds, list) else [golds])]


def _written(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: the prompt is {value!r:.60}, not text")
    return value
