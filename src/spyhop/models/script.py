"""Rows as scripts: each row yields questions, and the questions of all rows are sent together."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from spyhop.models.base import WINDOW, Model
from spyhop.models.calls import Choice, Reply, Request, Sampling
from spyhop.schema import Message, ModelError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of a script to a model; without a sampling its options are scored."""

    model: Model
    messages: list[Message]
    sampling: Sampling | None = None
    sample_index: int = 0
    options: tuple[str, ...] = ()
    continuation: str = ""
    """A prefilled response; the options are scored after it."""


Script: TypeAlias = Generator[Sequence[Ask], list[Any], Result]
"""Yields questions, is sent their replies in the same order (a `Reply`, or a `Choice` where options
are scored), and returns its result."""


class Failures:
    """Failed calls to a model. Too many of them fail the stage."""

    def __init__(self, model: str, max_frac: float) -> None:
        self._model = model
        self._max_frac = max_frac
        self._num_calls = self._num_failed = 0
        self._last = ""

    def see(self, error: str | None) -> None:
        """Count one row's call, with its error if it failed."""
        self._num_calls += 1
        if error is not None:
            self._num_failed, self._last = self._num_failed + 1, error

    def check(self) -> None:
        """Stop if too many calls failed."""
        if self._num_failed > self._max_frac * max(1, self._num_calls):
            raise ModelError(
                f"{self._model}: {self._num_failed} of {self._num_calls} calls failed, more than "
                f"max_error_frac = {self._max_frac:g} (last error: {self._last})"
            )


def play(
    scripts: Iterable[Script[Result]], *models: Model, window: int | None = None
) -> Iterator[Result]:
    """Yield the result of every script, in order.

    The scripts of a window move in step: in each round, all questions to the same model with the
    same sampling are one call of `Model.generate`, those without one of `Model.choose`. The rounds
    depend on the scripts and the replies only, so a run that was killed asks again exactly what
    the journal does not hold.

    Args:
        scripts: Taken a window ahead: the first questions of the next window are asked while this
            one is finished, so that its slowest replies leave no endpoint idle.
        models: Those that the scripts ask; they choose the window.
        window: Scripts that move in step; two windows are held in memory. Default: two request
            windows of the models.
    """
    stream = iter(scripts)
    window = window or 2 * max((model.window for model in models), default=WINDOW)
    now = ScriptStep(list(islice(stream, window)))
    while now.scripts:
        then = ScriptStep(list(islice(stream, window)))
        yield from now.results()
        now = then


class ScriptStep(Generic[Result]):
    """Scripts that move in step, from their first questions to their results.

    The first questions are sent in the background, where the model can.
    """

    def __init__(self, scripts: list[Script[Result]]) -> None:
        self.scripts = scripts
        self._results: dict[int, Result] = {}
        self._waiting: dict[int, Sequence[Ask]] = {}
        for place in range(len(scripts)):
            self._advance(place, None)
        for call in _calls(chain.from_iterable(self._waiting.values())):
            if call.sampling is not None:
                call.model.prefetch(call.requests, call.sampling)

    def results(self) -> list[Result]:
        """Play to the end."""
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            found: dict[int, Reply | Choice] = {}
            for model, sampling, requests, places in _calls(chain.from_iterable(asked.values())):
                num = len(requests)
                if sampling is None:
                    found |= zip(places, model.choose(requests, total=num), strict=True)
                else:
                    replies = model.generate(requests, sampling, total=num)
                    found |= zip(places, replies, strict=True)
            ordered = (found[place] for place in range(len(found)))
            for place, asks in asked.items():
                self._advance(place, list(islice(ordered, len(asks))))
        return [self._results[place] for place in range(len(self.scripts))]

    def _advance(self, place: int, replies: list[Reply | Choice] | None) -> None:
        script = self.scripts[place]
        try:
            self._waiting[place] = next(script) if replies is None else script.send(replies)
        except StopIteration as end:
            self._results[place] = end.value


class _Call(NamedTuple):
    """Questions of one round to one model with one sampling, and their places in the round."""

    model: Model
    sampling: Sampling | None
    requests: list[Request]
    places: list[int]


def _calls(asks: Iterable[Ask]) -> list[_Call]:
    """Return the questions by model and sampling; the call of the first question comes first."""
    calls: list[_Call] = []
    for place, ask in enumerate(asks):
        how = ask.sampling
        alike = (
            call for call in calls
            if ask.model is call.model and (how is call.sampling or how == call.sampling)
        )  # fmt: skip
        if (call := next(alike, None)) is None:
            calls.append(call := _Call(ask.model, how, [], []))
        request = Request(
            id=str(len(call.places)), messages=ask.messages, sample_index=ask.sample_index,
            options=ask.options, continuation=ask.continuation,
        )  # fmt: skip
        call.requests.append(request)
        call.places.append(place)
    return calls
