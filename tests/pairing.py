"""Pairs, ratings and a judge for tests of augmentation and curation."""

from collections.abc import Callable, Sequence
from pathlib import Path

import toys
from scripted import Say, Scripted
from spyhop.collect import pair_id
from spyhop.models import Choice, Request
from spyhop.schema import Pair, Rating, Segment
from spyhop.store import Artifact

Weighs = Callable[[Request], Choice | list[float]]


def pair(place: int, **changes: object) -> Pair:
    texts = {"instruction": f"How is thing {place} made?", "response": f"Take {place} and wait."}
    values = {**texts, "tag": "web", "collection": "web", **changes}
    name = pair_id(str(values["instruction"]), str(values["response"]))
    return Pair.model_validate({"id": name, **values})


def rated(place: int, score: float | None, **changes: object) -> Pair:
    values = {"score": score, "method": "verdict", "judge": "toy"}
    if score is None:
        values["missing"] = "no_verdict"
    return pair(place, rating=Rating.model_validate({**values, **changes}))


def segment(place: int, text: str) -> Segment:
    return Segment(
        id=f"s{place}", url=f"https://toy/{place}", headings=["Toy"], text=text, start=0,
        end=len(text), language="en", page_digest="0", origin=f"toy:{place}",
    )  # fmt: skip


def artifact(folder: Path, rows: Sequence[Pair] | Sequence[Segment]) -> Artifact:
    return toys.rows_artifact(folder, rows)


class Judge(Scripted):
    """Says and weighs what functions of the request return."""

    def __init__(self, say: Say, weigh: Weighs, **more: object) -> None:
        super().__init__(say, **more)  # type: ignore[arg-type]
        self.weigh = weigh
        self.begun: list[str] = []

    def choose(self, batch: Sequence[Request]) -> list[Choice]:
        found = []
        for request in batch:
            self.begun.append(request.continuation)
            weighed = self.weigh(request)
            made = Choice(id="", probabilities=weighed) if isinstance(weighed, list) else weighed
            found.append(made.model_copy(update={"id": request.id}))
        return found
