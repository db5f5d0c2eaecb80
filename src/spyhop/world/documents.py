"""Documents as the web would have them: solutions without their questions, flawed ones and noise.

The kind of a document is in its `origin`. Nothing that writes, rates or keeps may look there:
it is for measuring afterwards what curation found.
"""

from collections.abc import Iterator
from random import Random
from typing import Literal

from pydantic import Field, field_validator

from spyhop.schema import Config, Pair, Segment
from spyhop.stage import Context, Estimate, stage
from spyhop.store import row_id
from spyhop.world.family import CORE
from spyhop.world.problem import draw_split, parse
from spyhop.world.solver import TEACHER, SolverConfig, respond
from spyhop.world.stages import FamilyName, ProblemsConfig, Steps, draw_problems

DocumentKind = Literal["correct", "misconceived", "slipped", "shuffled", "boilerplate"]
"""A right solution; one by an author with fixed misconceptions, wrong in some step; one with steps
that are wrong at random; the words of a right one in random order; the menu of a web page."""

SOLUTIONS: tuple[DocumentKind, ...] = ("correct", "misconceived", "slipped")
"""The kinds that are the answer to some instruction, right or wrong."""

ORIGIN = "spyhop.world/"
"""What `origin` begins with; the kind follows."""

MENU = (
    "Home", "About us", "Contact", "Log in", "Sign up", "Search", "Next page", "Share this",
    "Read more", "Privacy", "Subscribe to our newsletter", "All rights reserved",
    "Cookies help us", "Most read today", "Leave a comment", "Back to top",
)  # fmt: skip
"""The entries that boilerplate is made of."""

MISCONCEIVED = SolverConfig(misconceptions=True)
SLIP_RATE = 0.25
"""Of a step of a slipped document; one step is wrong at least."""


class DocumentsConfig(Config):
    """Which documents are drawn."""

    families: tuple[FamilyName, ...] = CORE
    num_rows: int = Field(gt=0)
    shares: dict[DocumentKind, float]
    """How the documents divide into kinds; families take turns within each kind."""
    steps: Steps = (3, 6)
    seed: int = 0

    @field_validator("shares")
    @classmethod
    def _can_be_drawn(cls, shares: dict[DocumentKind, float]) -> dict[DocumentKind, float]:
        if min(shares.values(), default=0) < 0 or not sum(shares.values()):
            raise ValueError("shares are 0 or more, and not all 0")
        return shares


def _plan(config: DocumentsConfig | ProblemsConfig) -> Estimate:
    return Estimate(rows=config.num_rows, row_tokens=60, seconds=config.num_rows / 1000)


@stage(version=1, writes=Pair, plan=_plan)
def draw_pairs(ctx: Context, config: ProblemsConfig) -> Iterator[Pair]:
    """Draw distinct training problems with right solutions: what people would have written."""
    for problem in ctx.track(draw_problems(config, "train"), "drawing", total=config.num_rows):
        response = respond(TEACHER, "", problem.text)
        ctx.count(f"family/{problem.family}")
        yield Pair(
            id=row_id("pair", problem.text, response),
            instruction=problem.text,
            response=response,
            tag="seed",
            collection="world",
            origin=f"{ORIGIN}seed",
        )


@stage(version=1, writes=Segment, plan=_plan)
def draw_documents(ctx: Context, config: DocumentsConfig) -> Iterator[Segment]:
    """Draw distinct documents in random order. No problem of the test split is behind any of them.

    A document is a text and nothing else: it does not name the problem that it solves.
    """
    random = Random(f"documents/{config.seed}")
    kinds = _kinds(config)
    drawn = enumerate(random.sample(kinds, len(kinds)))
    seen: set[str] = set()
    for number, (kind, family) in ctx.track(drawn, "drawing", total=len(kinds)):
        while (text := _write(kind, family, config.steps, random)) in seen:
            pass
        seen.add(text)
        ctx.count(f"kind/{kind}")
        yield Segment(
            id=row_id("document", text),
            url=f"world/{number}",
            headings=[],
            text=text,
            start=0,
            end=len(text),
            language="en",
            page_digest="",
            origin=f"{ORIGIN}{kind}",
        )


def kind_of(document: Segment) -> str:
    """Return the kind of a document of this world."""
    return document.origin.removeprefix(ORIGIN)


def is_recovered(instruction: str, document: Segment) -> bool:
    """Say whether an instruction is one that the document answers, step for step.

    Told by wording and steps alone, so a wrong solution can have its right instruction. Noise has
    none.
    """
    problem = parse(instruction)
    if problem is None or kind_of(document) not in SOLUTIONS:
        return False
    begun, _, rest = document.text.partition(". ")
    phrases = [step.rpartition(": ")[0] for step in rest.rpartition(" Answer: ")[0].split(". ")]
    told = [phrase.partition(") ")[2] for phrase in phrases]
    start = respond(TEACHER, "", instruction).partition(". ")[0]
    return begun == start and told == [step.phrase for step in problem.steps]


def _kinds(config: DocumentsConfig) -> list[tuple[DocumentKind, str]]:
    """Return kind and family of every document: shares as exact as whole rows allow."""
    bounds, total = [0], 0.0
    for share in config.shares.values():
        total += share / sum(config.shares.values())
        bounds.append(round(total * config.num_rows))
    return [
        (kind, config.families[place % len(config.families)])
        for kind, low, high in zip(config.shares, bounds, bounds[1:], strict=False)
        for place in range(high - low)
    ]


def _write(kind: DocumentKind, family: str, steps: tuple[int, int], random: Random) -> str:
    if kind == "boilerplate":
        return " | ".join(random.choices(MENU, k=random.randint(6, 14)))
    while True:
        query = draw_split(family, random, "train", steps).text
        right = respond(TEACHER, "", query)
        if kind == "correct":
            return right
        if kind == "shuffled":
            words = right.split()
            return " ".join(random.sample(words, len(words)))
        author = MISCONCEIVED
        if kind == "slipped":
            author = SolverConfig(slip_rate=SLIP_RATE, seed=random.getrandbits(32))
        flawed = respond(author, "", query)
        if flawed != right:
            return flawed
