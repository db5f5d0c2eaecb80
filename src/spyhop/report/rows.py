"""The page of a task on rows of one's own: what came back, what was dropped, what it cost."""

from collections.abc import Iterable, Mapping
from itertools import islice

from spyhop.report.cost import cost_section
from spyhop.report.html import ReportSection, Table, percent, write_page
from spyhop.report.sections import data_section, samples_section
from spyhop.schema import Config, Finding, Pair
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact

NUM_PAIRS = 3
"""Pairs shown of each kind."""
NUM_DROPPED = 3
"""Dropped rows shown of each reason."""
SHOWN_CHARS = 1000
CHECKS = ("ending", "outcome", "right", "retried", "tell", "answers", "gold", "score", "missing")
"""Kinds of counts that describe the results of calls."""


class RowsPageConfig(Config):
    """Title of the page."""

    title: str


@stage(
    version=1, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=2)
)
def rows_page(
    ctx: Context,
    config: RowsPageConfig,
    *,
    answers: Mapping[str, Artifact] | None = None,
    pairs: Mapping[str, Artifact] | None = None,
    gate: Artifact | None = None,
) -> None:
    """Write `report.html` of answers, or of pairs with the findings of their gate."""
    made = {**(answers or {}), **(pairs or {})}
    sections = [cost_section(answers=answers or {}, pairs=pairs or {}), checks_section(made)]
    if gate is not None:
        sections.append(findings_section(gate.rows(Finding)))
    if answers:
        sections.append(samples_section(answers))
    if pairs:
        sections.append(_pairs_section(pairs))
    if any(each.record.dropped for each in made.values()):
        sections.append(_dropped_section(made))
    sections.append(data_section(rows=made))
    lead = ", ".join(f"{name}: {each.num_rows:,} rows" for name, each in made.items())
    write_page(ctx.out, config.title, lead, sections, made)


def checks_section(artifacts: Mapping[str, Artifact]) -> ReportSection:
    """How calls ended, and what checks of their replies found."""
    section = ReportSection("Outcomes", "How replies ended, and what the checks found.")
    rows = []
    for name, artifact in artifacts.items():
        for key, num in artifact.record.counts.items():
            kind, _, what = key.partition("/")
            if kind in CHECKS and what:
                share = percent(num / max(1, artifact.num_rows))
                rows.append([name, kind, what.replace("_", " "), f"{num:,}", share])
    section.table(Table(["rows", "check", "result", "number", "% of the rows"], rows))
    return section


def findings_section(findings: Iterable[Finding]) -> ReportSection:
    """The findings of a gate."""
    section = ReportSection("Gate", "Whether the ratings can be trusted.")
    rows = [
        [each.id.replace("_", " "), "passed" if each.is_passed else "FAILED", each.num_rows,
         each.text]
        for each in findings
    ]  # fmt: skip
    section.table(Table(["finding", "", "rows", "in words"], rows))
    return section


def _pairs_section(pairs: Mapping[str, Artifact]) -> ReportSection:
    section = ReportSection("Pairs", f"The first {NUM_PAIRS} of each kind.")
    for name, artifact in pairs.items():
        for row in islice(artifact.rows(Pair), NUM_PAIRS):
            score = "" if row.rating is None else f", score {row.rating.score}"
            turns = [
                {"role": "user", "content": _short(row.instruction)},
                {"role": "assistant", "content": _short(row.response)},
            ]
            section.conversation(turns, f"{name}, pair {row.id}{score}, {row.origin}")
    return section


def _dropped_section(artifacts: Mapping[str, Artifact]) -> ReportSection:
    section = ReportSection("Dropped rows", "Reasons with their numbers and first rows.")
    rows = []
    for name, artifact in artifacts.items():
        shown: dict[str, list[str]] = {}
        for reason, row in artifact.dropped():
            examples = shown.setdefault(reason, [])
            if len(examples) < NUM_DROPPED:
                examples.append(_short(row))
        for reason, num in artifact.record.dropped.items():
            rows.append([name, reason, f"{num:,}", "\n".join(shown.get(reason, []))])
    section.table(Table(["rows", "reason", "number", "examples"], rows))
    return section


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
