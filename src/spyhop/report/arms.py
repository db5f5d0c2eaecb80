"""The report of an experiment with arms: who learned what, how sure that is, from which rows."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from rich.table import Table as TerminalTable

from spyhop.charts import draw_svg
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
from spyhop.report.charts import Spec, curves, span, spans
from spyhop.report.costs import CostedStudent, mean_student, point_cost_section, teacher_cost
from spyhop.report.curation import (
    CuratedSet,
    curation_sections,
    curation_sentences,
    read_curated,
)
from spyhop.report.data_figures import rounds_section
from spyhop.report.evaluation import seal_sentence
from spyhop.report.html import (
    ReportSection,
    percent,
    percent_interval,
    report_stage,
    section,
    write_page,
)
from spyhop.report.sections import (
    audit_section,
    data_section,
    mask_section,
    rows_section,
    sentences,
    training_section,
)
from spyhop.schema import Config, Score
from spyhop.stage import Context
from spyhop.statistics import Interval, seed_interval, wilson
from spyhop.store import Artifacts

COMPARISONS, CURATION = "comparisons.json", "curation.json"
NUM_EXAMPLES = 2
OUTPUT_PRICE = 4.0
"""Price of a written token in those of a read one, as usual for models behind an API."""
LIGHT = '<svg style="background:#fff;color:#1c2b33" '
"""Beginning of a chart that no page surrounds."""


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
    curated: dict[str, CuratedSet] = Field(default_factory=dict)
    """By the name of documents, rated and kept pairs."""


@report_stage(version=7)
def arms_page(
    ctx: Context,
    config: ArmsConfig,
    *,
    scores: Artifacts,
    students: Artifacts,
    answers: Artifacts,
    audits: Artifacts | None = None,
    documents: Artifacts | None = None,
    rated: Artifacts | None = None,
    kept: Artifacts | None = None,
    sealed: Artifacts | None = None,
    picked: Artifacts | None = None,
    rounds: Artifacts | None = None,
    promotions: Artifacts | None = None,
) -> None:
    """Write `report.html`, `results.json` and `comparisons.json` of an experiment with arms.

    With documents, rated and kept pairs also `curation.json`. Every sentence about a difference
    follows from its interval, whatever it is.
    """
    documents, rated, kept, sealed = documents or {}, rated or {}, kept or {}, sealed or {}
    experiments = [
        Experiment(name, some, config.arm_titles, config.comparisons)
        for name, some in read_measured(config.runs, scores, students).items()
    ]
    curated = [
        read_curated(config.curated[name], documents[name], rated[name], each)
        for name, each in kept.items()
    ]
    sections, lead = [section("notes").text(*config.caveats)], list[str]()
    for experiment in experiments:
        mine = [each for each in curated if each.where.setting == experiment.name]
        compared = _comparison_section(experiment)
        if declared := sealed.get(experiment.name):
            first = {
                run.arm: scores[name]
                for name, run in config.runs.items()
                if (run.setting, run.seed, run.share) == (experiment.name, experiment.seeds[0], 1.0)
            }
            compared.text(seal_sentence(first, declared))
        lead += [*_findings(experiment), *curation_sentences(mine)]
        sections += [
            _accuracy_section(experiment),
            *([_seeds_section(experiment)] if len(experiment.seeds) > 1 else []),
            compared,
            *([_curves_section(experiment)] if experiment.curve else []),
            *(curation_sections(experiment.name, mine) if mine else []),
            _examples_section(experiment),
            *_costs_section(ctx.root, experiment, students),
        ]
        if picked and any(config.runs[name].setting == experiment.name for name in picked):
            sections.append(_picking_section(experiment, config.runs, picked))
        if svg := draw_svg(_accuracy_chart(experiment)):
            svg = svg.replace("<svg ", LIGHT, 1)
            (ctx.out / f"accuracy-{experiment.name}.svg").write_text(svg, encoding="utf-8")
    sections[:2] = [sections[1], sections[0]]
    runs = [config.runs[name] for name in scores]
    finals = {
        f"{run.setting} {config.arm_titles[run.arm]}": [students[phase] for phase in run.phases]
        for run in runs
        if run.seed == runs[0].seed and run.phases
    }
    groups = {"documents": documents, "rated": rated, "kept": kept}
    one = {kind: next(iter(group.values())) for kind, group in groups.items() if group}
    last = {name: each[-1] for name, each in finals.items()}
    if rounds and promotions:
        sections.append(_rounds_section(config.runs, rounds, promotions, scores))
    sections += [
        *([audit_section(audits)] if audits else []),
        training_section(finals),
        rows_section(answers),
        mask_section(next(iter(students.values()))),
        data_section(answers=answers, curation=one, students=last),
    ]
    figures: dict[str, object] = {
        "results": [each for experiment in experiments for each in experiment.results()],
        "comparisons": [each for experiment in experiments for each in _comparisons(experiment)],
    }
    figures |= {"curation": [each.plain() for each in curated]} if curated else {}
    figures |= {"audits": sentences(audits)} if audits else {}
    inputs = (answers, documents, rated, kept, students, scores)
    write_page(ctx.out, config.title, "\n".join(lead), sections, *inputs, **figures)


def _rounds_section(
    runs: Mapping[str, ArmRun], rounds: Artifacts, promotions: Artifacts, scores: Artifacts
) -> ReportSection:
    ends = {"failures": "", "at-random": "-random"}
    found = {
        f"{run.setting}.{run.seed}{ends[run.arm]}": scores[name]
        for name, run in runs.items()
        if run.arm in ends
    }
    return rounds_section(rounds, promotions, found)


def _curves_section(experiment: Experiment) -> ReportSection:
    values = [
        {"x": each.tokens, "y": 100 * float(each.correct(ALL).mean()),
         "line": experiment.title(each.run.arm), "seed": each.run.seed}
        for each in experiment.curve
    ]  # fmt: skip
    chart = curves(values, "tokens seen", "accuracy %")
    made = section("curves", name=experiment.name)
    return made.chart(chart, "Held-out accuracy, a line per seed.")


def _costs_section(root: Path, experiment: Experiment, students: Artifacts) -> list[ReportSection]:
    """What a point cost in each arm: gains over the base, or over guessing, the mean of seeds."""
    arms: dict[str, list[CostedStudent]] = {}
    chance = np.array([score.chance for score in experiment.of(experiment.arms[0])[0].scores])
    right = {
        arm: np.mean([each.correct(ALL) for each in experiment.of(arm)], axis=0)
        for arm in experiment.arms
    }
    over = right.get("base", chance)
    for arm in experiment.arms:
        runs = [each for each in experiment.of(arm) if each.run.phases]
        costs = [teacher_cost(root, students[each.run.phases[-1]]) for each in runs]
        seeds = [
            CostedStudent(right[arm] - over, cost, each.tokens)
            for each, cost in zip(runs, costs, strict=True)
        ]
        arms[experiment.title(arm)] = [mean_student(seeds)] if seeds else []
    return point_cost_section(arms, "the base" if "base" in right else "guessing")


def _picking_section(
    experiment: Experiment, runs: Mapping[str, ArmRun], picked: Artifacts
) -> ReportSection:
    """Several answers to a query: what each arm kept of them and their cost, summed over seeds."""
    made = section("picking", name=experiment.name, price=OUTPUT_PRICE)
    made.text(*_picking_sentences(experiment))
    counts = {arm: Counter[str]() for arm in experiment.arms}
    for name, artifact in picked.items():
        if runs[name].setting == experiment.name:
            counts[runs[name].arm] += Counter(artifact.record.counts)
            counts[runs[name].arm]["rows"] += artifact.num_rows
    tokens = {arm: (found["asked/prompt_tokens"], found["asked/response_tokens"])
              for arm, found in counts.items() if found}  # fmt: skip
    costs = {arm: read + OUTPUT_PRICE * written for arm, (read, written) in tokens.items()}
    return made.rows(
        {"arm": experiment.title(arm), "prompts": counts[arm]["prompts"],
         "prompts with a kept answer": counts[arm]["prompts/kept"],
         "kept answers": counts[arm]["rows"],
         "right, of kept %": counts[arm]["right"] / max(1, counts[arm]["checked"]),
         "teacher's tokens": sum(tokens[arm]),
         "relative cost": round(cost / min(costs.values()), 2), "accuracy %": cell.value,
         "95 % interval": percent_interval(cell.low, cell.high)}
        for arm, cost in costs.items()
        for cell in (experiment.cell(arm, ALL).interval,)
    )  # fmt: skip


def _picking_sentences(experiment: Experiment) -> Iterator[str]:
    """Say for each number of answers whether a choice among them beats keeping all of them."""
    for everything in (arm for arm in experiment.arms if "-all" in arm):
        pairs = [pair for pair in experiment.pairs if pair.first == everything
                 and pair.second.partition("-")[0] == everything.partition("-")[0]]  # fmt: skip
        found = {pair.second: experiment.difference(pair).difference for pair in pairs}
        better = [f'"{experiment.title(arm)}" by {points(each)} points'
                  for arm, each in found.items() if verdict(each) == "better"]  # fmt: skip
        name = f'"{experiment.title(everything)}"'
        if better:
            yield f"{experiment.name}: better than {name}: {', '.join(better)}."
        elif found:
            yield f"{experiment.name}: no choice of answers beats {name} ({len(found)} compared)."


def _findings(experiment: Experiment) -> Iterator[str]:
    """Yield what came out, in sentences: accuracies and every comparison."""
    title = experiment.title
    arms = [
        f"{title(arm)} {percent(experiment.cell(arm, ALL).interval.value)}"
        for arm in experiment.arms
    ]
    yield (
        f"{experiment.name}: accuracy in % over {len(experiment.seeds)} seed(s): "
        f"{', '.join(arms)}; guessing {percent(experiment.chance())}."
    )
    for pair in experiment.pairs:
        first, second = title(pair.first), title(pair.second)
        found = experiment.difference(pair).difference
        if verdict(found) == NO_DIFFERENCE:
            said = f'No difference shown between "{second}" and "{first}": {points(found)} points'
        else:
            said = f'"{second}" is {verdict(found)} than "{first}" by {points(found)} points'
        runs = zip(experiment.of(pair.first), experiment.of(pair.second), strict=True)
        by_seed = [f"{100 * (b.correct(ALL).mean() - a.correct(ALL).mean()):+.1f}" for a, b in runs]
        yield said + (f" (seed by seed: {', '.join(by_seed)})." if len(by_seed) > 1 else ".")


def _accuracy_section(experiment: Experiment) -> ReportSection:
    """Every arm's accuracy with its interval, over all families and in each."""
    families, title = experiment.families, experiment.title
    made = section(
        "accuracy",
        name=experiment.name,
        num=experiment.num_items,
        families=len(families),
        seeds=len(experiment.seeds),
        chance=percent(experiment.chance()),
    )
    rows: list[dict[str, Any]] = []
    for arm in experiment.arms:
        if near := experiment.not_above_guessing(arm):
            made.text(f"{title(arm)}: not above guessing in {', '.join(near)}.")
        found = experiment.cell(arm, ALL)
        answered, ended, length = experiment.responses(arm)
        rows.append({
            "arm": title(arm), "n": found.n, "answered %": answered,
            "ended %": ended, "mean tokens": round(length), "accuracy %": found.interval.value,
            "95 % interval": percent_interval(found.interval.low, found.interval.high),
            **{name: percent(experiment.cell(arm, name).interval.value) for name in families},
            "tokens": found.tokens, "seconds": round(found.seconds),
        })  # fmt: skip
    guess = {name: percent(experiment.chance(name)) for name in families}
    rows.append({"arm": "guessing", "accuracy %": experiment.chance(), **guess})
    chart = _accuracy_chart(experiment)
    return made.chart(chart, "Accuracy with 95 % interval; dashed: guessing.").rows(rows)


