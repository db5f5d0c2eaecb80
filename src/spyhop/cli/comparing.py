"""Commands on finished evaluations, anybody's: compare two logs, export scores."""

from pathlib import Path
from typing import Literal

from spyhop.cli.options import NO_NAMES
from spyhop.cli.running import print_json, print_table, say
from spyhop.evaluate.comparison import compare_logs
from spyhop.evaluate.logs import export_scores, read_log
from spyhop.report.comparison import comparison_page, summary_lines, terminal_table
from spyhop.schema import InputError
from spyhop.store import atomic_write


def compare(
    first: Path,
    second: Path,
    task: list[str] = NO_NAMES,
    metric: str = "",
    by: Literal["task", "length", "topic"] = "task",
    html: Path | None = None,
    rows: int = 20,
    anyway: bool = False,
    json_: bool = False,
) -> None:
    """Compare two models item by item, from the logs of one tool.

    Differences are second minus first. Nothing is asked or downloaded.
    """
    logs = (read_log(path, task, metric) for path in (first, second))
    compared = compare_logs(*logs, num_rows=rows, is_anyway=anyway)
    if json_:
        print_json(compared)
    else:
        print_table(terminal_table(compared, by))
        say(*summary_lines(compared))
    if html is None:
        return
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(html) as temporary:
            temporary.write_text(comparison_page(compared), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{html}: cannot be written ({error.strerror})") from None


def export(
    scores: Path,
    to: Literal["inspect", "lm-eval", "hub"],
    out: Path,
    dataset: list[str] = NO_NAMES,
) -> None:
    """Write scores for inspect, lm-eval or the Hugging Face hub."""
    named: dict[str, str] = {}
    for text in dataset:
        pattern, _, named[pattern] = text.partition("=")
        if not (pattern and named[pattern]):
            raise InputError(f"--dataset {text!r}: write TASK=ID, such as gsm8k=openai/gsm8k")
    say(*export_scores(scores, to, out, named))
