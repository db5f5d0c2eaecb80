"""The report of a corpus: pages, segments, and reasons of dropped rows."""

import json
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from spyhop.corpus.work import PAGE
from spyhop.report.charts import ACCENT, axis, chart, layer, names
from spyhop.report.html import RESULTS, ReportSection, write_page
from spyhop.report.sections import data_section
from spyhop.schema import Config, Segment
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact

NUM_EXAMPLES = 2
"""Examples of each reason."""
NUM_SAMPLES = 5
NUM_DOMAINS = 20
EXAMPLE_CHARS = 300
BIN_CHARS = 100


class CorpusPageConfig(Config):
    """Title of a report on a corpus."""

    title: str


@stage(version=2, writes=FOLDER, shows_names=True, plan=lambda config, steps: Estimate(seconds=5))
def corpus_page(ctx: Context, config: CorpusPageConfig, *, steps: Mapping[str, Artifact]) -> None:
    """Write the page and the figures of segments; `steps` lead from pages to clean segments."""
    figures = _figures(steps)
    last = list(steps.values())[-1]
    lead = (
        f"{figures['funnel'][0][1]:,} pages gave {last.num_rows:,} segments. Every figure "
        "below comes from the rows; dropped rows are kept with their reasons."
    )
    sections = [
        _funnel_section(figures),
        _segments_section(last, figures),
        _rejects_section(steps),
        data_section(steps=steps),
    ]
    write_page(ctx.out, config.title, lead, sections, steps)
    (ctx.out / RESULTS).write_text(json.dumps(figures, indent=1))


def _figures(steps: Mapping[str, Artifact]) -> dict[str, Any]:
    """Read the last step's rows once, and the records of all."""
    lengths, domains, languages = Counter[int](), Counter[str](), Counter[str]()
    num_toxic = num_redacted = 0
    first, *_, last = [*steps.values()] * 2
    for row in last.rows(Segment):
        lengths[len(row.text) // BIN_CHARS * BIN_CHARS] += 1
        domains[_domain(row.url)] += 1
        languages[row.language] += 1
        num_toxic += row.is_toxic
        num_redacted += row.num_redacted
    counts = first.record.counts
    num_refused = sum(num for name, num in first.record.dropped.items() if name.startswith(PAGE))
    funnel = [
        ("pages", counts.get("pages", 0)),
        ("pages with text", counts.get("pages", 0) - num_refused),
        ("sections", counts.get("sections", 0)),
    ]
    funnel += [(name, each.num_rows) for name, each in steps.items()]
    dropped = Counter[str]()
    for each in steps.values():
        dropped.update(each.record.dropped)
    return {
        "funnel": funnel,
        "dropped": dict(dropped.most_common()),
        "lengths": dict(sorted(lengths.items())),
        "domains": dict(domains.most_common(NUM_DOMAINS)),
        "num_domains": len(domains),
        "languages": dict(languages.most_common()),
        "num_toxic": num_toxic,
        "num_redacted": num_redacted,
    }


def _domain(url: str) -> str:
    try:
        return urlsplit(url).hostname or "(file)"
    except ValueError:
        return "(invalid)"


def _funnel_section(figures: dict[str, Any]) -> ReportSection:
    section = ReportSection("From pages to segments")
    values = [{"step": name, "rows": n, "label": f"{n:,}"} for name, n in figures["funnel"]]
    place = {"y": names("step", axis={"labelLimit": 200}), "x": axis("rows")}
    text = {**place, "text": {"field": "label"}}
    caption = "Pages read, sections under their headings, and what each step kept."
    bars = layer("bar", place, color=ACCENT, height=18)
    drawn = chart(values, bars, layer("text", text, align="left", dx=5), height={"step": 24})
    section.chart(drawn, caption)
    return section


def _segments_section(last: Artifact, figures: dict[str, Any]) -> ReportSection:
    section = ReportSection(
        "Segments",
        f"{figures['num_redacted']:,} pieces of personal data were replaced; "
        f"{figures['num_toxic']:,} segments hold words of abuse and are flagged.",
    )
    values = [
        {"chars": at, "end": at + BIN_CHARS, "rows": n} for at, n in figures["lengths"].items()
    ]
    x = axis("chars", "characters", bin={"binned": True, "step": BIN_CHARS})
    place = {"x": x, "x2": {"field": "end"}, "y": axis("rows", "segments")}
    section.chart(
        chart(values, layer("bar", place, color=ACCENT), height=200), "Lengths of the segments."
    )
    for title, caption in (
        ("language", ""),
        ("domain", f"{figures['num_domains']:,} domains in all."),
    ):
        section.rows(
            (
                {title: name, "segments": num, "%": num / max(1, last.num_rows)}
                for name, num in figures[f"{title}s"].items()
            ),
            caption,
        )
    for row in islice((row for row in last.rows(Segment) if not row.is_toxic), NUM_SAMPLES):
        turns = [
            {"role": "headings", "content": " > ".join(row.headings)},
            {"role": "text", "content": row.text},
        ]
        section.conversation(turns, f"{row.url}, characters {row.start} to {row.end}, row {row.id}")
    return section


def _rejects_section(steps: Mapping[str, Artifact]) -> ReportSection:
    section = ReportSection("Dropped rows", "Reasons with their counts and first examples.")
    section.rows(
        {"reason": reason, "rows": num, "examples": "\n".join(examples.get(reason, []))}
        for step in steps.values()
        for examples in [_examples(step)]
        for reason, num in sorted(step.record.dropped.items(), key=lambda pair: -pair[1])
    )
    return section


def _examples(step: Artifact) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for reason, row in step.dropped():
        held = found.setdefault(reason, [])
        if len(held) < NUM_EXAMPLES:
            value = json.loads(row)
            headings = " > ".join(value.get("headings", []))
            text = " ".join(value.get("text", "").split())[:EXAMPLE_CHARS]
            where = value.get("url") or value.get("origin")
            held.append(": ".join(each for each in (where, headings, text) if each))
    return found
