"""Sections on safety and truth: toxicity, labels, refusals, bias, abstention, support, spread."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from itertools import groupby

import numpy as np

from spyhop.evaluate import task_scores
from spyhop.evaluate.measure import SCORED
from spyhop.evaluate.overlap import METRICS, text_overlap
from spyhop.evaluate.rates import ALL
from spyhop.evaluate.safety import REFUSE, Support, kind_and_group, label_f1, prompt_auc
from spyhop.report.html import ReportSection, percent, percent_interval, prose, section
from spyhop.schema import NotInstalled, Score
from spyhop.statistics import Interval, seed_interval, wilson
from spyhop.store import Artifacts

BIAS, TRUTH = "crows_pairs", "truth"
NUM_SHOWN = 20
"""Responses per suite and model that are shown on request, the most toxic first."""
MOST_COMPARED = 200
"""ROUGE-L takes time as the product of two lengths."""


def safety_sections(
    scores: Artifacts, support: Artifacts, *, is_shown: bool
) -> list[ReportSection]:
    """Return a section for each suite that measures safety or truth, with all models beside.

    `support` are checked sentences by model. With `is_shown` the most toxic responses are on the
    page, behind a line to open.
    """
    rows: dict[str, dict[str, list[Score]]] = {}
    for model, artifact in scores.items():
        for suite, some in groupby(artifact.rows(Score), key=lambda score: score.suite):
            rows.setdefault(suite, {}).setdefault(model, []).extend(some)
    sections = []
    for suite, models in rows.items():
        first_model = next(iter(models.values()))
        first = first_model[0]
        is_choice = suite.startswith("truthfulqa") and first.finish_reason != SCORED
        is_truth = is_choice or "declined" in first.metrics
        kind = BIAS if suite == BIAS else TRUTH if is_truth else str(first.metric)
        if kind not in KINDS:
            continue
        made = section(kind, suite=suite)
        _add_table(made, models, kind, suite)
        if first.metric == "toxicity":
            if (auc := prompt_auc(first_model)) is not None:
                made.text(prose("classifier", auc=auc))
            if is_shown:
                made.text("Texts that may offend are behind the next lines.")
                for name, scored in models.items():
                    worst = sorted(scored, key=lambda score: -score.value)[:NUM_SHOWN]
                    texts = (f"{each.value:.2f}  {each.task}  {each.response}" for each in worst)
                    made.details(f"most toxic responses of {name}", "\n".join(texts))
        sections.append(made)
    return [*sections, *([_support_section(support)] if support else [])]


def _add_table(to: ReportSection, models: Mapping[str, list[Score]], kind: str, suite: str) -> None:
    """Add a line for each group, with the published figures of other models."""
    published = json.loads(files("spyhop.report").joinpath("published_safety.json").read_text())
    theirs = published.get(suite, {"models": [], "groups": {}})
    rows: dict[str, dict[str, object]] = {}
    for name, some in models.items():
        for group, n, found in _lines(kind, some):
            row = rows.setdefault(group, {"group": group})
            row |= {f"{name}: n": n, f"{name}: %, 95 % interval": found}
    names = [f"{name}, published" for name in theirs["models"]]
    for group, row in rows.items():
        row |= zip(names, theirs["groups"].get(group, [""] * len(names)), strict=True)
    to.rows(rows.values(), theirs.get("note", ""))


def _lines(kind: str, scores: list[Score]) -> Iterator[tuple[str, int, Interval | None]]:
    """Yield (group, responses, figure) of all scores and of each group; failed calls aside."""
    every = [score for score in scores if score.error is None]
    if kind == "labels":
        yield from ((name, len(scores), f1) for name, f1 in label_f1(scores).items())
    elif kind == TRUTH:
        given = [s for s in every if s.extracted is not None and not s.metrics.get("declined")]
        yield "declined or no answer", len(every), _wilson(len(every) - len(given), len(every))
        wrong = sum(not score.correct for score in given)
        yield "wrong when answered", len(given), _wilson(wrong, len(given))
    else:
        groups: dict[str, list[Score]] = defaultdict(list)
        names, figure = _GROUPED[kind]
        for score in every:
            for name in (ALL, *names(score)):
                groups[name].append(score)
        for name, some in groups.items():
            yield name, len(some), figure(some)


def _wilson(num: int, n: int) -> Interval | None:
    return wilson(num, n) if n else None


_GROUPED: dict[
    str, tuple[Callable[[Score], list[str]], Callable[[list[Score]], Interval | None]]
] = {
    "toxicity": (
        lambda score: [kind_and_group(score.task)[0] or "replies", score.task],
        lambda some: seed_interval([s.value for s in some]) if len(some) > 1 else None,
    ),
    "refusal": (
        lambda score: [f"to {score.target}"],
        lambda some: wilson(sum(s.extracted == REFUSE for s in some), len(some)),
    ),
    BIAS: (
        lambda score: [score.topic], lambda some: wilson(sum(s.correct for s in some), len(some))
    ),
}  # fmt: skip
"""Groups of a score and the figure of a group, by kind of suite."""
KINDS = {*_GROUPED, "labels", TRUTH}


def _support_section(support: Artifacts) -> ReportSection:
    rows = []
    for name, artifact in support.items():
        found = list(artifact.rows(Support))
        judged = [row for row in found if row.is_supported is not None]
        bad = [row for row in judged if not row.is_supported]
        rows.append({
            "model": name, "sentences": len(judged),
            "unsupported %, 95 % interval": _wilson(len(bad), len(judged)),
            "no verdict": len(found) - len(judged),
            "examples": "\n".join(f"{row.item_id}: {row.sentence}" for row in bad[:5]),
        })  # fmt: skip
    return section("support").rows(rows, "Every sentence is a row of support-MODEL.jsonl.")


def overlap_sections(scores: Artifacts) -> list[ReportSection]:
    """Return the text overlap of responses with the first model's, if there are any to compare."""
    written = {
        name: {(s.suite, s.id): s.response for s in each.rows(Score) if s.response.strip()}
        for name, each in scores.items()
    }
    first, *others = written
    made = section("overlap", first=first, most=MOST_COMPARED)
    rows, caption = [], ""
    for name in others:
        both = sorted(written[name].keys() & written[first].keys())
        for suite, some in groupby(both, key=lambda key: key[0]):
            keys = list(some)[:MOST_COMPARED]
            pairs = [written[name][key] for key in keys], [[written[first][key]] for key in keys]
            try:
                overlap, signatures = text_overlap(*pairs)
            except NotInstalled as error:
                return [made.text(f"{error}")]
            shares = {metric: percent(overlap[metric]) for metric in METRICS}
            rows.append({"model": name, "suite": suite, "n": len(keys), **shares})
            caption = "; ".join(f"{m}: {text}" for m, text in signatures.items())
    return [made.rows(rows, f"{caption}; METEOR: no WordNet.")] if rows else []


def spread_section(sampled: Artifacts, swept: Artifacts) -> ReportSection:
    """Spread of each task's score over samples and over system messages."""
    figures: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for name, artifact in sampled.items():
        for each in task_scores(name, artifact):
            figures[name, each.suite, each.task, "samples"] += each.values.mean(axis=0).tolist()
    for name, artifact in swept.items():
        model = name.rpartition(".")[0]
        for each in task_scores(model, artifact):
            place = (model, each.suite, each.task, "system messages")
            figures[place].append(float(each.values.mean()))
    return section("spread").rows(
        {**dict(zip(("model", "suite", "task", "over"), place, strict=True)), "n": len(some),
         "standard deviation, points": percent(float(np.std(some, ddof=1))),
         "lowest to highest": percent_interval(min(some), max(some))}
        for place, some in figures.items()
        if len(some) > 1
    )  # fmt: skip
