"""The figures of a benchmark that a person looks at before it is run."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spyhop.evaluate.asking import user_turn
from spyhop.evaluate.suite import AnyTask
from spyhop.schema import Item


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """Figures of one task, or of all tasks of a benchmark."""

    task: str
    topic: str
    num_items: int
    options: str
    """Number of options, or its range; empty where answers are free."""
    chance: float
    """Mean accuracy of a uniform guess."""
    length: float
    """Mean length of a prompt."""


def figures(groups: Iterable[list[Item]], length: Callable[[str], int]) -> list[TaskFigures]:
    """Return the figures of each task, and of all tasks in the last row if there are several."""
    rows = [group for group in groups if group]
    tasks = [_figures(group[0].task, group, length) for group in rows]
    every = [item for group in rows for item in group]
    return [*tasks, _figures("all", every, length)] if len(tasks) > 1 else tasks


def _figures(name: str, items: list[Item], length: Callable[[str], int]) -> TaskFigures:
    numbers = sorted({len(item.options) for item in items})
    topics = Counter(item.topic for item in items if item.topic)
    return TaskFigures(
        task=name,
        topic=next(iter(topics)) if len(topics) == 1 else f"{len(topics)} topics" * bool(topics),
        num_items=len(items),
        options=""
        if numbers == [0]
        else "-".join(map(str, dict.fromkeys(numbers[:1] + numbers[-1:]))),
        chance=sum(item.chance for item in items) / len(items),
        length=sum(length(item.asked) for item in items) / len(items),
    )


def first_prompt(task: AnyTask, item: Item) -> Iterator[tuple[str, str]]:
    """Yield the parts of an item's prompt with their names, verbatim."""
    if task.system_message:
        yield "system message", task.system_message
    if item.contexts:
        for label, context, text in zip(
            item.options, item.contexts, item.continuations, strict=True
        ):
            yield f"prompt of {label}", context
            yield f"scored after {label}", text
        return
    yield "plain text" if task.form == "plain" else "user turn", user_turn(item, task)
    if task.form == "prefilled" and item.cue:
        yield "beginning of the response", item.cue.lstrip()
    if task.method == "likelihood":
        yield "scored", "\n".join(map(repr, item.continuations or item.options))
    yield "gold answer", " | ".join(item.golds or [item.target])


def file_digest(path: Path) -> str:
    """Return the start of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
