"""Arms that learn from several answers to a query: what they kept, its cost, and its effect."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from spyhop.report.arm_figures import ALL, ArmRun, Experiment, points, verdict
from spyhop.report.html import ReportSection, percent_interval, section
from spyhop.store import Artifacts

OUTPUT_PRICE = 4.0
"""Price of a written token in those of a read one, as usual for models behind an API."""


def picking_section(
    experiment: Experiment, runs: Mapping[str, ArmRun], picked: Artifacts
) -> ReportSection:
    """Per arm, summed over seeds: prompts, kept answers, right ones, and the teacher's cost."""
    made = section("picking", name=experiment.name, price=OUTPUT_PRICE)
    made.text(*_sentences(experiment))
    counts = {arm: Counter[str]() for arm in experiment.arms}
    for name, artifact in picked.items():
        if runs[name].setting == experiment.name:
            counts[runs[name].arm] += Counter(artifact.record.counts)
            counts[runs[name].arm]["rows"] += artifact.num_rows
    rows: list[dict[str, Any]] = []
    least = min((_cost(each) for each in counts.values() if each), default=1.0)
    for arm, found in counts.items():
        if found:
            cell = experiment.cell(arm, ALL).interval
            rows.append({
                "arm": experiment.title(arm), "prompts": found["prompts"],
                "prompts with a kept answer": found["prompts/kept"], "kept answers": found["rows"],
                "right, of kept %": found["right"] / max(1, found["checked"]),
                "teacher's tokens": found["asked/prompt_tokens"] + found["asked/response_tokens"],
                "relative cost": round(_cost(found) / least, 2), "accuracy %": cell.value,
                "95 % interval": percent_interval(cell.low, cell.high),
            })  # fmt: skip
    return made.rows(rows)


def _sentences(experiment: Experiment) -> Iterator[str]:
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


def _cost(counts: Mapping[str, int]) -> float:
    return counts["asked/prompt_tokens"] + OUTPUT_PRICE * counts["asked/response_tokens"]
