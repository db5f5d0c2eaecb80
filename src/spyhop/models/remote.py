"""A backend behind a function, so that batches can be answered here or by actors on a cluster."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spyhop.models.calls import Kind, Request, Sampling
from spyhop.schema import ModelError

CANNOT: dict[Kind, str] = {
    "generate": "writes no text; name a language model",
    "choose": "cannot choose between options; ask it to generate, or name a language model",
    "logprobs": "has no probabilities of given texts; name a folder of a language model",
    "classify": "scores no labels; name a folder of a sequence classifier, or an endpoint with "
    'api = "moderations"',
}


class Asked(NamedTuple):
    """Requests that are planned together."""

    kind: Kind
    sampling: Sampling
    requests: list[Request]


@dataclass(slots=True, eq=False)
class BatchWorker:
    """Plans the batches of requests, and answers single ones; the backend is loaded when needed.

    A reply may depend on how its batch was planned, so each copy plans all batches by itself.
    """

    connect: Callable[[], Any]
    label: str
    backend: Any = None
    _asked: Asked | None = field(default=None, repr=False)
    _batches: list[list[Request]] = field(default_factory=list, repr=False)

    def __call__(self, asked: Asked, number: int | None) -> Any:  # noqa: ANN401 (one of two)
        """Return the ids of each batch's requests; with a number, the results of that batch."""
        if self._asked is not asked:
            self.backend = self.backend or self.connect()
            if not hasattr(self.backend, asked.kind):
                raise ModelError(f"{self.label} {CANNOT[asked.kind]}")
            self._asked, self._batches = asked, self.backend.batches(asked.requests, asked.kind)
        if number is None:
            return [[request.id for request in batch] for batch in self._batches]
        how = [asked.sampling] if asked.kind == "generate" else []
        return getattr(self.backend, asked.kind)(self._batches[number], *how)
