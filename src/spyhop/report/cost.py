"""What the models that answered and were measured took: requests, tokens, dollars."""

from collections.abc import Mapping

from spyhop.report.html import ReportSection, Table
from spyhop.schema import Answer
from spyhop.store import Artifact


def cost_section(answers: Mapping[str, Artifact], scores: Mapping[str, Artifact]) -> ReportSection:
    """Requests, tokens and dollars of each model.

    Args:
        answers: Training rows, by who answered.
        scores: Answers to the items, by the name of the model.
    """
    section = ReportSection(
        "Requests, tokens, dollars",
        "As the runs that made these rows counted them; recorded answers and models in this "
        "process cost no dollars.",
    )
    told = [("answers", *each) for each in answers.items()]
    told += [("scores", *each) for each in scores.items()]
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
