"""The page of judged responses: win rates, grades, the judges themselves, verdicts to read.

Also writes `results.json`, a row for each figure, and `verdicts.jsonl`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from markupsafe import Markup

from spyhop.evaluate.judging import judge as judge_stage
from spyhop.evaluate.judging import read_questions, read_responses
from spyhop.evaluate.win_rates import ALL, KAPPA, SLOPE, UNDOUBTED, Figure, check_judge, figures
from spyhop.report.charts import spans
from spyhop.report.html import RESULTS, ReportSection, percent, percent_interval, write_page
from spyhop.report.sections import cost_section, data_section
from spyhop.schema import Config, Verdict
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact

VERDICTS = "verdicts.jsonl"
NUM_SHOWN = 4
"""Verdicts shown of each judge."""
RATES = ("win rate", "length-controlled win rate", "style-controlled win rate", "Bradley-Terry")
GRADES = ("share of the other's grades", "mean grade / 10")
SUMMED = (
    *RATES[:3], *GRADES, KAPPA, "missing verdicts", "flips", "position bias", "length bias",
    "self-preference",
)  # fmt: skip
MOST_SENTENCES = 12
SECTIONS = {
    "Win rates": "Share of questions on which the judge prefers the model, ties counted half. At "
    "equal length and equal style (length, headers, lists, bold) it is what a regression expects. "
    "Intervals are over questions and include the judge's own variance.",
    "Grades": "The model's grades in total as a share of the other model's, or their mean.",
    "The judges": "Verdicts that could not be read are missing: they count for no model. Flips are "
    "questions on which the two orders disagree. The response shown first gets half of the points "
    "from a judge without position bias.",
    "By topic and turn": "The same for each part of the questions.",
}


class PublishedModel(Config):
    """A published win rate, or the kind of a model of your own."""

    name: str
    group: str
    """Kind of training data: `non-distilled`, `distilled` or `proprietary`."""
    labelled: int | None = None
    """Number of labelled examples."""
    win_rate: float | None = None
    """In percent, as published."""


class JudgePageConfig(Config):
    """Title of the page, and what it says besides the figures."""

    title: str
    lead: str
    doubted: tuple[str, ...] = ()
    """Ids of questions without which rates are reported, too."""
    flags: tuple[str, ...] = ()
    """Reasons not to believe a judge."""
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
    rows, found = _verdicts(verdicts), list[Figure]()
    if labels is None:
        found = figures(rows, responses, config.doubted)
    else:
        texts = {each.id: each.turns[0] for each in read_questions(questions)}
        people = list(labels.rows(Verdict))
        for name in dict.fromkeys(row.judge for row in rows):
            found += check_judge([r for r in rows if r.judge == name], people, responses, texts)
    (ctx.out / RESULTS).write_text(json.dumps([each._asdict() for each in found], indent=1))
    with (ctx.out / VERDICTS).open("w", encoding="utf-8") as file:
        file.writelines(f"{row.model_dump_json()}\n" for row in rows)
    parts: dict[str, list[Figure]] = {title: [] for title in SECTIONS}
    for figure in found:
        parts[_title(figure)].append(figure)
    sections = [
        *(_section(title, some) for title, some in parts.items() if some),
        *([_published_section(config, found)] if config.published else []),
        *([_verdicts_section(rows)] if any(row.reason for row in rows) else []),
        cost_section(responses=answers, verdicts=verdicts),
        data_section(questions={"questions": questions}, answers=answers, verdicts=verdicts),
    ]
    lead = "\n".join([config.lead, *config.flags, *summary(found)])
    write_page(ctx.out, config.title, lead, sections, {"questions": questions}, answers, verdicts)


def _verdicts(verdicts: Mapping[str, Artifact]) -> list[Verdict]:
    """Return all verdicts; judges of one name, or one judge in two forms, take the inputs' names.

    Files of verdicts may share a judge: its verdicts on several models.
    """
    by_input = {name: list(each.rows(Verdict)) for name, each in verdicts.items()}
    asked = [name for name, each in verdicts.items() if each.record.stage == judge_stage.name]
    labels = {name: by_input[name][0].judge for name in asked if by_input[name]}
    shared = {label for label, num in Counter(labels.values()).items() if num > 1}
    return [
        row.model_copy(update={"judge": name}) if labels.get(name) in shared else row
        for name, rows in by_input.items()
        for row in rows
    ]


def _title(figure: Figure) -> str:
    """Return the section of a figure."""
    if figure.measure not in (*RATES, *GRADES):
        return "The judges"
    is_order = figure.part.startswith("the other shown")
    if figure.part not in (ALL, UNDOUBTED) and not is_order:
        return "By topic and turn"
    return "Win rates" if figure.measure in RATES else "Grades"


def summary(found: Sequence[Figure]) -> list[str]:
    """Return one sentence for each judge and pair of models, or graded model."""
    groups: dict[tuple[str, str, str], dict[str, Figure]] = {}
    for f in found:
        if f.part == ALL and f.measure in SUMMED:
            groups.setdefault((f.judge, f.model, f.against), {})[f.measure] = f
    sentences = []
    for (judge, _, _), by_measure in groups.items():
        said = [f"{name} {_value(by_measure[name])}" for name in SUMMED if name in by_measure]
        first = next(by_measure[name] for name in SUMMED if name in by_measure)
        whose = f"{judge}: {_pair(first)}".removesuffix(": ")
        sentences.append(f"{whose}, n = {first.num:,}: {'; '.join(said)}.")
    more = len(sentences) - MOST_SENTENCES
    return [*sentences[:MOST_SENTENCES], *([f"{more} more are in the tables."] if more > 0 else [])]


def _pair(figure: Figure) -> str:
    return f"{figure.model} against {figure.against}" if figure.against else figure.model


def _is_share(figure: Figure) -> bool:
    return "kappa" not in figure.measure and figure.measure != SLOPE


def _value(figure: Figure) -> str:
    """Return value and interval, in percent where they are shares."""
    if not _is_share(figure):
        ends = "" if figure.low is None else f" ({figure.low:.2f} to {figure.high:.2f})"
        return f"{figure.value:.2f}{ends}"
    if figure.low is None or figure.high is None:
        return f"{percent(figure.value)} %"
    return f"{percent(figure.value)} % ({percent_interval(figure.low, figure.high)})"


def _section(title: str, found: Sequence[Figure]) -> ReportSection:
    section = ReportSection(title, SECTIONS[title])
    for is_share, unit in ((True, "%"), (False, "kappa")):
        drawn = [
            {
                "row": ", ".join(
                    filter(None, [_pair(f), "" if f.part == ALL else f.part, f.measure])
                ),
                "line": f.judge,
                **{
                    name: (100 if is_share else 1) * (getattr(f, name) or 0.0)
                    for name in ("value", "low", "high")
                },
            }
            for f in found
            if f.low is not None and _is_share(f) == is_share
        ]
        if drawn:
            section.chart(spans(drawn, unit), "Values with their 95 % intervals.")
    section.rows(
        {"judge": f.judge, "model": f.model, "against": f.against, "part": f.part,
         "measure": f.measure, "n": f.num, "value (95 % interval)": _value(f)}
        for f in found
    )  # fmt: skip
    return section


def _published_section(config: JudgePageConfig, found: Sequence[Figure]) -> ReportSection:
    section = ReportSection(
        "Beside published models",
        "By the kind of their training data. Published rates have other judges and no interval.",
    )
    known = {each.name: each for each in config.published}
    ours = {f.model: _value(f) for f in found if f.measure == "win rate" and f.part == ALL}
    published = {n: f"{each.win_rate:.2f} %" for n, each in known.items() if each.win_rate}
    rows = []
    for name, rate in {**published, **ours}.items():
        about = known.get(name, PublishedModel(name=name, group="of this run"))
        model = f"{name} (this run)" if name in ours else name
        rows.append({
            "group": about.group, "model": model, "labelled examples": about.labelled,
            "win rate": rate,
        })  # fmt: skip
    section.rows(sorted(rows, key=lambda row: (row["group"], row["win rate"]), reverse=True))
    return section


def _verdicts_section(rows: Sequence[Verdict]) -> ReportSection:
    section = ReportSection("Verdicts", f"Some of each judge; {VERDICTS} has all of them.")
    details = Markup("<details><summary>{}</summary><pre>{}</pre></details>")
    for judge in dict.fromkeys(row.judge for row in rows):
        of_judge = (row for row in rows if row.judge == judge and row.reason)
        for row in islice(of_judge, NUM_SHOWN):
            said = row.missing or row.winner or f"{row.score:g}"
            title = f"{judge}, question {row.item_id}, {row.a} {row.b} {row.order}: {said}"
            section.blocks.append(details.format(title, row.reason[:2000]))
    return section
