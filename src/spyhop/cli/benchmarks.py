"""The command that shows benchmarks."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from rich.table import Table

from spyhop.cli.options import NO_NAMES
from spyhop.cli.running import places, print_table, say
from spyhop.evaluate import AnyTask, forms, items_of, read_suite, task_names, with_shots
from spyhop.evaluate.suite import FOLDER, HEADING, YAML, figures, file_of, first_prompt
from spyhop.lazy import library
from spyhop.recipes.inputs import check_data
from spyhop.schema import InputError
from spyhop.settings import HUB


def tasks(
    suite: str = "",
    data: list[str] = NO_NAMES,
    shots: int | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Show benchmarks: items, options, chance, prompt, source.

    Without the files of a benchmark (--data), only its description is shown.
    """
    if not suite:
        table = Table("name", "items", "method", "forms", "source", box=None, pad_edge=False)
        for name in task_names():
            found = read_suite(name)
            if len(found) > 1:
                table.add_row(name, "", "", "", ", ".join(task.name for task in found))
                continue
            (task,) = found
            number = f"{task.num_items:,}" if task.num_items else ""
            table.add_row(name, number, task.method, ", ".join(forms(name)), task.citation)
        print_table(table)
        return
    unit, length = _measure(tokenizer)
    known, found = places(data), read_suite(suite)
    check_data(known, found)
    for task in found:
        say(*_lines(suite, task))
        own = FOLDER / f"{task.data}.jsonl"
        place = known.get(task.name, known.get(task.data, str(own) if own.is_file() else None))
        if place is None:
            say(f"items      --data {task.data}=FOLDER shows them\n")
            continue
        if place.startswith(HUB):
            raise InputError(f"--data {task.data}={place}: name a folder to look into it")
        asked = with_shots(task, shots)
        groups = [group for group in items_of(asked, Path(place)) if group]
        if not groups:
            raise InputError(f"{place}: no items of {task.name}")
        table = Table(*HEADING, unit, box=None, pad_edge=False)
        for row in figures(groups, length):
            table.add_row(*row)
        print_table(table)
        for name, text in first_prompt(asked, groups[0][0]):
            say(f"\n--- {name} of the first item", text)
        say("")


def _measure(folder: Path | None) -> tuple[str, Callable[[str], int]]:
    """Return the unit in which prompts are measured, and how."""
    if folder is None:
        return "words", lambda text: len(text.split())
    path = folder / "tokenizer.json" if folder.is_dir() else folder
    tokenizers = library("tokenizers", "--tokenizer")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (the library raises nothing narrower)
        raise InputError(f"{path}: no tokenizer ({error!s:.80})") from None
    return "tokens", lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _lines(suite: str, task: AnyTask) -> list[str]:
    """Return what is known of a benchmark without its files."""
    path = file_of(suite, task)
    own = [] if path.suffix in YAML else forms(str(path))
    lines = {
        "benchmark": task.name,
        "number": f"{task.num_items:,} published" if task.num_items else "not stated",
        "method": f"{task.method}, {task.form}, metric {task.metric}",
        "data set": task.data,
        "citation": task.citation,
        "protocol": task.note,
        "forms": ", ".join(f"{path.stem}:{form}" for form in own),
        "file": f"{path.name}, SHA-256 {sha256(path.read_bytes()).hexdigest()[:16]}",
    }
    return [f"{name:<10} {text}" for name, text in lines.items() if text]
