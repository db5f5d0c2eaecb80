"""Make the items of a `Task` from the rows of its files."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from spyhop.collect.columns import read_options
from spyhop.evaluate.task import Sampler, Task
from spyhop.schema import InputError, Item
from spyhop.store import row_id
from spyhop.store.files import LINE, field, json_file, lines, matching
from spyhop.store.rows import read_rows, row_files
from spyhop.text.choices import labels, listed
from spyhop.text.sandbox import Sandbox
from spyhop.text.template import fill, names

SEED = 1234
"""lm-eval's seed of few-shot sampling."""
_COLUMN = re.compile(r"[A-Za-z_]\w*")
_GOLD = "gold answer"
"""Name of the expression of the gold answer among those of columns."""
_BETWEEN = "\n\n"
"""Text after each worked example."""
Row = tuple[str, dict[str, Any]]
Shown = tuple[Item, str]
"""An item without its worked examples, and how it is written as one."""
Fields = Mapping[str, Any]


def task_items(
    task: Task,
    folder: Path,
    wanted: tuple[str, ...] | None,
    sandbox: Sandbox,
    watch: Callable[[dict[str, Any]], object],
) -> Iterator[list[Item]]:
    """Yield the items of each task, without ids; `watch` is called with each row."""
    for name, paths in _chosen(task, folder, wanted).items():
        rows = [row for path in paths for row in _rows(task, path)]
        for _, row in rows:
            watch(row)
        shown = _shown(task, name, rows, sandbox)
        before = [_few_shot(task, name, folder)] * len(rows)
        if task.shots:
            pool, pool_shown = rows, shown
            if task.shot_files:
                files = matching(folder, fill(task.shot_files, task=name))
                pool = [row for file in files for row in _rows(task, file)]
                pool_shown = _shown(task, name, pool, sandbox)
            inner, own = ([row for _, row in some] for some in (pool, rows))
            drawn = draw_shots(inner, own, task.shots, task.sampler, excludes=True)
            before = [
                text + "".join(pool_shown[n][1] for n in places)
                for text, places in zip(before, drawn, strict=True)
            ]
        yield [_after(text, item) for text, (item, _) in zip(before, shown, strict=True)]


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
        other = item if excludes else None
        try:
            if sampler == "first_n":
                found = _others(pool, every, other)[:number]
            else:
                found = _others(pool, rng.sample(every, number + excludes), other)[:number]
                if len(found) < number:  # the pool has the row several times
                    found = rng.sample(_others(pool, every, other), number)
        except ValueError:
            found = []
        if len(found) < number:
            raise InputError(
                f"{number} worked examples are wanted; their files have {len(pool)} rows, besides "
                "the item's own"
            )
        yield found


def _others(pool: Sequence[Fields], places: Sequence[int], item: Fields | None) -> list[int]:
    return [n for n in places if pool[n] != item]


def _chosen(task: Task, folder: Path, wanted: tuple[str, ...] | None) -> dict[str, list[Path]]:
    """Return the files to read by the name of their task."""
    paths: dict[str, list[Path]] = {}
    start, star, end = task.files.rpartition("/")[2].partition("*")
    for path in row_files(folder, task.files):
        name = task.name  # or the text that a single `*` of the pattern stands for
        if task.files == "*":
            name = path.name.split(".")[0]
        elif star and "*" not in end and path.name.startswith(start) and path.name.endswith(end):
            name = path.name[len(start) : len(path.name) - len(end)].split(".")[0]
        paths.setdefault(name, []).append(path)
    known = list(task.tasks) or [name for name in paths if name not in task.exclude]
    if unknown := sorted(set(wanted or ()) - set(known)):
        raise InputError(f"{task.name}: no task {', '.join(unknown)}; known: {', '.join(known)}")
    chosen = [name for name in known if wanted is None or name in wanted]
    if missing := [name for name in chosen if name not in paths]:
        raise InputError(f"{folder}: no file of the task {missing[0]} ({task.files})")
    return {name: paths[name] for name in chosen}


def _rows(task: Task, path: Path) -> Iterator[Row]:
    if path.suffix == ".txt" or (path.suffix == ".tsv" and "text" in task.columns_read()):
        yield from ((f"{path}{LINE}{n}", {"text": line}) for n, line in lines(path) if line.strip())
        return
    if not task.rows:
        yield from read_rows(path)
        return
    for number, row in enumerate(field(json_file(path), task.rows, str(path), list), start=1):
        where = f"{path}: row {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected an object, got {row!r:.80}")
        yield where, row


def _few_shot(task: Task, name: str, folder: Path) -> str:
    if not task.few_shot_file:
        return task.few_shot
    (path, *_) = matching(folder, fill(task.few_shot_file, task=name))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error!s:.60})") from None
    if task.few_shot_after not in text:
        raise InputError(f"{path}: no {task.few_shot_after!r} before its worked examples")
    text = text.partition(task.few_shot_after)[2] if task.few_shot_after else text
    return f"{text.strip()}{_BETWEEN}"


def _after(before: str, item: Item) -> Item:
    if not before:
        return item
    contexts = [f"{before}{context}" for context in item.contexts]
    return item.model_copy(update={"question": f"{before}{item.question}", "contexts": contexts})


