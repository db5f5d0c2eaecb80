"""The model card: a model's origin, its terms and its measurements."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from spyhop.schema import Config
from spyhop.statistics import wilson
from spyhop.text.escape import markdown

UNKNOWN = "unknown"
PROBE_FAILED = "probe_failed"
"""Count of a probe whose model raised an error."""
_LICENCE = re.compile(r"^license(?:_name)?:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
TERMS = (
    "Not stated. Some services forbid training models that compete with theirs on what they "
    "answer: read the terms of the service behind {teachers} before you publish this model."
)
USE = (
    "Answering prompts of the kind that it was trained on, in research; anything else is to be "
    "measured first."
)
LIMITS = (
    "It states wrong things fluently; explanations that sound like its teacher's are no proof of "
    "the same ability. It takes over the biases of its base and of its teacher. What it was not "
    "measured on below is not known."
)


class CardConfig(Config):
    """Texts for the model card; all figures are read from the run."""

    title: str = ""
    """Empty is the name of the run."""
    language: str = "en"
    """Language code for the card's metadata."""
    base_name: str = ""
    """As it is published, such as `org/name`; empty is the name of the base's folder."""
    base_licence: str = ""
    """Licence of the base; empty is the one on the base's own card."""
    data_licence: str = ""
    """Of rows that name none."""
    teacher_terms: str = ""
    """Terms of the service that answered, in a sentence."""
    intended_use: str = Field(USE, min_length=1)
    """Paragraph on intended use."""
    limitations: str = Field(LIMITS, min_length=1)
    """Paragraph on limitations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Facts about a model beside its weights."""

    title: str
    base: str
    base_licence: str
    recipe: str
    """Name and key of the training that made it."""
    teachers: Mapping[str, int]
    """Rows by who answered."""
    licences: Mapping[str, int]
    """Rows by licence."""
    config: Mapping[str, object]
    """The settings of the training, from its record."""
    counts: Mapping[str, int]
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows that were not trained on, by reason."""
    earlier: Mapping[str, tuple[Mapping[str, object], Mapping[str, int]]] = field(
        default_factory=dict
    )
    """Settings and counts of the trainings before, by name."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """What checks of the answers found."""
    probe: Mapping[str, int] = field(default_factory=dict)
    """The counts of its probe; empty where none was made."""
    scores: Sequence[tuple[str, int, int]] = ()
    """Suite, right answers, items."""


def base_licence(folder: Path) -> str:
    """Return the licence that a base's card names in its head, else `unknown`."""
    card = folder / "README.md"
    if not card.is_file():
        return UNKNOWN
    text = card.read_text(encoding="utf-8", errors="replace")
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") >= 2 else ""
    found = Counter(_LICENCE.findall(head))
    names = [name for name in found if name.lower() != "other"]
    return names[0] if names else next(iter(found), UNKNOWN)


def card(config: CardConfig, origin: Origin) -> str:
    """Return the card: a head that hubs read, and what a person should know before using it."""
    title = config.title or origin.title
    base = config.base_name or origin.base
    licence = config.base_licence or origin.base_licence
    teachers = ", ".join(markdown(name) for name in origin.teachers) or UNKNOWN
    terms = config.teacher_terms or TERMS.format(teachers=teachers)
    lines = [
        "---",
        *_head(config, origin, licence),
        "---",
        "",
        f"# {title}",
        "",
        f"{base}, trained by spyhop on {_num_rows(origin):,} rows. It was trained "
        f"in the format that its chat template writes. Recipe key: `{origin.recipe}`.",
        "",
        "## Terms",
        "",
        f"- **Base**: {base}, licence {licence}"
        + ("; find out before passing anything on." if licence == UNKNOWN else "."),
        f"- **Data**: {_licences(config, origin)}",
        f"- **Who answered**: {_shares(origin.teachers)}. {terms}",
        *([f"- **Checks of the answers**: {_checks(origin)}."] if origin.outcomes else []),
        "",
        "## Intended use",
        "",
        config.intended_use,
        "",
        "## Limitations",
        "",
        config.limitations,
        "",
        "## Scores",
        "",
        *_scores(origin),
        "",
        "## Training",
        "",
        *_training(origin),
        "",
    ]
    return "\n".join(lines)


