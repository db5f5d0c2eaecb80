"""A scripted model for tests: replies are taken from a list, calls are counted."""

from collections.abc import Sequence
from typing import TypeVar

from spyhop.models.base import BatchModel, Model
from spyhop.models.calls import Choice, Kind, Reply, Request, Sampling, TokenLogprobs
from spyhop.schema import ModelError
from spyhop.stage import Context
from spyhop.store import key_of

Item = TypeVar("Item")


class FakeModel:
    """Answers with `replies` in order, one request per batch.

    It is a stage's model input and a backend in one. With a list of probabilities for `choices`,
    `choose` works too.
    """

    def __init__(
        self, replies: Sequence[str], *, choices: Sequence[list[float]] = (), name: str = "fake"
    ) -> None:
        self.calls = 0
        self._replies = list(replies)
        self._choices = list(choices)
        self.folder = None
        self.key = self.digest = key_of(["fake", name])

    def open(self, ctx: Context) -> Model:
        """Return the model behind the usual journal."""
        return BatchModel(connect=lambda: self, identity=self.digest, label="fake", ctx=ctx)

    def batches(self, requests: Sequence[Request], kind: Kind) -> list[list[Request]]:
        """One request each, so that a test can kill between any two."""
        return [[request] for request in requests]

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """Return the next scripted replies."""
        texts = [self._next(self._replies) for _ in batch]
        return [
            Reply(id=r.id, text=text, finish_reason="stop", response_tokens=len(text.split()))
            for r, text in zip(batch, texts, strict=True)
        ]

    def choose(self, batch: Sequence[Request]) -> list[Choice]:
        """Return the next scripted probabilities."""
        return [Choice(id=r.id, probabilities=self._next(self._choices)) for r in batch]

    def logprobs(self, batch: Sequence[Request]) -> list[TokenLogprobs]:
        """Return minus one for each word of the continuation."""
        return [TokenLogprobs(id=r.id, values=[-1.0] * len(r.continuation.split())) for r in batch]

    def _next(self, script: list[Item]) -> Item:
        if self.calls >= len(script):
            raise ModelError(f"the fake model has only {len(script)} replies")
        self.calls += 1
        return script[self.calls - 1]
