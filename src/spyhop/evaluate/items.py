"""Read evaluation items from a benchmark's own files, in the zero-shot form of the Orca paper.

A question is the passage, `Q: ...`, `Answer Choices: (A)... (B)...` and the cue
`A: Among A through E, the answer is`; it is one user turn, without exemplars. Options without
letters (yes and no, True and False) get them, since the paper's parser reads capital letters only.

Gold answers that no option holds are kept as they are, so that counts stay comparable: three of
BIG-Bench-Hard (titles cut at their commas), one in each SAT-English file (an option is missing).
No response can be right there, `chance` is 0, and `target not in options` finds them. AGIEval's
options are printed as they stand: 19 items of LogiQA have them in the order A, C, B, D.

Source: Orca (arXiv:2306.02707), zero-shot evaluation; AGIEval v1 and BIG-Bench-Hard for files.
"""

import json
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spyhop.schema import InputError, Item
from spyhop.store import row_id

BBH_TASKS = (
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "navigate",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
)
"""The 23 multiple-choice tasks of the paper's Table 11, in its order: 5,511 items.

BIG-Bench-Hard without its four free-answer tasks: dyck_languages, multistep_arithmetic_two,
object_counting and word_sorting.
"""

AGIEVAL_TASKS = (
    "aqua-rat",
    "logiqa-en",
    "lsat-ar",
    "lsat-lr",
    "lsat-rc",
    "sat-math",
    "sat-en",
    "sat-en-without-passage",
)
"""The eight English multiple-choice tasks of the paper's Table 8, in its order: 2,546 items.

The paper prints 3,546, which counts the 1,000 of MATH that it does not report.
"""

_UNLISTED = {  # BIG-Bench-Hard tasks whose questions do not list their options
    "boolean_expressions": ("True", "False"),
    "sports_understanding": ("yes", "no"),
    "web_of_lies": ("Yes", "No"),
}


def read_bbh(
    folder: Path, *, tasks: Sequence[str] | None = None, limit: int | None = None
) -> Iterator[Item]:
    """Yield the items of BIG-Bench-Hard, task by task, in the order of `BBH_TASKS`.

    Args:
        folder: Holds one `<task>.json` per task, as published.
        tasks: Which of `BBH_TASKS`; all of them by default.
        limit: At most so many items per task: those with the smallest ids, which is a random but
            fixed sample. A smaller limit gives a subset of a larger one. File order is kept.

    Raises:
        InputError: If a task is unknown or a file is missing, empty or not in this form.
    """
    return _read("bbh", BBH_TASKS, folder, tasks, limit, _bbh_items)


def read_agieval(
    folder: Path, *, tasks: Sequence[str] | None = None, limit: int | None = None
) -> Iterator[Item]:
    """Yield the items of AGIEval v1, task by task, in the order of `AGIEVAL_TASKS`.

    Args:
        folder: Holds one `<task>.jsonl` per task, as published (`data/v1`).
        tasks: Which of `AGIEVAL_TASKS`; all of them by default.
        limit: As in `read_bbh`.

    Raises:
        InputError: As in `read_bbh`.
    """
    return _read("agieval", AGIEVAL_TASKS, folder, tasks, limit, _agieval_items)


_Reader = Callable[[Path, str], Iterator[tuple[str, list[str], str]]]
"""(folder, task) -> (question, labels, target) of each item."""


def _read(
    suite: str,
    known: Sequence[str],
    folder: Path,
    tasks: Sequence[str] | None,
    limit: int | None,
    reader: _Reader,
) -> Iterator[Item]:
    wanted = known if tasks is None else tasks
    if unknown := sorted(set(wanted) - set(known)):
        raise InputError(f"{suite}: no task {', '.join(unknown)}; known: {', '.join(known)}")
    return (
        item
        for task in known
        if task in wanted
        for item in _sample(_identified(suite, task, reader(folder, task)), limit)
    )


