"""The page of judged responses: win rates, grades, the judge's own measures, and verdicts to read.

Also writes `results.json`, a row for each figure, and `verdicts.jsonl`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby, islice
from typing import TYPE_CHECKING

from markupsafe import Markup

from spyhop.evaluate.judging import judge as judge_stage
from spyhop.evaluate.judging import read_questions, read_responses
from spyhop.evaluate.win_rates import ALL, UNDOUBTED, Figure, check_judge, figures
from spyhop.lazy import Lazy
from spyhop.report.cost import cost_section
from spyhop.report.html import (
    PALETTE,
    RESULTS,
    ReportSection,
    Table,
    percent,
    percent_interval,
    write_page,
)
from spyhop.report.sections import data_section
from spyhop.schema import Config, Verdict
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact

if TYPE_CHECKING:
    import altair as alt
else:
    alt = Lazy("altair")

VERDICTS = "verdicts.jsonl"
NUM_SHOWN = 4
"""Verdicts shown of each judge."""
RATES = ("win rate", "length-controlled win rate", "style-controlled win rate", "Bradley-Terry")
GRADES = ("share of the other's grades", "mean grade / 10")
JUDGES_OWN = (
    "missing verdicts", "flips", "points of the response shown first", "position bias",
    "length bias", "self-preference", "win rate, the same questions judged again",
    "log-odds per standard deviation", "agreement with people (kappa)",
    "people among themselves (kappa)",
)  # fmt: skip
PLAIN = ("kappa", "log-odds")
"""Measures that are no shares."""


class PublishedModel(Config):
    """A published win rate, with the kind of the model's training data."""

    name: str
    group: str
    """`non-distilled`, `distilled` or `proprietary`."""
    labelled: int | None = None
    """Number of labelled examples; unknown for proprietary models."""
    win_rate: float | None = None
    """In percent; a model of this run has its own."""


class JudgePageConfig(Config):
    """Title of the page, and what it says besides the figures."""

    title: str
    lead: str
    doubted: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    """What speaks against believing a judge."""
    published: tuple[PublishedModel, ...] = ()
    """Rows to compare with."""


@stage(
    version=1, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=5)
)
def judge_page(
    ctx: Context,
    config: JudgePageConfig,
    *,
    questions: Artifact,
    answers: Mapping[str, Artifact],
    verdicts: Mapping[str, Artifact],
    labels: Artifact | None = None,
) -> None:
    """Write `report.html`, `results.json` and `verdicts.jsonl`; with human labels, check judges."""
    responses = {name: read_responses(each) for name, each in answers.items()}
    rows = _verdicts(verdicts)
    if labels is None:
        found = figures(rows, responses, config.doubted)
    else:
        texts = {each.id: each.turns[0] for each in read_questions(questions)}
        people = list(labels.rows(Verdict))
        found = [
            figure
            for name in dict.fromkeys(row.judge for row in rows)
            for figure in check_judge(
                [r for r in rows if r.judge == name], people, responses, texts
            )
        ]
    (ctx.out / RESULTS).write_text(json.dumps([asdict(each) for each in found], indent=1))
    with (ctx.out / VERDICTS).open("w", encoding="utf-8") as file:
        file.writelines(f"{row.model_dump_json()}\n" for row in rows)
    sections = [
        _section(
            "Win rates", RATES_LEAD, [f for f in found if f.measure in RATES and _is_whole(f)]
        ),
        _section(
            "Grades", GRADES_LEAD, [f for f in found if f.measure in GRADES and not _is_topic(f)]
        ),
        _section(
            "The judge",
            JUDGE_LEAD,
            [f for f in found if f.measure in JUDGES_OWN and not _is_topic(f)],
        ),
        _section(
            "By topic and turn",
            "",
            [f for f in found if f.measure in (*RATES, *GRADES) and _is_topic(f)],
        ),
        *([_published_section(config, found)] if config.published else []),
        _verdicts_section(rows),
        cost_section(responses=answers, verdicts=verdicts),
        data_section(questions={"questions": questions}, answers=answers, verdicts=verdicts),
    ]
    lead = "\n".join([config.lead, *config.flags, *summary(found)])
    shown = [section for section in sections if section.blocks]
    write_page(ctx.out, config.title, lead, shown, {"questions": questions}, answers, verdicts)


def _verdicts(verdicts: Mapping[str, Artifact]) -> list[Verdict]:
    """Return all verdicts; judges of one name (or one judge in two forms) take their inputs' names.

    Files of verdicts may share a judge: its verdicts on several models.
    """
    by_input = {name: list(each.rows(Verdict)) for name, each in verdicts.items()}
    asked = {n: rows[0].judge for n, rows in by_input.items() if rows and _is_asked(verdicts[n])}
    shared = {judge for judge, num in Counter(asked.values()).items() if num > 1}
    return [
        row.model_copy(update={"judge": name}) if asked.get(name) in shared else row
        for name, rows in by_input.items()
        for row in rows
    ]


def _is_asked(verdicts: Artifact) -> bool:
    return verdicts.record.stage == judge_stage.name


