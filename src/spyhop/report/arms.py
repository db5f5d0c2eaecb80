"""The report of an experiment with arms: who learned what, how sure that is, from which rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spyhop.charts import draw_svg
from spyhop.evaluate import seal_state
from spyhop.lazy import alt
from spyhop.report.arm_figures import (
    ALL,
    NO_DIFFERENCE,
    ArmPair,
    ArmRun,
    Experiment,
    points,
    read_measured,
    verdict,
)
from spyhop.report.audit import AUDITS, audit_section, sentences
from spyhop.report.comparison import forest
from spyhop.report.html import (
    PALETTE,
    RESULTS,
    ReportSection,
    Table,
    percent,
    percent_interval,
    write_page,
)
from spyhop.report.sections import data_section, mask_section, samples_section, training_section
from spyhop.schema import Config, Score
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact

COMPARISONS = "comparisons.json"
NUM_EXAMPLES = 2


class ArmsConfig(Config):
    """What the scores artifacts measure, and which arms are compared."""

    title: str
    runs: dict[str, ArmRun]
    """By the name of the scores."""
    comparisons: tuple[ArmPair, ...]
    arm_titles: dict[str, str]
    """What the arms are called in the page."""
    caveats: tuple[str, ...] = ()
    """What a reader must know beside the figures."""


@stage(
    version=4, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=8)
)
def arms_page(
    ctx: Context,
    config: ArmsConfig,
    *,
    scores: Mapping[str, Artifact],
    students: Mapping[str, Artifact],
    answers: Mapping[str, Artifact],
    audits: Mapping[str, Artifact] | None = None,
    sealed: Mapping[str, Artifact] | None = None,
) -> None:
    """Write `report.html`, `results.json` and `comparisons.json` of an experiment with arms."""
    measured = read_measured(config.runs, scores, students)
    experiments = [
        Experiment(name, some, config.arm_titles, config.comparisons)
        for name, some in measured.items()
    ]
    write_figures(ctx.out, experiments)
    sections = []
    for experiment in experiments:
        sections.append(accuracy_section(experiment))
        sections.append(comparison_section(experiment))
        if declared := (sealed or {}).get(experiment.name):
            sections[-1].text(f"{_sealed(experiment, scores, config, declared)}.")
        if experiment.curve:
            sections.append(_curve_section(experiment))
        sections.append(examples_section(experiment))
    if audits:
        sections.append(audit_section(audits))
        (ctx.out / AUDITS).write_text(json.dumps(sentences(audits), indent=1), encoding="utf-8")
    finals = first_seed(config.runs, scores, students, config.arm_titles)
    sections += [
        training_section(finals),
        samples_section(answers),
        mask_section(next(iter(students.values()))),
        data_section(answers=answers, students={name: each[-1] for name, each in finals.items()}),
    ]
    notes = ReportSection("How to read this")
    for caveat in config.caveats:
        notes.text(caveat)
    sections.insert(1, notes)
    lead = "\n".join(_headline(experiment) for experiment in experiments)
    write_page(ctx.out, config.title, lead, sections, answers, students, scores)


def first_seed(
    runs: Mapping[str, ArmRun],
    scores: Mapping[str, Artifact],
    students: Mapping[str, Artifact],
    titles: Mapping[str, str],
) -> dict[str, list[Artifact]]:
    """Return the training phases of the first seed's students, by setting and arm."""
    found = [runs[name] for name in scores]
    return {
        f"{run.setting} {titles[run.arm]}": [students[phase] for phase in run.phases]
        for run in found
        if run.seed == found[0].seed and run.phases
    }


def write_figures(folder: Path, experiments: Sequence[Experiment]) -> None:
    """Write `results.json`, `comparisons.json`, and the accuracies of each experiment as SVG."""
    (folder / RESULTS).write_text(json.dumps(_results(experiments), indent=1))
    (folder / COMPARISONS).write_text(json.dumps(_comparisons(experiments), indent=1))
    for experiment in experiments:
        if svg := draw_svg(_accuracy_chart(experiment).to_dict()):
            (folder / f"accuracy-{experiment.name}.svg").write_text(svg, encoding="utf-8")


