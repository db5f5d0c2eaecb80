"""Make the items of lm-eval's tasks, with prompts equal byte for byte to those of lm-eval 0.4.13.

A prompt is the description, the worked examples and the item, in plain text. The quirks are
lm-eval's: a field names a column where it can, digits become an index where there are choices, and
lists are read from the text that a template writes. The rows of a split are found in a local
folder, however it was saved.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from spyhop.evaluate.lm_eval import LmEvalSuite, LmEvalTask
from spyhop.evaluate.task import Sampler
from spyhop.schema import InputError, Item
from spyhop.store.files import matching
from spyhop.store.rows import kind_of, read_rows, row_files
from spyhop.text.choices import labels
from spyhop.text.sandbox import Sandbox, is_text

_FIELDS = ("doc_to_text", "doc_to_choice", "doc_to_target", "gen_prefix", "description")
_ALIASES = {
    "validation": ("valid", "val", "dev"),
    "train": ("training",),
    "test": ("testing", "eval", "evaluation"),
}
"""Names of files that the hub takes for a split where no file has the split's own name."""
_NUMBERS: dict[type, re.Pattern[str]] = {
    int: re.compile(r"[+-]?\d{1,18}"),
    float: re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"),
}
"""Forms of the columns of CSV that are numbers."""
SEED = 1234
"""lm-eval's seed of few-shot sampling."""
Fields = Mapping[str, Any]
Rows = list[tuple[str, dict[str, Any]]]


class _Doc(NamedTuple):
    where: str
    text: Any
    choices: list[str] | None
    target: Any
    prefix: str
    description: str


def lm_eval_items(
    suite: LmEvalSuite, folder: Path, wanted: tuple[str, ...] | None, sandbox: Sandbox
) -> Iterator[list[Item]]:
    """Yield the items of each task, without ids."""
    known = [member.task for member in suite.members]
    if unknown := sorted(set(wanted or ()) - set(known)):
        raise InputError(f"{suite.name}: no task {', '.join(unknown)}; known: {', '.join(known)}")
    for task in suite.members:
        if wanted is None or task.task in wanted:
            rows = _split_rows(folder, task, task.split)
            docs, shots = _docs(task, rows, sandbox), _shots(task, rows, folder, sandbox)
            yield [
                _item(suite.name, task, doc, doc.description + before)
                for doc, before in zip(docs, shots, strict=True)
            ]


def _item(suite: str, task: LmEvalTask, doc: _Doc, before: str) -> Item:
    choices, delimiter = doc.choices or [], task.target_delimiter
    golds: list[Any] = doc.target if isinstance(doc.target, list) else [doc.target]
    contexts = list[str]()
    question, texts = doc.text, [f"{delimiter}{choice}" for choice in choices]
    if task.output_type == "loglikelihood":
        golds, choices = [0], [_written(doc.target, doc.where)]
        texts = choices
    elif task.output_type == "generate_until":
        if choices:
            golds = [choices[_place(doc.target, choices, doc.where)]]
        golds, texts = list(map(str, golds)), []
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
        id="", suite=suite, task=task.task, topic=task.topic, question=f"{before}{question}",
        text=question, options=known, target=golds[0], golds=golds if len(golds) > 1 else [],
        chance=len(golds) / len(known) if len(known) > 1 else 0.0,
        cue="" if contexts else f"{_gap(question, doc.prefix, delimiter)}{doc.prefix}",
        continuations=texts, contexts=contexts,
    )  # fmt: skip


def _shots(task: LmEvalTask, rows: Rows, folder: Path, sandbox: Sandbox) -> list[str]:
    if not task.num_fewshot:
        return [""] * len(rows)
    config, named = task.fewshot_config, task.fewshot_config.split or task.fewshot_split
    split = named or task.training_split or task.validation_split or task.test_split
    if named or not config.samples:
        pool = rows if split == task.split else _split_rows(folder, task, split)
    else:
        pool = [(f"{task.task}: sample {n}", row) for n, row in enumerate(config.samples, 1)]
    sampler: Sampler = "first_n" if config.sampler == "first_n" else "seeded"
    inner, own = ([row for _, row in some] for some in (pool, rows))
    excludes = named == task.test_split  # lm-eval's rule
    drawn = list(draw_shots(inner, own, task.num_fewshot, sampler, excludes=excludes))
    places = sorted({place for each in drawn for place in each})
    own_fields = {k: v for k, v in config if k in LmEvalTask.model_fields and v is not None}
    shot = task.model_copy(update={**own_fields, "description": ""})
    docs = _docs(shot, [pool[place] for place in places], sandbox)
    texts = {place: _example(shot, doc) for place, doc in zip(places, docs, strict=True)}
    return ["".join(texts[place] for place in each) for each in drawn]


def draw_shots(
    pool: Sequence[Fields],
    items: Sequence[Fields],
    number: int,
    sampler: Sampler,
    *,
    excludes: bool,
) -> Iterator[list[int]]:
    """Yield the positions in the pool of each item's examples, in the order of showing.

    `seeded` is the default sampler of lm-eval 0.4: Python's `random.sample` for one item after the
    other, so that an item's examples depend on how many items precede it. With `excludes`, no
    example equals the item's own row.
    """
    rng, every = Random(SEED), range(len(pool))
    for item in items:
        own, found = item if excludes else None, list[int]()
        with suppress(ValueError):  # fewer rows than examples
            drawn = every if sampler == "first_n" else rng.sample(every, number + excludes)
            found = list(islice((n for n in drawn if pool[n] != own), number))
            if sampler == "seeded" and len(found) < number:  # the pool has the row several times
                found = rng.sample([n for n in every if pool[n] != own], number)
        if len(found) < number:
            raise InputError(
                f"{number} worked examples are wanted; their files have {len(pool)} rows, besides "
                "the item's own"
            )
        yield found