RATES_LEAD = (
    "Share of questions on which the judge prefers the model, ties counted half. At equal length "
    "and at equal style (length, headers, lists, bold) the rates are what a regression expects. "
    "Bars: 95 % intervals over questions, which include the judge's own variance."
)
GRADES_LEAD = "The model's grades in total, as a share of the other model's, or their mean."
JUDGE_LEAD = (
    "What a judge can be believed: verdicts that could not be read count for nobody; flips are "
    "questions on which the two orders disagree; without position bias the response shown first "
    "gets half of the points."
)


def summary(found: Sequence[Figure]) -> list[str]:
    """Return one sentence for each judge and pair of models, or graded model."""
    sentences = []
    for (judge, model, against), some in groupby(found, lambda f: (f.judge, f.model, f.against)):
        by_measure = {f.measure: f for f in reversed(list(some)) if f.part == ALL}
        parts = [
            f"{measure} {_value(by_measure[measure])}"
            for measure in (*RATES[:3], *GRADES, JUDGES_OWN[8], *JUDGES_OWN[:2], *JUDGES_OWN[3:6])
            if measure in by_measure
        ]
        if parts:
            pair = f"{model} against {against}" if against else model
            num = max(f.num for f in by_measure.values() if f.measure != "missing verdicts")
            sentences.append(f"{judge}: {pair}, n = {num:,}: {'; '.join(parts)}.")
    return sentences


def _value(figure: Figure) -> str:
    """Return value and interval, in percent where they are shares."""
    if any(word in figure.measure for word in PLAIN):
        ends = "" if figure.low is None else f" ({figure.low:.2f} to {figure.high:.2f})"
        return f"{figure.value:.2f}{ends}"
    if figure.low is None or figure.high is None:
        return f"{percent(figure.value)} %"
    return f"{percent(figure.value)} % ({percent_interval(figure.low, figure.high)})"


def _is_whole(figure: Figure) -> bool:
    return figure.part in (ALL, UNDOUBTED)


def _is_topic(figure: Figure) -> bool:
    is_order = figure.part.startswith("the other shown")
    return not _is_whole(figure) and not is_order and figure.measure in (*RATES, *GRADES)


def _section(title: str, lead: str, found: Sequence[Figure]) -> ReportSection:
    section = ReportSection(title, lead)
    if not found:
        return section
    drawn = [f for f in found if f.low is not None and not any(word in f.measure for word in PLAIN)]
    if drawn:
        section.chart(_chart(drawn), "Value with its 95 % interval.")
    rows = [
        [f.judge, f.model, f.against, f.part, f.measure, f"{f.num:,}", _value(f)] for f in found
    ]
    headings = ["judge", "model", "against", "questions", "measure", "n", "value, 95 % interval"]
    section.table(Table(headings, rows))
    return section


def _chart(found: Sequence[Figure]) -> alt.TopLevelMixin:
    values = [
        {
            "row": ", ".join(filter(None, (f.model, "" if f.part == ALL else f.part, f.measure))),
            "judge": f.judge,
            "value": 100 * f.value,
            "low": 100 * (f.low or 0.0),
            "high": 100 * (f.high or 0.0),
        }
        for f in found
    ]
    base = alt.Chart(alt.Data(values=values))
    y = alt.Y("row:N", title=None, sort=None, axis=alt.Axis(labelLimit=340))
    offset = alt.YOffset("judge:N")
    color = alt.Color("judge:N", title=None, scale=alt.Scale(range=list(PALETTE)))
    x = alt.X("low:Q", title="%")
    rules = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q", y=y, yOffset=offset, color=color)
    dots = base.mark_circle(size=40, opacity=1).encode(
        x="value:Q", y=y, yOffset=offset, color=color
    )
    return alt.layer(rules, dots).properties(width=420)


def _published_section(config: JudgePageConfig, found: Sequence[Figure]) -> ReportSection:
    """Published win rates and those of this run, by the kind of their training data."""
    section = ReportSection(
        "Beside published models",
        "Published rates have another judge and no interval: compare orders of magnitude only.",
    )
    ours = {f.model: f for f in found if f.measure == "win rate" and f.part == ALL}
    known = {each.name: each for each in config.published}
    lines = [
        (each.group, each.labelled, name, f"{each.win_rate:.2f} %")
        for name, each in known.items() if each.win_rate is not None and name not in ours
    ]  # fmt: skip
    for name, figure in ours.items():
        group = known[name].group if name in known else "of unknown kind"
        labelled = known[name].labelled if name in known else None
        lines.append((group, labelled, f"{name} (this run)", _value(figure)))
    rows = [
        [group, name, "" if labelled is None else f"{labelled:,}", rate]
        for group, labelled, name, rate in sorted(lines, key=lambda line: (line[0], line[3]))
    ]
    section.table(Table(["models", "model", "labelled examples", "win rate"], rows))
    return section


def _verdicts_section(rows: Sequence[Verdict]) -> ReportSection:
    section = ReportSection("Verdicts", "Some of each judge; `verdicts.jsonl` has all of them.")
    details = Markup("<details><summary>{}</summary><pre>{}</pre></details>")
    for judge in dict.fromkeys(row.judge for row in rows):
        of_judge = (row for row in rows if row.judge == judge and row.reason)
        for row in islice(of_judge, NUM_SHOWN):
            said = row.missing or row.winner or f"{row.score:g}"
            title = f"{judge}, question {row.item_id}, {row.a} {row.b} {row.order}: {said}"
            section.blocks.append(details.format(title, row.reason[:2000]))
    return section
