"""The page of judged responses: win rates, grades, the judges themselves, verdicts to read.

Also writes `results.json`, a row for each figure, and `verdicts.jsonl`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice

from spyhop.evaluate.judging import judge as judge_stage
from spyhop.evaluate.judging import read_questions, read_responses
from spyhop.evaluate.win_rates import ALL, KAPPA, SLOPE, UNDOUBTED, Figure, check_judge, figures
from spyhop.report.charts import spans
from spyhop.report.html import (
    ReportSection,
    percent,
    percent_interval,
    report_stage,
    section,
    short,
    write_page,
)
from spyhop.report.sections import cost_section, data_section
from spyhop.schema import Config, Verdict
from spyhop.stage import Context
from spyhop.store import Artifact, Artifacts

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
SECTIONS = ("win_rates", "grades", "judges", "parts")
"""Sections of figures, in order."""


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


@report_stage(version=2)
def judge_page(
    ctx: Context,
    config: JudgePageConfig,
    *,
    questions: Artifact,
    answers: Artifacts,
    verdicts: Artifacts,
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
    with (ctx.out / VERDICTS).open("w", encoding="utf-8") as file:
        file.writelines(f"{row.model_dump_json()}\n" for row in rows)
    groups: dict[str, list[Figure]] = {name: [] for name in SECTIONS}
    for each in found:
        of_models = "win_rates" if each.measure in RATES else "grades"
        is_part = each.part not in (ALL, UNDOUBTED) and not each.part.startswith("the other shown")
        is_of_judge = each.measure not in (*RATES, *GRADES)
        groups["judges" if is_of_judge else "parts" if is_part else of_models].append(each)
    sections = [_figures_section(name, some) for name, some in groups.items() if some]
    sections += [_published_section(config, found)] if config.published else []
    sections += [_verdicts_section(rows)] if any(row.reason for row in rows) else []
    given = {"questions": questions}
    sections += [
        cost_section(responses=answers, verdicts=verdicts),
        data_section(questions=given, answers=answers, verdicts=verdicts),
    ]
    lead = "\n".join([config.lead, *config.flags, *summary(found)])
    results = [each._asdict() for each in found]
    write_page(ctx.out, config.title, lead, sections, given, answers, verdicts, results=results)


def _verdicts(verdicts: Artifacts) -> list[Verdict]:
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


def summary(found: Sequence[Figure]) -> list[str]:
    """Return one sentence for each judge and pair of models, or graded model."""
    groups: dict[tuple[str, str], dict[str, Figure]] = defaultdict(dict)
    for f in found:
        if f.part == ALL and f.measure in SUMMED:
            groups[f.judge, _pair(f)][f.measure] = f
    sentences = []
    for (judge, pair), by_measure in groups.items():
        ordered = [by_measure[name] for name in SUMMED if name in by_measure]
        said = "; ".join(f"{each.measure} {_value(each)}" for each in ordered)
        whose = f"{judge}: {pair}".removesuffix(": ")
        sentences.append(f"{whose}, n = {ordered[0].num:,}: {said}.")
    more = len(sentences) - MOST_SENTENCES
    return [*sentences[:MOST_SENTENCES], *([f"{more} more are in the tables."] if more > 0 else [])]


def _pair(figure: Figure) -> str:
    return f"{figure.model} against {figure.against}" if figure.against else figure.model


def _is_share(figure: Figure) -> bool:
    return "kappa" not in figure.measure and figure.measure != SLOPE


def _value(figure: Figure) -> str:
    """Return value and interval, in percent where they are shares."""
    low, high = figure.low, figure.high
    if not _is_share(figure):
        return f"{figure.value:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")
    interval = "" if low is None or high is None else f" ({percent_interval(low, high)})"
    return f"{percent(figure.value)} %{interval}"


def _figures_section(name: str, found: Sequence[Figure]) -> ReportSection:
    made = section(name)
    for is_share, unit, scale in ((True, "%", 100), (False, "kappa", 1)):
        drawn = []
        for f in found:
            if f.low is not None and f.high is not None and _is_share(f) == is_share:
                row = [_pair(f), "" if f.part == ALL else f.part, f.measure]
                ends = {"value": scale * f.value, "low": scale * f.low, "high": scale * f.high}
                drawn.append({"row": ", ".join(filter(None, row)), "line": f.judge, **ends})
        if drawn:
            made.chart(spans(drawn, unit), "Values with their 95 % intervals.")
    return made.rows(
        {"judge": f.judge, "model": f.model, "against": f.against, "part": f.part,
         "measure": f.measure, "n": f.num, "value (95 % interval)": _value(f)}
        for f in found
    )  # fmt: skip


def _published_section(config: JudgePageConfig, found: Sequence[Figure]) -> ReportSection:
    known = {each.name: each for each in config.published}
    ours = {f.model: _value(f) for f in found if f.measure == "win rate" and f.part == ALL}
    published = {n: f"{each.win_rate:.2f} %" for n, each in known.items() if each.win_rate}
    rows = []
    for name, rate in {**published, **ours}.items():
        about = known.get(name, PublishedModel(name=name, group="of this run"))
        model = f"{name} (this run)" if name in ours else name
        row = {"group": about.group, "model": model, "labelled examples": about.labelled}
        rows.append({**row, "win rate": rate})
    rows.sort(key=lambda row: (row["group"], row["win rate"]), reverse=True)
    return section("models").rows(rows)


def _verdicts_section(rows: Sequence[Verdict]) -> ReportSection:
    made = section("verdicts", file=VERDICTS)
    for judge in dict.fromkeys(row.judge for row in rows):
        of_judge = (row for row in rows if row.judge == judge and row.reason)
        for row in islice(of_judge, NUM_SHOWN):
            said = row.missing or row.winner or f"{row.score:g}"
            title = f"{judge}, question {row.item_id}, {row.a} {row.b} {row.order}: {said}"
            made.details(title, short(row.reason))
    return made
