"""What the models that answered and were measured took: requests, tokens, dollars."""

from collections.abc import Sequence

from spyhop.report.html import Section, Table
from spyhop.store import Artifact


def cost_section(
    answers: Sequence[tuple[str, Artifact]], scores: Sequence[tuple[str, Artifact]]
) -> Section:
    """Tell what was asked of each model and what it cost.

    Args:
        answers: Who answered, and the answers.
        scores: Which model was measured, and its scores.
    """
    section = Section(
        "Requests, tokens, dollars",
        "As the runs that made these rows counted them; recorded answers and models in this "
        "process cost no dollars.",
    )
    told = [("answers", *each) for each in answers] + [("scores", *each) for each in scores]
    rows = [_row(what, who, artifact) for what, who, artifact in told]
    names = ("requests", "prompt_tokens", "response_tokens", "usd")
    total = {name: sum(each.record.usage.get(name, 0) for _, _, each in told) for name in names}
    rows.append(["all", "", *_cells(total)])
    headings = ["for", "model", "requests", "tokens in", "tokens out", "dollars"]
    section.table(Table(headings, rows))
    return section


def _row(what: str, who: str, artifact: Artifact) -> list[str]:
    return [what, who, *_cells(artifact.record.usage)]


def _cells(usage: dict[str, float]) -> list[str]:
    names = ("requests", "prompt_tokens", "response_tokens")
    return [*(f"{round(usage.get(name, 0)):,}" for name in names), f"{usage.get('usd', 0):,.4f}"]
