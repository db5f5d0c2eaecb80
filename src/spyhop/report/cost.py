"""What the models that answered and were measured took: requests, tokens, dollars."""

from collections.abc import Mapping

from spyhop.report.html import ReportSection, Table
from spyhop.schema import Answer
from spyhop.store import Artifact


def cost_section(**groups: Mapping[str, Artifact]) -> ReportSection:
    """Requests, tokens and dollars of each model."""
    section = ReportSection(
        "Requests, tokens, dollars",
        "As the runs that made these rows counted them; recorded answers and models in this "
        "process cost no dollars.",
    )
    told = [(kind, *each) for kind, group in groups.items() for each in group.items()]
    rows = [_row(what, who, artifact) for what, who, artifact in told]
    names = ("requests", "prompt_tokens", "response_tokens", "usd")
    total = {name: sum(each.record.usage.get(name, 0) for _, _, each in told) for name in names}
    rows.append(["all", "", "", *_cells(total)])
    headings = ["for", "name", "model", "requests", "tokens in", "tokens out", "dollars"]
    section.table(Table(headings, rows))
    return section


def _row(what: str, who: str, artifact: Artifact) -> list[str]:
    model = next((row.model for row in artifact.rows(Answer)), "") if what == "answers" else ""
    return [what, who, model, *_cells(artifact.record.usage)]


def _cells(usage: dict[str, float]) -> list[str]:
    names = ("requests", "prompt_tokens", "response_tokens")
    return [*(f"{round(usage.get(name, 0)):,}" for name in names), f"{usage.get('usd', 0):,.4f}"]
