"""The report of an experiment with curation: who learned what, and what curation found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spyhop.lazy import alt
from spyhop.report.arm_figures import ALL, ArmPair, ArmRun, Experiment, read_measured
from spyhop.report.arms import (
    accuracy_section,
    comparison_section,
    examples_section,
    first_seed,
    said,
    write_figures,
)
from spyhop.report.curation_figures import (
    SCORES,
    Curated,
    CuratedSet,
    Kind,
    over_runs,
    over_seeds,
    read_curated,
)
from spyhop.report.html import (
    PALETTE,
    ReportSection,
    Table,
    percent,
    percent_interval,
    write_page,
)
from spyhop.report.sections import data_section, mask_section, samples_section, training_section
from spyhop.schema import Config
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.statistics import seed_interval, wilson
from spyhop.store import Artifact
from spyhop.world import SOLUTIONS

CURATION = "curation.json"


class CurationPageConfig(Config):
    """What the inputs are, and which arms are compared."""

    title: str
    runs: dict[str, ArmRun]
    """By the name of the scores."""
    curated: dict[str, CuratedSet]
    """By the name of documents, rated and kept pairs."""
    comparisons: tuple[ArmPair, ...]
    arm_titles: dict[str, str]
    """What the arms are called in the page."""
    limits: tuple[str, ...] = ()
    """What the page does not show."""


@stage(
    version=3, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=8)
)
def curation_page(
    ctx: Context,
    config: CurationPageConfig,
    *,
    scores: Mapping[str, Artifact],
    students: Mapping[str, Artifact],
    answers: Mapping[str, Artifact],
    documents: Mapping[str, Artifact],
    rated: Mapping[str, Artifact],
    kept: Mapping[str, Artifact],
) -> None:
    """Write `report.html`, `results.json`, `comparisons.json` and `curation.json`.

    Every sentence about a difference follows from its interval, whatever it is.
    """
    measured = read_measured(config.runs, scores, students)
    experiments = [
        Experiment(name, some, config.arm_titles, config.comparisons)
        for name, some in measured.items()
    ]
    found = [
        read_curated(config.curated[name], documents[name], rated[name], each)
        for name, each in kept.items()
    ]
    write_figures(ctx.out, experiments)
    (ctx.out / CURATION).write_text(json.dumps([_plain(each) for each in found], indent=1))
    sections: list[ReportSection] = []
    for experiment in experiments:
        mine = [each for each in found if each.where.setting == experiment.name]
        sections += _experiment_sections(experiment, mine)
    limits = ReportSection("What this does not show")
    for limit in config.limits:
        limits.text(limit)
    first = next(iter(kept))
    one = {"documents": documents[first], "rated": rated[first], "kept": kept[first]}
    sections += [
        limits,
        training_section(first_seed(config.runs, scores, students, config.arm_titles)),
        samples_section(answers),
        mask_section(next(iter(students.values()))),
        data_section(curation=one, answers=answers),
    ]
    lead = "\n".join(
        sentence for experiment in experiments for sentence in findings(experiment, found)
    )
    write_page(ctx.out, config.title, lead, sections, documents, rated, kept, students, scores)


def findings(experiment: Experiment, curated: Sequence[Curated]) -> list[str]:
    """Return what came out, in sentences: accuracies, every comparison, what curation found."""
    arms = [
        f"{experiment.title(arm)} {percent(experiment.cell(arm, ALL).interval.value)}"
        for arm in experiment.arms
    ]
    sentences = [
        f"{experiment.name}: accuracy in % over {len(experiment.seeds)} seed(s): "
        f"{', '.join(arms)}; guessing {percent(experiment.chance())}."
    ]
    sentences += [f"{_difference(experiment, pair)}." for pair in experiment.pairs]
    for number, some in _rounds(experiment, curated).items():
        precision = over_seeds([each.precision for each in some])
        base = over_seeds([each.base_rate for each in some])
        sentences.append(
            f"Of the documents kept in round {number}, {percent(precision.value)} % are correct "
            f"[{percent_interval(precision.low, precision.high)}]; of all, {percent(base.value)} %."
        )
    return sentences


def _difference(experiment: Experiment, pair: ArmPair) -> str:
    by_seed = [
        100 * (b.correct(ALL).mean() - a.correct(ALL).mean())
        for a, b in zip(experiment.of(pair.first), experiment.of(pair.second), strict=True)
    ]
    shown = ", ".join(f"{value:+.1f}" for value in by_seed)
    told = said(experiment, pair)
    return told[0].upper() + told[1:] + (f" (seed by seed: {shown})" if len(by_seed) > 1 else "")


def _rounds(experiment: Experiment, curated: Sequence[Curated]) -> dict[int, list[Curated]]:
    rounds: dict[int, list[Curated]] = {}
    for each in curated:
        if each.where.setting == experiment.name:
            rounds.setdefault(each.where.round, []).append(each)
    return rounds


def _experiment_sections(experiment: Experiment, curated: Sequence[Curated]) -> list[ReportSection]:
    rounds = _rounds(experiment, curated)
    return [
        accuracy_section(experiment),
        *([_seeds_section(experiment)] if len(experiment.seeds) > 1 else []),
        comparison_section(experiment),
        _found_section(experiment, rounds),
        _funnel_section(experiment, rounds),
        _documents_section(experiment, curated[0]),
        examples_section(experiment),
    ]


def _seeds_section(experiment: Experiment) -> ReportSection:
    section = ReportSection(
        f"{experiment.name}: seed by seed",
        "Two intervals for each mean: Student's over the seeds, which shows what another draw of "
        "data and order might give, and Wilson's over all answers pooled, which takes the seeds' "
        "answers for independent ones (they share their problems) and so is too narrow.",
    )
    rows = []
    for arm in experiment.arms:
        right = [each.correct(ALL) for each in experiment.of(arm)]
        over = seed_interval([float(each.mean()) for each in right])
        items = wilson(int(sum(each.sum() for each in right)), sum(len(each) for each in right))
        rows.append(
            [
                experiment.title(arm),
                *(percent(float(each.mean())) for each in right),
                percent(over.value),
                percent_interval(max(0.0, over.low), min(1.0, over.high)),
                percent_interval(items.low, items.high),
            ]
        )
    seeds = [f"seed {seed}" for seed in experiment.seeds]
    section.table(Table(["arm", *seeds, "mean %", "over seeds", "pooled"], rows))
    return section


def _found_section(experiment: Experiment, rounds: dict[int, list[Curated]]) -> ReportSection:
    section = ReportSection(
        f"{experiment.name}: what curation found",
        "A document counts as found if it is correct and kept. Precision: correct documents among "
        "the kept ones; recall: kept ones among the correct. The rating never sees which is which.",
    )
    rows = []
    for number, some in rounds.items():
        for name, values in (
            ("precision", [each.precision for each in some]),
            ("recall", [each.recall for each in some]),
            ("correct among all", [each.base_rate for each in some]),
        ):
            found = over_seeds(values)
            by_seed = ", ".join(percent(value) for value in values)
            interval = percent_interval(found.low, found.high) if len(values) > 1 else ""
            rows.append([number, name, percent(found.value), interval, by_seed])
    section.table(Table(["round", "", "%", "95 % over seeds", "seed by seed"], rows))
    section.chart(
        _scores_chart(over_runs(rounds[min(rounds)])),
        "Round 1: ratings by kind of document, all seeds. 5 is the likeliest fifth.",
    )
    return section


def _scores_chart(kinds: dict[str, Kind]) -> alt.TopLevelMixin:
    values = [
        {"kind": name, "rating": str(score), "documents": kind.scores[score]}
        for name, kind in kinds.items()
        for score in SCORES
    ]
    scale = alt.Scale(domain=list(kinds), range=list(PALETTE[: len(kinds)]))
    bars = alt.Chart(alt.Data(values=values)).mark_bar()
    chart: alt.Chart = bars.encode(
        x=alt.X("documents:Q", title="documents"),
        y=alt.Y("rating:N", sort=[str(score) for score in reversed(SCORES)]),
        color=alt.Color("kind:N", title=None, scale=scale),
        order=alt.Order("kind:N"),
    )
    return chart.properties(width=640, height=150)


def _funnel_section(experiment: Experiment, rounds: dict[int, list[Curated]]) -> ReportSection:
    section = ReportSection(
        f"{experiment.name}: from documents to training rows",
        "All seeds together. An instruction is recovered if the document answers it step for step, "
        "right or wrong; noise has no instruction to recover.",
    )
    rows = []
    by_round = {number: over_runs(some) for number, some in rounds.items()}
    for name, kind in by_round[min(by_round)].items():
        kept = [f"{kinds[name].kept:,}" for kinds in by_round.values()]
        shares = [percent(kinds[name].kept / max(1, kind.documents)) for kinds in by_round.values()]
        is_noise = name not in SOLUTIONS
        recovered = "" if is_noise else percent(kind.recovered / max(1, kind.written))
        rows.append([name, f"{kind.documents:,}", f"{kind.written:,}", recovered, *kept, *shares])
    kept = [f"kept in round {number}" for number in by_round]
    headings = ["kind", "documents", "with an instruction", "recovered %", *kept]
    section.table(Table([*headings, *(f"{name}, %" for name in kept)], rows))
    return section


def _documents_section(experiment: Experiment, curated: Curated) -> ReportSection:
    section = ReportSection(
        f"{experiment.name}: documents, the instructions written for them, and their ratings",
        "Of each kind the first that was kept and the first that was not, seed "
        f"{curated.where.seed}, round {curated.where.round}.",
    )
    for sample in curated.samples:
        rating = sample.pair.rating
        score = "no rating" if rating is None or rating.score is None else f"{rating.score:g}"
        value = "" if rating is None or rating.value is None else f" ({rating.value:.3f} a token)"
        turns = [
            {"role": "instruction written", "content": sample.pair.instruction},
            {"role": "document", "content": sample.pair.response},
        ]
        what = "kept" if sample.is_kept else "not kept"
        section.conversation(turns, f"{sample.kind}; rating {score}{value}; {what}")
    return section


def _plain(curated: Curated) -> dict[str, Any]:
    kinds = {
        name: {
            "documents": kind.documents,
            "written": kind.written,
            "recovered": kind.recovered,
            "kept": kind.kept,
            "scores": {str(score): kind.scores[score] for score in SCORES},
        }
        for name, kind in curated.kinds.items()
    }
    return {
        **curated.where.model_dump(),
        "precision": curated.precision,
        "recall": curated.recall,
        "base_rate": curated.base_rate,
        "kinds": kinds,
    }