def _example(task: LmEvalTask, doc: _Doc) -> str:
    text, choices, gold, delimiter = doc.text, doc.choices, doc.target, task.target_delimiter
    if isinstance(text, int) and choices:
        text, choices = choices[_place(text, choices, doc.where)], None
    text = _written(text, doc.where)
    gap = _gap(text, doc.prefix, delimiter)
    if gold in (None, ""):
        return f"{text}{gap}{doc.prefix}"
    if choices and isinstance(gold, int):
        gold = choices[_place(gold, choices, doc.where)]
    elif isinstance(gold, list) and gold:
        gold = gold[0]
    if not isinstance(gold, str):
        raise InputError(f"{doc.where}: the answer {gold!r:.60} is not text")
    answer = f"{doc.prefix}{_gap(doc.prefix, gold, ' ')}{gold}"
    return f"{text}{gap if doc.prefix else delimiter}{answer}{task.fewshot_delimiter}"


def _gap(before: str, after: str, delimiter: str) -> str:
    """Return the delimiter where neither text is empty or has white space at the joint."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return ""
    return delimiter


def _docs(task: LmEvalTask, rows: Rows, sandbox: Sandbox) -> list[_Doc]:
    columns = set(rows[0][1]) if rows else set()
    fields = {name: getattr(task, name) for name in _FIELDS}
    written = {n: v for n, v in fields.items() if isinstance(v, str) and v not in columns}
    docs = []
    templates = {name: given for name, given in written.items() if is_text(given)}
    for where, row, made in sandbox.values(templates, rows):
        values: dict[str, Any] = {}
        for name, given in fields.items():  # a field is a template, a column, or the value itself
            own = list(given) if isinstance(given, tuple) else given
            own = row.get(given, given) if isinstance(given, str) else own
            values[name] = made.get(name, own)
        choices = values["doc_to_choice"]
        if choices is not None:
            choices = _literal(choices) if "doc_to_choice" in written else choices
            if not isinstance(choices, list | tuple) or not choices:
                raise InputError(f"{where}: doc_to_choice gives no list: {choices!r:.80}")
            choices = list(map(str, choices))
        for name in ("doc_to_text", "doc_to_target"):
            value = values[name]
            if name not in written or not isinstance(value, str):
                continue
            if choices is not None and value.isdigit():
                values[name] = int(value)
            elif name == "doc_to_target" and value[:1] + value[-1:] == "[]":
                values[name] = _literal(value)
        prefix, description = (str(values[name] or "") for name in ("gen_prefix", "description"))
        text, target = values["doc_to_text"], values["doc_to_target"]
        docs.append(_Doc(where, text, choices, target, prefix, description))
    return docs


def _literal(text: str) -> Any:  # noqa: ANN401 (a list, as a rule)
    """Return the value whose text a template wrote; any other text as it is."""
    with suppress(SyntaxError, ValueError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    return text


def _place(gold: Any, choices: list[str], where: str) -> int:  # noqa: ANN401 (index or text)
    if isinstance(gold, str) and gold in choices:
        return choices.index(gold)
    if isinstance(gold, int) and 0 <= gold < len(choices):
        return int(gold)
    raise InputError(f"{where}: the answer {gold!r:.60} is not among {len(choices)} choices")


def _written(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: the prompt is {value!r:.60}, not text")
    return value


def _split_rows(folder: Path, task: LmEvalTask, split: str) -> Rows:
    """Return the rows of a split with their places; a column that a row lacks is None."""
    paths = _split_files(folder, task.dataset_name, split, task.files(split))
    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        raise InputError(f"{paths[0]}: no rows")
    columns = dict.fromkeys(key for _, row in rows for key in row)
    found = [(where, columns | row) for where, row in rows]
    for key in columns if kind_of(paths[0]) in (".csv", ".tsv") else ():
        texts = [row.get(key, "") for _, row in rows]  # typed as `datasets` infers it
        kind = next((k for k, form in _NUMBERS.items() if all(map(form.fullmatch, texts))), str)
        for _, row in found:
            row[key] = row[key] if row[key] is None else kind(row[key])
    return found


def _split_files(folder: Path, subset: str, split: str, stated: tuple[str, ...]) -> list[Path]:
    """Return the files of a split.

    The folder is a copy of the data set's repository, what `save_to_disk` wrote, or one of files
    with the split in their names; a single file is the split. The subset is in the names of
    folders or files, else ignored. Files that the task states, by names or patterns, are taken.
    """
    if folder.is_file():
        return [folder]
    if stated:
        return [path for pattern in stated for path in matching(folder, pattern)]
    is_saved = (folder / "dataset_dict.json").is_file()
    paths = matching(folder, "*.arrow") if is_saved else row_files(folder)
    known = {path: path.relative_to(folder).as_posix() for path in paths}
    own = [path for path, name in known.items() if subset and f"/{subset}/" in f"/{name}"]
    own = own or [path for path, name in known.items() if subset and _has_word(name, subset)]
    for word in (split, *_ALIASES.get(split, ())):
        if found := [path for path in own or known if _has_word(known[path], word)]:
            return found
    what = f"the split {split!r}" + (f" of {subset!r}" if subset else "")
    raise InputError(
        f"{folder}: no file of {what}; its name, or a folder's, must contain {split!r}; found "
        f"{', '.join(list(known.values())[:4])}"
    )


def _has_word(name: str, word: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", name) is not None