def _seeds_section(experiment: Experiment) -> ReportSection:
    rows = []
    for arm in experiment.arms:
        right = [each.correct(ALL) for each in experiment.of(arm)]
        over = seed_interval([float(each.mean()) for each in right])
        items = wilson(int(sum(each.sum() for each in right)), sum(len(each) for each in right))
        by_seed = zip(experiment.seeds, right, strict=True)
        rows.append({
            "arm": experiment.title(arm),
            **{f"seed {seed}": percent(float(each.mean())) for seed, each in by_seed},
            "mean %": over.value,
            "over seeds": percent_interval(max(0.0, over.low), min(1.0, over.high)),
            "pooled": percent_interval(items.low, items.high),
        })  # fmt: skip
    return section("seeds", name=experiment.name).rows(rows)


def _comparison_section(experiment: Experiment) -> ReportSection:
    """Every difference with its interval, over all families and in each."""
    seeds, test = "", "McNemar's test."
    if len(experiment.seeds) > 1:
        seeds, test = " and seeds", "the paired t-test over seeds."
    made = section("comparison", name=experiment.name, seeds=seeds, test=test)
    rows = []
    for pair in experiment.pairs:
        found = experiment.difference(pair)
        whole = found.difference
        by_family = {f: experiment.difference(pair, f).difference for f in experiment.families}
        second, first = experiment.title(pair.second), experiment.title(pair.first)
        p_value = "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"
        rows.append({
            "second": second, "first": first, "difference": points(whole),
            "p": "" if whole.low == whole.high else p_value, "so second is": verdict(whole),
            **{family: points(each) for family, each in by_family.items()},
        })  # fmt: skip
        absent = [name for name, each in by_family.items() if verdict(each) == NO_DIFFERENCE]
        if absent and verdict(whole) != NO_DIFFERENCE:
            made.text(f"{second} against {first}: no difference shown in {', '.join(absent)}.")
    return made.rows(rows)