def _headline(experiment: Experiment) -> str:
    """Say in two sentences what came out: accuracies, and the first difference."""
    title = experiment.title
    arms = [
        f"{title(arm)} {percent(experiment.cell(arm, ALL).interval.value)}"
        for arm in experiment.arms
    ]
    said = f"{experiment.name}, accuracy in %: {', '.join(arms)}; "
    said += f"guessing {percent(experiment.chance())}."
    for pair in experiment.pairs[:1]:
        found = experiment.difference(pair).difference
        said += f" {title(pair.second)} against {title(pair.first)}: {points(found)} points"
        said += f" ({verdict(found)})."
    return said


def accuracy_section(experiment: Experiment) -> ReportSection:
    """Every arm's accuracy with its interval, over all families and in each."""
    families = experiment.families
    section = ReportSection(
        f"{experiment.name}: accuracy of each arm",
        f"{experiment.num_items} held-out problems of {len(families)} families, answered greedily; "
        f"{len(experiment.seeds)} seed(s). Guessing gives {percent(experiment.chance())} %.",
    )
    for arm in experiment.arms:
        if near := experiment.not_above_guessing(arm):
            section.text(f"{experiment.title(arm)}: not above guessing in {', '.join(near)}.")
    section.chart(_accuracy_chart(experiment), "Accuracy with 95 % interval; dashed: guessing.")
    rows = []
    for arm in experiment.arms:
        cell = experiment.cell(arm, ALL)
        by_family = [percent(experiment.cell(arm, family).interval.value) for family in families]
        rows.append(
            [
                experiment.title(arm),
                cell.n,
                *(f"{value:.3g}" for value in experiment.responses(arm)),
                percent(cell.interval.value),
                percent_interval(cell.interval.low, cell.interval.high),
                *by_family,
                f"{cell.tokens:,}",
                f"{cell.seconds:.0f}",
            ]
        )
    guess = [percent(experiment.chance(family)) for family in families]
    rows.append(["guessing", "", "", "", "", percent(experiment.chance()), "", *guess, "", ""])
    headings = [
        "arm",
        "n",
        "answered %",
        "ended %",
        "mean tokens",
        "accuracy %",
        "95 % interval",
        *families,
        "tokens",
        "seconds",
    ]
    section.table(Table(headings, rows))
    return section


def _sealed(
    experiment: Experiment, scores: Mapping[str, Artifact], config: ArmsConfig, declared: Artifact
) -> str:
    """Say whether the comparison is confirmatory, by the first seed's scores."""
    first = {
        run.arm: scores[name]
        for name, run in config.runs.items()
        if (run.setting, run.seed, run.share) == (experiment.name, experiment.seeds[0], 1.0)
    }
    text = seal_state(first, declared).text
    return f"{text[:1].upper()}{text[1:]}"


def comparison_section(experiment: Experiment) -> ReportSection:
    """Every difference with its interval, over all families and in each."""
    section = ReportSection(
        f"{experiment.name}: what makes the difference",
        "Differences in percentage points, second minus first, on the same items"
        + (" and seeds" if len(experiment.seeds) > 1 else "")
        + ", with 95 % intervals. An interval that holds 0 shows no difference. p: "
        + ("the paired t-test over seeds." if len(experiment.seeds) > 1 else "McNemar's test."),
    )
    rows = []
    for pair in experiment.pairs:
        found = experiment.difference(pair)
        whole = found.difference
        by_family = {
            family: experiment.difference(pair, family).difference for family in experiment.families
        }
        names = [experiment.title(pair.second), experiment.title(pair.first)]
        p_value = "" if whole.low == whole.high else _p_text(found.p_value)
        shown = [points(interval) for interval in by_family.values()]
        rows.append([*names, points(whole), p_value, verdict(whole), *shown])
        absent = [name for name, each in by_family.items() if verdict(each) == NO_DIFFERENCE]
        if absent and verdict(whole) != NO_DIFFERENCE:
            section.text(f"{' against '.join(names)}: no difference shown in {', '.join(absent)}.")
    headings = ["second", "first", "difference", "p", "so second is", *experiment.families]
    section.table(Table(headings, rows))
    return section


