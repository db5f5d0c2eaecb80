"""The figures of a benchmark that a person looks at before it is run."""

from collections.abc import Callable, Iterable, Iterator
from statistics import fmean

from spyhop.evaluate.asking import user_turn
from spyhop.evaluate.suite import AnyTask
from spyhop.schema import Item

HEADING = ("task", "subject", "items", "options", "chance")
"""Columns of `figures`; the mean length of a prompt follows."""


def figures(groups: Iterable[list[Item]], length: Callable[[str], int]) -> list[list[str]]:
    """Return the figures of each task, and of all tasks in the last row if there are several."""
    found = {group[0].task: group for group in groups if group}
    if len(found) > 1:
        found["all"] = [item for group in found.values() for item in group]
    rows = []
    for name, items in found.items():
        numbers = sorted({len(item.options) for item in items})
        topics = {item.topic for item in items} - {""}
        spread = "-".join(str(number) for number in dict.fromkeys([numbers[0], numbers[-1]]))
        chance = fmean(item.chance for item in items)
        mean = fmean(length(item.asked) for item in items)
        subject = f"{len(topics)} topics" if len(topics) > 1 else "".join(topics)
        choices = [spread, f"{chance:.1%}"] if numbers != [0] else ["", ""]
        rows.append([name, subject, f"{len(items):,}", *choices, f"{mean:.0f}"])
    return rows


def first_prompt(task: AnyTask, item: Item) -> Iterator[tuple[str, str]]:
    """Yield the parts of an item's prompt with their names, verbatim."""
    if task.system_message:
        yield "system message", task.system_message
    if item.contexts:
        pairs = zip(item.contexts, item.continuations, strict=True)
        yield "prompts | scored", "\n".join(f"{before} | {text}" for before, text in pairs)
        return
    yield "plain text" if task.form == "plain" else "user turn", user_turn(item, task)
    if task.form == "prefilled" and item.cue:
        yield "beginning of the response", item.cue.lstrip()
    if task.method == "likelihood":
        yield "scored", "\n".join(map(repr, item.continuations or item.options))
    yield "gold answer", " | ".join(item.golds or [item.target])
