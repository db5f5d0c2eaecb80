"""Commands on finished evaluations, anybody's: compare two logs, export scores."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spyhop.cli.running import PLAIN_WIDTH
from spyhop.evaluate.comparison import compare_logs
from spyhop.evaluate.logs import read_logs
from spyhop.report.comparison import (
    comparison_json,
    comparison_page,
    sentence,
    summary_lines,
    terminal_table,
)
from spyhop.schema import InputError
from spyhop.store import atomic_write

_LOGS = (
    "A log, or the folder of one model: spyhop's scores, lm-eval samples, inspect .eval or .json, "
    "AlpacaEval annotations, arena-hard judgments."
)


class By(StrEnum):
    """How the printed table is grouped."""

    task = "task"
    length = "length"
    topic = "topic"


def compare(
    first: Annotated[Path, typer.Argument(help=_LOGS, show_default=False)],
    second: Annotated[Path, typer.Argument(help="The other model's.", show_default=False)],
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Name or pattern (mmlu_*). May be repeated.")
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", help="Default: the first metric of each task.")
    ] = "",
    by: Annotated[By, typer.Option("--by", help="Groups of the printed table.")] = By.task,
    json_: Annotated[
        Path | None, typer.Option("--json", help="Write tables and disagreements to this file.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page to this file.")
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", min=0, help="Disagreements to read of each task and side.")
    ] = 20,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Compare in spite of other prompts or of few common items."),
    ] = False,
) -> None:
    """Compare two models item by item, from the logs of one tool.

    Differences are second minus first. Nothing is asked or downloaded.
    """
    logs = read_logs(first, second, task or (), metric)
    compared = compare_logs(*logs, num_rows=rows, is_anyway=anyway)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    for line in summary_lines(compared):
        console.print(line, markup=False, soft_wrap=True)
    console.print(terminal_table(compared, by.value))
    console.print(sentence(compared), markup=False, soft_wrap=True)
    texts = {}
    if json_:
        texts[json_] = json.dumps(comparison_json(compared), indent=1, ensure_ascii=False)
    if html:
        texts[html] = comparison_page(compared)
    for path, text in texts.items():
        _write(path, text)
        console.print(f"written: {path}", markup=False, soft_wrap=True)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