def _shown(task: Task, name: str, rows: list[Row], sandbox: Sandbox) -> list[Shown]:
    expressions = dict(task.columns)
    if task.gold and not _COLUMN.fullmatch(task.gold):
        expressions[_GOLD] = task.gold
    return [
        _one(task, name, row | made, where)
        for where, row, made in sandbox.values(expressions, rows)
    ]


def _one(task: Task, name: str, row: dict[str, Any], where: str) -> Shown:
    columns = _columns(task, name, row, where)
    own, texts = _options(task, name, columns, where)
    known = labels(len(texts))
    question = _filled(task.question, columns, where).strip()
    golds = _golds(task, columns, known, where)
    target = golds[0] if golds else _filled(task.target, columns, where).strip()
    if not question or not target:
        raise InputError(f"{where}: an empty question or answer")
    if texts and not golds:
        target = _label(target, own, texts)
    if texts and target not in known and not task.as_published:
        raise InputError(f"{where}: answer {target!r:.60} is not among {texts!r:.80}")
    columns |= {"stem": question, "target": target, "last": known[-1] if known else ""}
    pairs = [columns | {"label": a, "text": b} for a, b in zip(known, texts, strict=True)]
    columns["options"] = task.separator.join(_filled(task.option, pair, where) for pair in pairs)
    prompt = task.prompt if texts else task.open_prompt
    passage = _filled(task.passage, columns, where).strip()
    topics = (topic for topic, tasks in task.topics.items() if name in tasks)
    scored = pairs if task.continuation else []
    item = Item(
        id="",
        suite=task.name,
        task=name,
        question=_filled(prompt, columns, where) if prompt else question,
        text=question,
        options=known,
        target=target,
        golds=golds if len(golds) > 1 or task.metric in ("mc1", "mc2") else [],
        chance=len(golds or [target]) / len(known) if target in known else 0.0,
        cue=_filled(task.cue, columns, where) if texts else "",
        continuations=[_filled(task.continuation, pair, where) for pair in scored],
        contexts=[_filled(task.context, pair, where) for pair in pairs] if task.context else [],
        passage=row_id(task.name, passage) if passage else "",
        topic=_filled(task.topic, columns, where) or next(topics, ""),
    )
    if not task.shots or (item.options and item.target not in item.options):
        return item, ""
    if not item.continuations:
        return item, f"{item.asked}{_filled(task.shot_answer, columns, where)}{_BETWEEN}"
    place = item.options.index(item.target)
    asked = item.contexts[place] if item.contexts else item.asked
    return item, f"{asked}{item.continuations[place]}{_BETWEEN}"


def _golds(task: Task, columns: Mapping[str, Any], known: list[str], where: str) -> list[str]:
    """Return the labels, or texts, that `gold` gives."""
    if not task.gold:
        return []
    found = field(columns, _GOLD if _GOLD in columns else task.gold, where, object)
    values: list[Any] = found if isinstance(found, list) else [found]
    if not known:
        return [str(value) for value in values if str(value).strip()]
    for value in values:
        if not str(value).isdigit() or int(value) >= len(known):
            raise InputError(
                f"{where}: gold = {value!r:.60} is not the index of one of {len(known)} options"
            )
    return [known[int(value)] for value in values]


def _options(
    task: Task, name: str, columns: dict[str, Any], where: str
) -> tuple[list[str], list[str]]:
    """Return labels (the file's own if it has any) and texts of the options, if there are any."""
    if not isinstance(task.options, str):
        kinds = (str, int, float)
        texts = [str(field(columns, each, where, kinds)).strip() for each in task.options]
        return labels(len(texts)), texts
    value = columns.pop(task.options, None) or task.fixed_options.get(name)
    if not value:
        return [], []
    found = listed(value) if isinstance(value, list | tuple) else None
    own, texts = ([], found) if found is not None else read_options(value, where, task.options)
    if len(texts) == 1 and not task.as_published:
        raise InputError(f"{where}, column {task.options!r}: one option; two are needed")
    return own or labels(len(texts)), texts


def _columns(task: Task, name: str, row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the columns of a row, with those that `split` makes of them."""
    columns = dict.fromkeys(task.optional, "") | dict(row)
    for column, pattern in task.split.items():
        text = field(columns, column, where).strip()
        if name in task.fixed_options:
            columns |= dict.fromkeys(re.compile(pattern).groupindex, "") | {"question": text}
        elif found := re.fullmatch(pattern, text):
            columns |= found.groupdict()
        else:
            raise InputError(f"{where}, column {column!r}: not of the form {pattern!r}")
    return columns


def _filled(template: str, columns: Mapping[str, Any], where: str) -> str:
    """Return a template with its columns filled in; numbers are written out, null is empty."""
    kinds = (str, int, float, type(None))
    found = {name: field(columns, name, where, kinds) for name in names(template)}
    return fill(template, **{n: "" if v is None else str(v) for n, v in found.items()})


def _label(target: str, own: list[str], options: list[str]) -> str:
    """Return the label of a gold answer: a label of the file, in brackets too, or a text."""
    bare = target[1:-1] if target[:1] == "(" and target[-1:] == ")" else target
    for known in (options, own):
        for text in (target, bare):
            if text in known:
                return labels(len(options))[known.index(text)]
    return target
