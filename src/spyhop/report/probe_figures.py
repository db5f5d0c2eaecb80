"""Figures of a probe: what ends by itself, what an unseen system message changes, and samples."""

from collections.abc import Iterator, Mapping
from itertools import islice

from spyhop.report.html import ReportSection, Table, percent, percent_interval
from spyhop.statistics import wilson
from spyhop.store import Artifact
from spyhop.train.card import probe_figures
from spyhop.train.probe import Probed

NUM_SAMPLES = 4


def probe_section(probes: Mapping[str, Artifact]) -> ReportSection:
    """Responses that ended, messages that were followed, and some of what was said."""
    section = ReportSection(
        "Probe",
        "Greedy answers to prompts of the training rows, alone and under system messages that no "
        "row has and that a rule can check.",
    )
    section.table(
        Table(
            ["student", "responses", "ended by themselves %", "95 % interval", "failed"],
            [_ended(name, each) for name, each in probes.items()],
            f"The others were cut at {_room(next(iter(probes.values()))):,} tokens.",
        )
    )
    section.table(
        Table(
            ["student", "system message", "n", "followed %", "95 % interval", "met unasked %"],
            [row for name, each in probes.items() for row in _followed(name, each)],
        )
    )
    for name, artifact in probes.items():
        if seen := _seen(artifact):
            section.text(f"{name}: not asked, since training rows have them: {', '.join(seen)}.")
        for row in _samples(artifact):
            told = "ended" if row.ending == "whole" else row.ending
            note = f"{name}, {row.message or 'no system message'}, {told}"
            note += f", {row.response_tokens} tokens"
            turns = [turn.model_dump() for turn in row.messages]
            section.conversation([*turns, {"role": "assistant", "content": row.response}], note)
    return section


def _ended(name: str, probe: Artifact) -> list[object]:
    counts = probe.record.counts
    ended, total = counts.get("stopped", 0), counts.get("stopped", 0) + counts.get("cut", 0)
    failed = counts.get("failed", 0)
    if not total:
        return [name, 0, "", "", failed]
    found = wilson(ended, total)
    return [name, total, percent(found.value), percent_interval(found.low, found.high), failed]


def _followed(name: str, probe: Artifact) -> Iterator[list[object]]:
    for message, follows, unasked, num in probe_figures(probe.record.counts):
        if message not in _seen(probe) and num:
            found = wilson(follows, num)
            interval = percent_interval(found.low, found.high)
            yield [name, message, num, percent(found.value), interval, percent(unasked / num)]


def _seen(probe: Artifact) -> list[str]:
    counts = probe.record.counts.items()
    return [key.removeprefix("seen/") for key, num in counts if key.startswith("seen/") and num]


def _room(probe: Artifact) -> int:
    return int(probe.record.config["max_new_tokens"])


def _samples(probe: Artifact) -> Iterator[Probed]:
    """The first prompt under each message, and some without."""
    shown: set[str] = set()
    plain = islice((row for row in probe.rows(Probed) if not row.message), NUM_SAMPLES)
    yield from plain
    for row in probe.rows(Probed):
        if row.message and row.message not in shown:
            shown.add(row.message)
            yield row