def _examples_section(experiment: Experiment) -> ReportSection:
    """Questions that the arms answer differently."""
    made = section("examples", name=experiment.name)
    answers: dict[str, list[tuple[str, Score]]] = defaultdict(list)
    for arm in experiment.arms:
        for score in experiment.of(arm)[0].scores:
            answers[score.id].append((arm, score))
    spread = sorted(
        answers.values(), key=lambda some: abs(2 * sum(s.correct for _, s in some) - len(some))
    )
    for some in spread[:NUM_EXAMPLES]:
        first = some[0][1]
        rows = (
            {"arm": experiment.title(arm), "": "right" if score.correct else "wrong",
             "response": score.response}
            for arm, score in some
        )  # fmt: skip
        made.rows(rows, f"family {first.task}, item {first.id}, gold answer: {first.target}")
    return made


def _accuracy_chart(experiment: Experiment) -> Spec:
    values = [
        {"row": experiment.title(arm), **span(experiment.cell(arm, ALL).interval)}
        for arm in experiment.arms
    ]
    return spans(values, "accuracy %", reference=100 * experiment.chance(), domain=[0, 100])


def _comparisons(experiment: Experiment) -> Iterator[dict[str, Any]]:
    for pair in experiment.pairs:
        for family in (ALL, *experiment.families):
            found = experiment.difference(pair, family)
            yield {
                "setting": experiment.name, **pair.model_dump(), "family": family,
                "difference": found.difference.value, "low": found.difference.low,
                "high": found.difference.high, "p_value": found.p_value,
            }  # fmt: skip


