"""Questions of one's own as items: JSONL rows of `question`, `answer` and, if any, `options`."""

import string
from collections.abc import Iterator

from spyhop.evaluate.measure import ItemsConfig
from spyhop.schema import InputError, Item
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, row_id
from spyhop.store.files import field, json_lines, matching


@stage(version=1, writes=Item, plan=lambda config, folder: Estimate(rows=folder.rows))
def questions(ctx: Context, config: ItemsConfig, *, folder: Artifact) -> Iterator[Item]:
    """Read the questions of every JSONL file; a file is a task, named like it.

    With `options` (a list of texts) the answer is one of them, or its letter, and the question is
    asked in the form of the Orca paper. A repeated question is kept once.

    Raises:
        InputError: Naming the file, the line and what is wrong with it.
    """
    for path in matching(folder.path, "*.jsonl"):
        if config.tasks is not None and path.stem not in config.tasks:
            continue
        items: dict[str, Item] = {}
        for where, row in json_lines(path):
            item = _item(path.stem, row, where)
            items.setdefault(item.id, item)
        chosen = set(sorted(items)[: config.limit])
        yield from (item for item in items.values() if item.id in chosen)


def _item(task: str, row: object, where: str) -> Item:
    question = field(row, "question", where).strip()
    answer = str(field(row, "answer", where, (str, int, float))).strip()
    has_options = isinstance(row, dict) and row.get("options")
    options = field(row, "options", where, list) if has_options else []
    if not question or not answer:
        raise InputError(f"{where}: an empty question or answer")
    labels = list(string.ascii_uppercase[: len(options)])
    if options:
        texts = [str(option).strip() for option in options]
        if answer in texts:
            answer = labels[texts.index(answer)]
        if answer not in labels:
            raise InputError(f"{where}: answer {answer!r} is none of the options {texts!r:.80}")
        listed = " ".join(f"({label}) {text}" for label, text in zip(labels, texts, strict=True))
        cue = f"A: Among A through {labels[-1]}, the answer is"
        question = f"Q: {question} Answer Choices: {listed}\n{cue}"
    return Item(
        id=row_id("questions", task, question),
        task=task,
        suite="questions",
        question=question,
        options=labels,
        target=answer,
        chance=1 / len(labels) if labels else 0.0,
    )
