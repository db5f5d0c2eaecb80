"""Make the items of lm-eval's tasks, with prompts equal byte for byte to those of lm-eval 0.4.13.

A prompt is the description, the worked examples and the item, in plain text. The quirks are
lm-eval's: a field names a column where it can, digits become an index where there are choices, and
lists are read from the text that a template writes.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spyhop.evaluate.lm_eval import LmEvalSuite, LmEvalTask, Shots, Template
from spyhop.evaluate.shots import Drawer
from spyhop.evaluate.splits import Rows, split_rows
from spyhop.schema import InputError, Item
from spyhop.text.options import labels
from spyhop.text.sandbox import Sandbox, is_text

_FIELDS = ("text", "choices", "target", "prefix", "description")


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
    """Yield the items of each task, without ids.

    Raises:
        InputError: Naming the row and the field that is wrong, or the missing task or file.
    """
    known = [member.name for member in suite.members]
    if unknown := sorted(set(wanted or ()) - set(known)):
        raise InputError(f"{suite.name}: no task {', '.join(unknown)}; known: {', '.join(known)}")
    for task in suite.members:
        if wanted is None or task.name in wanted:
            yield list(_items(suite, task, folder, sandbox))


def _items(suite: LmEvalSuite, task: LmEvalTask, folder: Path, sandbox: Sandbox) -> Iterator[Item]:
    rows = split_rows(folder, task.subset, task.split, task.files.get(task.split, ()))
    docs = _docs(task, rows, sandbox)
    shown = _Worked(task, rows, folder, sandbox)
    for (_, row), doc in zip(rows, docs, strict=True):
        before = doc.description + "".join(shown.of(row))
        yield _item(suite, task, doc, before)


def _item(suite: LmEvalSuite, task: LmEvalTask, doc: _Doc, before: str) -> Item:
    choices = doc.choices or []
    if task.output == "loglikelihood":
        choices = [_written(doc.target, doc.where)]
    golds: list[Any] = []
    texts, contexts = list[str](), list[str]()
    if task.output == "generate_until":
        golds = _gold_texts(doc)
        question = _written(doc.text, doc.where)
    elif isinstance(doc.text, int) and doc.choices:  # the choices are prompts of one continuation
        golds = [doc.text]
        contexts = [f"{before}{choice}{doc.prefix}" for choice in choices]
        texts = [f"{task.target_delimiter}{doc.target}"] * len(choices)
        question = choices[_place(doc.text, choices, doc.where)]
    else:
        question = _written(doc.text, doc.where)
        delimiter = task.target_delimiter if task.output == "multiple_choice" else ""
        texts = [f"{delimiter}{choice}" for choice in choices]
        golds = doc.target if isinstance(doc.target, list) else [doc.target]
        golds = [0] if task.output == "loglikelihood" else golds
    known = labels(len(texts))
    if texts:
        golds = [known[_place(gold, choices, doc.where)] for gold in golds]
    if not golds or (not texts and task.output != "generate_until"):
        raise InputError(f"{doc.where}: no choices, or no right one")
    return Item(
        id="",
        suite=suite.name,
        task=task.name,
        question=f"{before}{question}",
        text=question,
        options=known,
        target=golds[0],
        golds=golds if len(golds) > 1 else [],
        chance=len(golds) / len(known) if len(known) > 1 else 0.0,
        cue="" if contexts else f"{_gap(question, doc.prefix, task.target_delimiter)}{doc.prefix}",
        continuations=texts,
        contexts=contexts,
        topic=task.topic,
    )


class _Worked:
    """The worked examples of items in their order."""

    def __init__(self, task: LmEvalTask, rows: Rows, folder: Path, sandbox: Sandbox) -> None:
        shots = task.shots
        self._shots = shots
        if not shots.number:
            return
        pool: Rows = [(f"{task.name}: sample {n}", row) for n, row in enumerate(shots.samples, 1)]
        if shots.split:
            files = task.files.get(shots.split, ())
            pool = rows
            if shots.split != task.split:
                pool = split_rows(folder, task.subset, shots.split, files)
        self._drawer = Drawer(
            [row for _, row in pool], shots.number, shots.sampler, excludes=shots.excludes_item
        )
        drawn = [self._drawer.draw(row) for _, row in rows]
        places = sorted({place for each in drawn for place in each})
        docs = _docs(shots, [pool[place] for place in places], sandbox)
        self._texts = {n: _example(shots, doc) for n, doc in zip(places, docs, strict=True)}
        self._drawn = iter(drawn)

    def of(self, row: Mapping[str, Any]) -> list[str]:
        """Return the examples of the next item."""
        return [self._texts[place] for place in next(self._drawn)] if self._shots.number else []


def _example(shots: Shots, doc: _Doc) -> str:
    text, choices = doc.text, doc.choices
    if isinstance(text, int) and choices:
        text = choices[_place(text, choices, doc.where)]
        doc = _Doc(doc.where, text, None, doc.target, doc.prefix)
    text = _written(text, doc.where)
    if doc.target in (None, ""):
        return f"{text}{_gap(text, doc.prefix, shots.target_delimiter)}{doc.prefix}"
    has_gap = not doc.prefix or bool(_gap(text, doc.prefix, shots.target_delimiter))
    delimiter = shots.target_delimiter if has_gap else ""
    answer = f"{doc.prefix}{_gap(doc.prefix, doc.gold_text, ' ')}{doc.gold_text}"
    return f"{text}{delimiter}{answer}{shots.delimiter}"


def _gap(before: str, after: str, delimiter: str) -> str:
    """Return the delimiter where neither text is empty or has white space at the joint."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return ""
    return delimiter


def _docs(task: LmEvalTask | Shots, rows: Rows, sandbox: Sandbox) -> list[_Doc]:
    """Return the fields of rows."""
    columns = set(rows[0][1]) if rows else set()
    fields = {name: getattr(task, name, "") for name in _FIELDS}
    templates = {
        name: given
        for name, given in fields.items()
        if isinstance(given, str) and given not in columns and is_text(given)
    }
    docs = []
    for where, row, made in sandbox.values(templates, rows):
        found = {name: made.get(name, _own(given, row)) for name, given in fields.items()}
        choices = _choices(found["choices"], fields["choices"] in columns, where)
        docs.append(
            _Doc(
                where,
                _index(found["text"], fields["text"], columns, choices),
                choices,
                _target(found["target"], fields["target"], columns, choices),
                str(found["prefix"] or ""),
                str(found["description"] or ""),
            )
        )
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
        except (SyntaxError, ValueError, MemoryError, RecursionError):
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


def _target(found: Any, given: Template, columns: set[str], choices: list[str] | None) -> Any:  # noqa: ANN401
    found = _index(found, given, columns, choices)
    is_made = isinstance(given, str) and given not in columns
    if is_made and isinstance(found, str) and len(found) > 1 and found[0] + found[-1] == "[]":
        try:
            return ast.literal_eval(found)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return found
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
