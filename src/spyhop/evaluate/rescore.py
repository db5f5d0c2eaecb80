"""Read stored responses again with the extractor of now; no model is asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spyhop.evaluate.export import joined
from spyhop.evaluate.measure import MeasureConfig
from spyhop.evaluate.reading import read_fields
from spyhop.evaluate.task import Protocol
from spyhop.schema import Item, Score
from spyhop.store import Artifact


@dataclass(frozen=True, slots=True)
class Rescored:
    """A stored score, and the reading that the extractor of now gives of the same response."""

    item: Item
    protocol: Protocol
    before: Score
    after: Score

    @property
    def is_changed(self) -> bool:
        """Whether the answer, the verdict or the score differs."""
        one, other = self.before, self.after
        return any(getattr(one, name) != getattr(other, name) for name in _COMPARED)


_COMPARED = ("extracted", "correct", "value")


def rescore(
    items: Mapping[str, Artifact], scores: Artifact, changes: Mapping[str, Any]
) -> Iterator[Rescored]:
    """Yield every score with its new reading; scored options have no response to read.

    Args:
        items: The items that were asked.
        scores: A model's scores.
        changes: Settings of `measure` that replace the stored ones, such as `extract`.
    """
    stored = MeasureConfig.model_validate(scores.record.config)
    for item, score in joined(items, scores):
        own = stored.protocol(item.suite)
        protocol = Protocol.model_validate(own.model_dump() | dict(changes))
        after = score
        if own.method == "generate" and own.metric != "toxicity":
            fields = read_fields(score.response, score.ending, item, protocol)
            after = score.model_copy(update=fields)
        yield Rescored(item, protocol, score, after)
