"""The report of a corpus: pages, segments, and reasons of dropped rows."""

from collections import Counter
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from spyhop.corpus.work import PAGE
from spyhop.report.charts import ACCENT, axis, chart, layer, names
from spyhop.report.html import ReportSection, Turn, prose, report_stage, section, write_page
from spyhop.report.sections import add_dropped, data_section
from spyhop.schema import Config, Segment
from spyhop.stage import Context
from spyhop.store import Artifact, Artifacts

NUM_SAMPLES = 5
NUM_DOMAINS = 20
BIN_CHARS = 100


class CorpusPageConfig(Config):
    """Title of a report on a corpus."""

    title: str


@report_stage(version=3)
def corpus_page(ctx: Context, config: CorpusPageConfig, *, steps: Artifacts) -> None:
    """Write the page and the figures of segments; `steps` lead from pages to clean segments."""
    figures = _figures(steps)
    last = list(steps.values())[-1]
    lead = prose("corpus", pages=figures["funnel"][0][1], segments=last.num_rows)
    sections = [
        _funnel_section(figures),
        _segments_section(last, figures),
        add_dropped(section("dropped"), steps),
        data_section(steps=steps),
    ]
    write_page(ctx.out, config.title, lead, sections, steps, results=figures)


def _figures(steps: Artifacts) -> dict[str, Any]:
    """Read the last step's rows once, and the records of all."""
    lengths, domains, languages = Counter[int](), Counter[str](), Counter[str]()
    num_toxic = num_redacted = 0
    first, *_, last = [*steps.values()] * 2
    for row in last.rows(Segment):
        lengths[len(row.text) // BIN_CHARS * BIN_CHARS] += 1
        try:
            domains[urlsplit(row.url).hostname or "(file)"] += 1
        except ValueError:
            domains["(invalid)"] += 1
        languages[row.language] += 1
        num_toxic += row.is_toxic
        num_redacted += row.num_redacted
    counts = first.record.counts
    num_refused = sum(num for name, num in first.record.dropped.items() if name.startswith(PAGE))
    dropped = sum((Counter(each.record.dropped) for each in steps.values()), Counter[str]())
    pages = counts.get("pages", 0)
    before = {"pages": pages, "pages with text": pages - num_refused}
    before["sections"] = counts.get("sections", 0)
    return {
        "funnel": [*before.items(), *((name, each.num_rows) for name, each in steps.items())],
        "dropped": dict(dropped.most_common()), "lengths": dict(sorted(lengths.items())),
        "domains": dict(domains.most_common(NUM_DOMAINS)), "num_domains": len(domains),
        "languages": dict(languages.most_common()),
        "num_toxic": num_toxic, "num_redacted": num_redacted,
    }  # fmt: skip


def _funnel_section(figures: dict[str, Any]) -> ReportSection:
    values = [{"step": name, "rows": n, "label": f"{n:,}"} for name, n in figures["funnel"]]
    place = {"y": names("step", axis={"labelLimit": 200}), "x": axis("rows")}
    bars = layer("bar", place, color=ACCENT, height=18)
    text = layer("text", {**place, "text": {"field": "label"}}, align="left", dx=5)
    caption = "Pages read, sections under their headings, and what each step kept."
    return section("segments").chart(chart(values, bars, text, height={"step": 24}), caption)


def _segments_section(last: Artifact, figures: dict[str, Any]) -> ReportSection:
    redacted, toxic = f"{figures['num_redacted']:,}", f"{figures['num_toxic']:,}"
    made = section("lengths_of_segments", redacted=redacted, toxic=toxic)
    lengths = figures["lengths"].items()
    values = [{"chars": at, "end": at + BIN_CHARS, "rows": n} for at, n in lengths]
    x = axis("chars", "characters", bin={"binned": True, "step": BIN_CHARS})
    place = {"x": x, "x2": {"field": "end"}, "y": axis("rows", "segments")}
    bars = chart(values, layer("bar", place, color=ACCENT), height=200)
    made.chart(bars, "Lengths of the segments.")
    captions = {"language": "", "domain": f"{figures['num_domains']:,} domains in all."}
    for title, caption in captions.items():
        rows = (
            {title: name, "segments": num, "%": num / max(1, last.num_rows)}
            for name, num in figures[f"{title}s"].items()
        )
        made.rows(rows, caption)
    for row in islice((row for row in last.rows(Segment) if not row.is_toxic), NUM_SAMPLES):
        turns = [Turn("headings", " > ".join(row.headings)), Turn("text", row.text)]
        made.conversation(turns, f"{row.url}, characters {row.start} to {row.end}, row {row.id}")
    return made
