"""The model card: a model's origin, its terms and its measurements."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from spyhop.schema import PEOPLE, Config
from spyhop.statistics import wilson
from spyhop.text.escape import markdown
from spyhop.text.template import write_markdown

UNKNOWN = "unknown"
TEACHER, LICENCE = "answered_by/", "licence/"
"""Counts of a training: the rows that it read, by who answered and by licence."""
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
    """Rows that the trainings read, by who answered."""
    licences: Mapping[str, int]
    """The same by licence."""
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


FIGURES = {"num_rows": "rows/read", "num_tokens": "tokens", "num_labels": "response_tokens"}
"""Sums over all trainings, by the counts that they are read from."""


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
    licence = config.base_licence or origin.base_licence
    named, num_unnamed = _licences(config, origin)
    is_known = licence != UNKNOWN and not num_unnamed
    same = {licence.lower(), *(name.lower() for name in named)}
    trainings = {**origin.earlier, "the last training": (origin.config, origin.counts)}
    models = [markdown(name) for name in origin.teachers if name != PEOPLE]
    terms = TERMS.format(teachers=", ".join(models) or UNKNOWN)
    if origin.teachers and not models:
        terms = ""

    def shares(counts: Mapping[str, int]) -> str:
        ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        return ", ".join(f"{markdown(name)} ({num:,} rows)" for name, num in ordered) or UNKNOWN

    return write_markdown(
        "spyhop.train",
        "card.md",
        config=config,
        origin=origin,
        base=config.base_name or origin.base,
        licence=licence,
        tag=licence.lower() if is_known and len(same) == 1 else "other",
        named=named,
        num_unnamed=num_unnamed,
        shares=shares,
        terms=config.teacher_terms or terms,
        **{
            name: sum(counts.get(key, 0) for _, counts in trainings.values())
            for name, key in FIGURES.items()
        },
        kept_counts=lambda counts: {
            k: v for k, v in counts.items() if "/" not in k or "rows/" in k
        },
        scores=[(suite, total, wilson(right, total)) for suite, right, total in origin.scores],
        has_failed_probe=PROBE_FAILED in origin.probe,
        ended=origin.probe.get("stopped", 0),
        figures=probe_figures(origin.probe),
        trainings=trainings,
        chosen=lambda values: {k: v for k, v in values.items() if v not in (None, {}, [])},
    )


def _licences(config: CardConfig, origin: Origin) -> tuple[dict[str, int], int]:
    """Return rows by licence, and how many name none (1 where no row is known)."""
    named = {name: num for name, num in origin.licences.items() if name != UNKNOWN}
    rest = origin.licences.get(UNKNOWN, 0)
    if not config.data_licence:
        return named, rest if origin.licences else 1
    if rest:
        named[config.data_licence] = named.get(config.data_licence, 0) + rest
    return named, 0


def probe_figures(counts: Mapping[str, int]) -> list[tuple[str, int, int, int]]:
    """Return (id, followed, met unasked, prompts) of each system message of a probe's counts."""
    ids = [key.removeprefix("follows/") for key in counts if key.startswith("follows/")]
    return [
        (name, counts[f"follows/{name}"], counts.get(f"unasked/{name}", 0), counts["prompts"])
        for name in ids
    ]
