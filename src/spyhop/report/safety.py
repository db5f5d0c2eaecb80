"""Sections on safety and truth: toxicity, labels, refusals, bias, abstention, support, spread."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any

import numpy as np
from markupsafe import Markup

from spyhop.evaluate import task_scores
from spyhop.evaluate.measure import SCORED
from spyhop.evaluate.overlap import METRICS, text_overlap
from spyhop.evaluate.rates import ALL
from spyhop.evaluate.safety import REFUSE, Support, kind_and_group, label_f1, prompt_auc
from spyhop.report.html import ReportSection, Table, percent, percent_interval
from spyhop.schema import ModelError, Score
from spyhop.statistics import Interval, seed_interval, wilson
from spyhop.store import Artifact

BIAS, TRUTH = "crows_pairs", "truth"
NUM_SHOWN = 20
"""Responses per suite and model that are shown on request, the most toxic first."""
BLIND = (
    "The built-in classifier knows words and their neighbours from a few hundred sentences: what a "
    "sentence only implies, irony and words that it has not seen escape it, and naming a group can "
    "look toxic. Name another one with `classifier`."
)
MOST_COMPARED = 200
"""ROUGE-L takes time as the product of two lengths."""
Lines = Iterator[tuple[str, int, Interval | None]]
"""(group, responses, figure)."""


def safety_sections(
    scores: Mapping[str, Artifact], support: Mapping[str, Artifact], *, is_shown: bool
) -> list[ReportSection]:
    """Return a section for each suite that measures safety or truth, with all models beside.

    Args:
        scores: Scores by the model's name.
        support: Checked sentences by the model's name.
        is_shown: Whether the most toxic responses are on the page, behind a line to open.
    """
    rows: dict[str, dict[str, list[Score]]] = {}
    for model, artifact in scores.items():
        for suite, some in groupby(artifact.rows(Score), key=lambda score: score.suite):
            rows.setdefault(suite, {}).setdefault(model, []).extend(some)
    sections = []
    for suite, models in rows.items():
        first = next(iter(models.values()))[0]
        is_choice = suite.startswith("truthfulqa") and first.finish_reason != SCORED
        is_truth = is_choice or "declined" in first.metrics
        kind = BIAS if suite == BIAS else TRUTH if is_truth else str(first.metric)
        if kind not in _KINDS:
            continue
        title, lead, lines = _KINDS[kind]
        section = ReportSection(f"{title}: {suite}", lead)
        section.table(_table(models, lines, suite))
        if first.metric == "toxicity":
            _add_classifier(section, models)
            if is_shown:
                _add_texts(section, models)
        sections.append(section)
    return [*sections, *([_support_section(support)] if support else [])]


def _table(
    models: Mapping[str, list[Score]], lines: Callable[[list[Score]], Lines], suite: str
) -> Table:
    published = json.loads(files("spyhop.report").joinpath("published_safety.json").read_text())
    theirs = published.get(suite, {"models": [], "groups": {}})
    rows: dict[str, dict[str, Any]] = {}
    for name, some in models.items():
        for group, n, found in lines(some):
            row = rows.setdefault(group, {"group": group})
            row |= {f"{name}: n": n, f"{name}: %, 95 % interval": found}
    for group, row in rows.items():
        figures = theirs["groups"].get(group, [""] * len(theirs["models"]))
        names = [f"{name}, published" for name in theirs["models"]]
        row |= dict(zip(names, figures, strict=True))
    return Table.of(rows.values(), theirs.get("note", ""))


def _grouped(
    names: Callable[[Score], Sequence[str]], figure: Callable[[list[Score]], Interval | None]
) -> Callable[[list[Score]], Lines]:
    """Return the lines of all scores together and of each of their groups; failed calls aside."""

    def lines(scores: list[Score]) -> Lines:
        groups: dict[str, list[Score]] = {}
        for score in scores:
            for name in (ALL, *names(score)) if score.error is None else ():
                groups.setdefault(name, []).append(score)
        for name, some in groups.items():
            yield name, len(some), figure(some)

    return lines


def _mean(scores: list[Score]) -> Interval | None:
    return seed_interval([score.value for score in scores]) if len(scores) > 1 else None


def _labels(scores: list[Score]) -> Lines:
    for label, found in label_f1(scores).items():
        yield label, len(scores), found


def _truth(scores: list[Score]) -> Lines:
    every = [score for score in scores if score.error is None]
    given = [s for s in every if s.extracted is not None and not s.metrics.get("declined")]
    wrong = sum(not score.correct for score in given)
    yield "declined or no answer", len(every), _wilson(len(every) - len(given), len(every))
    yield "wrong when answered", len(given), _wilson(wrong, len(given))


def _wilson(num: int, n: int) -> Interval | None:
    return wilson(num, n) if n else None


_KINDS: dict[str, tuple[str, str, Callable[[list[Score]], Lines]]] = {
    "toxicity": (
        "Toxicity",
        "Mean probability that a response is toxic; lower is better.",
        _grouped(lambda score: [kind_and_group(score.task)[0] or "replies", score.task], _mean),
    ),
    "labels": ("Labels", "F1 of each label; a response that names none misses all.", _labels),
    "refusal": (
        "Refusals",
        "Share refused: of prompts to refuse (more is better), and of harmless look-alikes to "
        "answer (less is better).",
        _grouped(
            lambda score: [f"to {score.target}"],
            lambda some: _wilson(sum(s.extracted == REFUSE for s in some), len(some)),
        ),
    ),
    BIAS: (
        "Bias",
        "Share of pairs whose stereotyping sentence is likelier; 50 % shows no preference.",
        _grouped(
            lambda score: [score.topic],
            lambda some: _wilson(sum(s.correct for s in some), len(some)),
        ),
    ),
    TRUTH: ("Truth", "Wrong answers against abstention.", _truth),
}


def _add_classifier(section: ReportSection, models: Mapping[str, list[Score]]) -> None:
    """State how well the built-in classifier tells prompts apart, and what it cannot see."""
    found = prompt_auc(next(iter(models.values())))
    if found is not None:
        told = "prompts of groups that it was not trained on"
        section.text(f"{BLIND} Its AUC on {told} is {found:.2f}.")


def _add_texts(section: ReportSection, models: Mapping[str, list[Score]]) -> None:
    section.text("Texts that may offend are behind the next lines.")
    for name, some in models.items():
        worst = sorted(some, key=lambda score: -score.value)[:NUM_SHOWN]
        shown = "\n".join(f"{each.value:.2f}  {each.task}  {each.response}" for each in worst)
        block = Markup("<details><summary>{}</summary><pre>{}</pre></details>")
        section.blocks.append(block.format(f"most toxic responses of {name}", shown))


def _support_section(support: Mapping[str, Artifact]) -> ReportSection:
    section = ReportSection(
        "Support", "Sentences of responses that the given text does not support, and some of them."
    )
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
    section.rows(rows, "Every sentence is a row of support-MODEL.jsonl.")
    return section


def overlap_sections(scores: Mapping[str, Artifact]) -> list[ReportSection]:
    """Return the text overlap of responses with the first model's, if there are any to compare."""
    written = {
        name: {(s.suite, s.id): s.response for s in each.rows(Score) if s.response.strip()}
        for name, each in scores.items()
    }
    first, *others = written
    section = ReportSection(
        "Text overlap",
        f"Of responses with those of {first}, in percent; at most {MOST_COMPARED} items a suite.",
    )
    rows, caption = [], ""
    for name in others:
        both = sorted(written[name].keys() & written[first].keys())
        for suite, some in groupby(both, key=lambda key: key[0]):
            keys = list(some)[:MOST_COMPARED]
            pairs = [written[name][key] for key in keys], [[written[first][key]] for key in keys]
            try:
                scores, signatures = text_overlap(*pairs)
            except ModelError as error:  # the extra is not installed
                section.text(f"{error}")
                return [section]
            shares = {metric: percent(scores[metric]) for metric in METRICS}
            rows.append({"model": name, "suite": suite, "n": len(keys), **shares})
            caption = "; ".join(f"{m}: {text}" for m, text in signatures.items())
    section.rows(rows, f"{caption}; METEOR: no WordNet.")
    return [section] if rows else []


def spread_section(sampled: Mapping[str, Artifact], swept: Mapping[str, Artifact]) -> ReportSection:
    """Spread of each task's score over samples and over system messages."""
    section = ReportSection(
        "Spread", "How far a score moves with the sample or the system message."
    )
    figures: dict[tuple[str, ...], list[float]] = {}
    for over, group in (("samples", sampled), ("system messages", swept)):
        for name, artifact in group.items():
            model = name if over == "samples" else name.rpartition(".")[0]
            for each in task_scores(model, artifact):
                place = (model, each.suite, each.task, over)
                means = each.values.mean(axis=0) if over == "samples" else [each.values.mean()]
                figures.setdefault(place, []).extend(map(float, means))
    section.rows(
        {
            **dict(zip(("model", "suite", "task", "over"), place, strict=True)),
            "n": len(some),
            "standard deviation, points": percent(float(np.std(some, ddof=1))),
            "lowest to highest": percent_interval(min(some), max(some)),
        }
        for place, some in figures.items()
        if len(some) > 1
    )
    return section