def _num_rows(origin: Origin) -> int:
    every = [origin.counts, *(counts for _, counts in origin.earlier.values())]
    return sum(counts.get("rows/trained", 0) for counts in every)


def _head(config: CardConfig, origin: Origin, licence: str) -> list[str]:
    all_known = licence != UNKNOWN and not _unnamed(config, origin)
    same = {licence.lower(), *(each.lower() for each in _named(config, origin))}
    tag = licence.lower() if all_known and len(same) == 1 else "other"
    found = [
        f"language: {config.language}",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        f"license: {tag}",
    ]
    if config.base_name:
        found.append(f"base_model: {json.dumps(config.base_name)}")
    return [*found, "tags:", "- spyhop"]


def _named(config: CardConfig, origin: Origin) -> dict[str, int]:
    named = {name: num for name, num in origin.licences.items() if name != UNKNOWN}
    rest = origin.licences.get(UNKNOWN, 0)
    if rest and config.data_licence:
        named[config.data_licence] = named.get(config.data_licence, 0) + rest
    return named


def _unnamed(config: CardConfig, origin: Origin) -> int:
    if config.data_licence:
        return 0
    return origin.licences.get(UNKNOWN, 0) if origin.licences else 1


def _licences(config: CardConfig, origin: Origin) -> str:
    named = _named(config, origin)
    if not named:
        return f"licence {config.data_licence or UNKNOWN}; no row names one."
    unnamed = _unnamed(config, origin)
    rest = f"; {unnamed:,} rows name none" if unnamed else ""
    return f"{_shares(named)}{rest}."


def _checks(origin: Origin) -> str:
    return ", ".join(f"{markdown(name)} {num:,}" for name, num in origin.outcomes.items())


def _shares(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{markdown(name)} ({num:,} rows)" for name, num in ordered) or UNKNOWN


def _scores(origin: Origin) -> list[str]:
    lines = []
    if origin.scores:
        lines += ["| suite | n | accuracy % | 95 % interval |", "|---|---|---|---|"]
        for suite, right, total in origin.scores:
            found = wilson(right, total)
            lines.append(
                f"| {markdown(suite)} | {total:,} | {100 * found.value:.1f} | "
                f"{100 * found.low:.1f} to {100 * found.high:.1f} |"
            )
    else:
        lines.append("Not measured on any benchmark.")
    if PROBE_FAILED in origin.probe:
        lines += ["", "Probe: it failed; generation with this model was not measured."]
    elif origin.probe:
        ended, cut = origin.probe.get("stopped", 0), origin.probe.get("cut", 0)
        lines += ["", f"Probe: {ended} of {ended + cut} responses ended by themselves."]
        lines += [
            f"System message `{name}`: followed in {follows} responses of {num}, unasked in "
            f"{unasked}."
            for name, follows, unasked, num in probe_figures(origin.probe)
        ]
    return lines


def probe_figures(counts: Mapping[str, int]) -> list[tuple[str, int, int, int]]:
    """Return (id, followed, met unasked, prompts) of each system message of a probe's counts."""
    return [
        (name, num, counts.get(f"unasked/{name}", 0), counts["prompts"])
        for key, num in counts.items()
        for name in [key.removeprefix("follows/")]
        if key.startswith("follows/")
    ]


def _training(origin: Origin) -> list[str]:
    lines = []
    for name, (config, counts) in {
        **origin.earlier, "the last training": (origin.config, origin.counts),
    }.items():  # fmt: skip
        chosen = {key: value for key, value in config.items() if value not in (None, {}, [])}
        figures = ", ".join(f"{key} {num:,}" for key, num in counts.items())
        title = [f"### {markdown(name)}", ""] if origin.earlier else []
        rows = "last response" if config.get("train_on") == "last" else "responses"
        figures += f". The loss is taken on the {rows} of each row, and on the end token"
        lines += [*title, f"{figures}.", "", "```json", json.dumps(chosen, indent=1), "```", ""]
    dropped = ", ".join(f"{reason} {num:,}" for reason, num in origin.dropped.items())
    return [*lines, f"Rows that the last training dropped: {dropped or 'no rows'}."]