def arms_table(results: Path) -> TerminalTable:
    """Return the results for a terminal: one line per setting and arm, and one for guessing."""
    table = TerminalTable(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("accuracy %", "95 % interval", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("by family", overflow="fold")
    found = [row for row in json.loads(results.read_text()) if row["seed"] == ALL]
    for setting, of_setting in groupby(found, key=lambda row: str(row["setting"])):
        for arm, (whole, *rows) in groupby(of_setting, key=lambda row: str(row["arm"])):
            interval = percent_interval(whole["low"], whole["high"])
            figures = [percent(whole["accuracy"]), interval, f"{whole['tokens']:,}"]
            table.add_row(f"{setting} {arm}", *figures, _families(rows, "accuracy"))
        guess = [percent(whole["chance"]), "", "", _families(rows, "chance")]
        table.add_row(f"{setting} guessing", *guess, style="dim")
    return table


def _families(rows: Sequence[Mapping[str, Any]], figure: str) -> str:
    return " ".join(f"{row['family']} {100 * row[figure]:.0f}" for row in rows)


def comparison_lines(comparisons: Path) -> list[str]:
    """Return a sentence for each comparison of two arms over all families, whatever it shows."""
    lines = []
    for row in json.loads(comparisons.read_text()):
        if row["family"] == ALL:
            found = Interval(row["difference"], row["low"], row["high"])
            arms = f"{row['setting']}: {row['second']} against {row['first']}"
            lines.append(f"{arms}: {points(found)} points ({verdict(found)})")
    return lines


def audit_lines(audits: Path) -> list[str]:
    """Return the conclusion of each imitation audit, if the experiment has some."""
    found = json.loads(audits.read_text(encoding="utf-8")) if audits.exists() else {}
    return [f"Imitation audit, judge {name}: {sentence}" for name, sentence in found.items()]