def said(experiment: Experiment, pair: ArmPair) -> str:
    """Say what a comparison shows, whatever it is: better, worse, or no difference."""
    found = experiment.difference(pair).difference
    first, second = experiment.title(pair.first), experiment.title(pair.second)
    told = points(found)
    if verdict(found) == NO_DIFFERENCE:
        return f'no difference shown between "{second}" and "{first}": {told} points'
    return f'"{second}" is {verdict(found)} than "{first}" by {told} points'


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _curve_section(experiment: Experiment) -> ReportSection:
    section = ReportSection(f"{experiment.name}: learning curves")
    values = [
        {
            "tokens": each.tokens,
            "accuracy": 100 * float(each.correct(ALL).mean()),
            "arm": experiment.title(each.run.arm),
            "seed": each.run.seed,
        }
        for each in experiment.curve
    ]
    base = alt.Chart(alt.Data(values=values))
    chart = base.mark_line(point=True).encode(
        x=alt.X("tokens:Q", title="tokens seen"),
        y=alt.Y("accuracy:Q", title="accuracy %", scale=alt.Scale(domain=[0, 100])),
        color=alt.Color("arm:N", title=None, scale=alt.Scale(range=list(PALETTE))),
        detail="seed:N",
    )
    section.chart(chart.properties(width=720, height=260), "Held-out accuracy, a line per seed.")
    return section


def examples_section(experiment: Experiment) -> ReportSection:
    """Questions that the arms answer differently."""
    section = ReportSection(
        f"{experiment.name}: the same question, every arm",
        "Test problems that the arms answer differently, as the students of the first seed wrote.",
    )
    answers: dict[str, list[tuple[str, Score]]] = {}
    for arm in experiment.arms:
        for score in experiment.of(arm)[0].scores:
            answers.setdefault(score.id, []).append((arm, score))
    spread = sorted(
        answers.values(), key=lambda some: abs(2 * sum(s.correct for _, s in some) - len(some))
    )
    for some in spread[:NUM_EXAMPLES]:
        rows = [
            [experiment.title(arm), "right" if score.correct else "wrong", score.response]
            for arm, score in some
        ]
        target = some[0][1].target
        caption = f"family {some[0][1].task}, item {some[0][1].id}, gold answer: {target}"
        section.table(Table(["arm", "", "response"], rows, caption))
    return section


def _accuracy_chart(experiment: Experiment) -> alt.TopLevelMixin:
    rows = [
        (experiment.title(arm), 100 * found.value, 100 * found.low, 100 * found.high)
        for arm in experiment.arms
        for found in (experiment.cell(arm, ALL).interval,)
    ]
    return forest(rows, "accuracy %", 100 * experiment.chance(), [0, 100])


def _results(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    return [
        {
            "setting": experiment.name,
            "arm": cell.run.arm,
            "family": cell.family,
            "seed": cell.seed,
            "n": cell.n,
            "accuracy": cell.interval.value,
            "low": cell.interval.low,
            "high": cell.interval.high,
            "chance": experiment.chance(cell.family),
            "tokens": cell.tokens,
            "seconds": round(cell.seconds, 1),
        }
        for experiment in experiments
        for cell in experiment.cells()
    ]


def _comparisons(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    rows = []
    for experiment in experiments:
        for pair in experiment.pairs:
            for family in (ALL, *experiment.families):
                found = experiment.difference(pair, family)
                rows.append(
                    {
                        "setting": experiment.name,
                        "first": pair.first,
                        "second": pair.second,
                        "family": family,
                        "difference": found.difference.value,
                        "low": found.difference.low,
                        "high": found.difference.high,
                        "p_value": found.p_value,
                    }
                )
    return rows