def _identified(
    suite: str, task: str, found: Iterator[tuple[str, list[str], str]]
) -> Iterator[Item]:
    """Give each item an id from suite, task and text; the n-th repetition also counts n in."""
    seen = Counter[str]()
    for question, labels, target in found:
        repeated = [str(seen[question])] if seen[question] else []
        seen[question] += 1
        yield Item(
            id=row_id(suite, task, question, *repeated),
            suite=suite,
            task=task,
            question=question,
            options=labels,
            target=target,
            chance=1 / len(labels) if target in labels else 0.0,
        )


def _sample(items: Iterator[Item], limit: int | None) -> Iterator[Item]:
    if limit is None:
        yield from items
        return
    every = list(items)
    chosen = set(sorted(item.id for item in every)[:limit])
    yield from (item for item in every if item.id in chosen)


def _prompt(passage: str, question: str, options: Sequence[str]) -> str:
    last = string.ascii_uppercase[len(options) - 1]
    return (
        f"{passage}Q: {question} Answer Choices: {' '.join(options)}\n"
        f"A: Among A through {last}, the answer is"
    )


def _bbh_items(folder: Path, task: str) -> Iterator[tuple[str, list[str], str]]:
    path = folder / f"{task}.json"
    examples = _field(_parsed(_text(path), str(path)), "examples", list, str(path))
    if not examples:
        raise InputError(f"{path}, key 'examples': empty; fetch the file anew")
    for number, row in enumerate(examples, start=1):
        where = f"{path}: example {number}"
        text, gold = (_field(row, key, str, where).strip() for key in ("input", "target"))
        question, _, tail = text.rpartition("\nOptions:\n")
        listed = tail.split("\n")
        if task in _UNLISTED:
            question, listed = text, [f"- {word}" for word in _UNLISTED[task]]
        labels = list(string.ascii_uppercase[: len(listed)])
        if question and [line[:4] for line in listed] == [f"({label}) " for label in labels]:
            options, target = listed, gold[1:-1] if gold[1:-1] in labels else gold
        elif question and all(line.startswith("- ") for line in listed):
            words = [line.removeprefix("- ").strip() for line in listed]
            options = [f"({label}) {word}" for label, word in zip(labels, words, strict=True)]
            target = labels[words.index(gold)] if gold in words else gold
        else:
            raise InputError(
                f"{where}, key 'input': no list of options ('Options:', then '(A) ...' or '- ...' "
                "lines) at its end; take the file as published"
            )
        yield _prompt("", question, options), labels, target


def _agieval_items(folder: Path, task: str) -> Iterator[tuple[str, list[str], str]]:
    path = folder / f"{task}.jsonl"
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        row = _parsed(line, where)
        question, target = (_field(row, key, str, where) for key in ("question", "label"))
        passage = _field(row, "passage", (str, type(None)), where) or ""
        options = _field(row, "options", list, where)
        labels = list(string.ascii_uppercase[: len(options)])
        if len(labels) < 2 or not all(isinstance(option, str) for option in options):
            raise InputError(
                f"{where}, key 'options': expected texts, got {options!r:.80}; mend it"
            )
        if target not in string.ascii_uppercase or len(target) != 1:
            raise InputError(
                f"{where}, key 'label': expected a letter, got {target!r:.80}; mend it"
            )
        yield _prompt(passage, question, options), labels, target


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name the folder that holds it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}); fetch it anew") from None
    if not text.strip():
        raise InputError(f"{path}: empty; fetch it anew")
    return text


def _parsed(text: str, where: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{where}: broken JSON at {place} ({error.msg}); mend it") from None


def _field(row: object, key: str, kind: type | tuple[type, ...], where: str) -> Any:  # noqa: ANN401
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected an object with key '{key}', got {row!r:.80}; mend it")
    if key not in row:
        raise InputError(f"{where}: key '{key}' is missing, found {sorted(row)}; add it")
    if not isinstance(row[key], kind):
        names = getattr(kind, "__name__", "text or null")
        raise InputError(f"{where}, key '{key}': expected {names}, got {row[key]!r:.80}; mend it")
    return row[key]
