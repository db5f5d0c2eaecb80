"""Commands on finished evaluations, anybody's: compare two logs, export scores."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from spyhop.cli.options import TaskOut
from spyhop.cli.running import PLAIN_WIDTH
from spyhop.evaluate.comparison import compare_logs
from spyhop.evaluate.logs import export_scores, read_logs
from spyhop.report.comparison import comparison_page, summary_lines, terminal_table
from spyhop.schema import InputError
from spyhop.store import atomic_write

_LOGS = (
    "A log, or the folder of one model: spyhop's scores, lm-eval samples, inspect .eval or .json, "
    "AlpacaEval annotations, arena-hard judgments."
)


def compare(
    first: Annotated[Path, typer.Argument(help=_LOGS, show_default=False)],
    second: Annotated[Path, typer.Argument(help="The other model's.", show_default=False)],
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Name or pattern (mmlu_*). May be repeated.")
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", help="Default: the first metric of each task.")
    ] = "",
    by: Annotated[
        Literal["task", "length", "topic"],
        typer.Option("--by", help="Groups of the printed table."),
    ] = "task",
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
    console.width = console.width if console.is_terminal else PLAIN_WIDTH
    console.print(terminal_table(compared, by))
    for line in summary_lines(compared):
        console.print(line, markup=False, soft_wrap=True)
    if json_:
        _write(json_, json.dumps(asdict(compared), indent=1, ensure_ascii=False))
    if html:
        _write(html, comparison_page(compared))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def export(
    scores: Annotated[Path, typer.Argument(help="File of `spyhop eval`: scores-NAME.jsonl.")],
    to: Annotated[
        Literal["inspect", "lm-eval", "hub"],
        typer.Option("--to", help="Format: inspect .eval, lm-eval results, hub YAML."),
    ],
    out: TaskOut,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            metavar="TASK=ID[:TASK_ID]",
            help="For the hub: its data set of the tasks of this pattern. May be repeated.",
        ),
    ] = None,
) -> None:
    """Write scores for inspect, lm-eval or the Hugging Face hub."""
    pairs = [each.partition("=") for each in dataset or ()]
    if odd := next(("".join(pair) for pair in pairs if not (pair[0] and pair[2])), None):
        raise InputError(f"--dataset {odd!r}: write TASK=ID, such as gsm8k=openai/gsm8k")
    named = {pattern: hub_id for pattern, _, hub_id in pairs}
    for path in export_scores(scores, to, out, named):
        print(path)  # noqa: T201
