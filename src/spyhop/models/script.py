"""Rows as scripts: each row yields questions, and the questions of all rows are sent together."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

from spyhop.models.base import WINDOW, Model
from spyhop.models.calls import Choice, Reply, Request, Sampling
from spyhop.schema import Message, ModelError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of a script to a model."""

    model: Model
    messages: list[Message]
    sampling: Sampling
    sample_index: int = 0


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """Options for a model to score; the reply is a `Choice`."""

    model: Model
    messages: list[Message]
    options: tuple[str, ...]
    continuation: str = ""
    """A prefilled response; the options are scored after it."""

    @property
    def sampling(self) -> None:
        """None: nothing is generated."""


Question: TypeAlias = Ask | ScoreOptions
Script: TypeAlias = Generator[Sequence[Question], list[Any], Result]
"""Yields questions, is sent their replies in the same order (a `Reply` to an `Ask`, a `Choice` to
a `ScoreOptions`), and returns its result."""


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
    now.prefetch()
    while now.scripts:
        then = ScriptStep(list(islice(stream, window)))
        then.prefetch()
        yield from now.results()
        now = then


class ScriptStep(Generic[Result]):
    """Scripts that move in step, from their first questions to their results."""

    def __init__(self, scripts: list[Script[Result]]) -> None:
        self.scripts = scripts
        self._results: dict[int, Result] = {}
        self._waiting: dict[int, Sequence[Question]] = {}
        for place in range(len(scripts)):
            self._go_on(place, None)

    def prefetch(self) -> None:
        """Send the first questions in the background, where the model can."""
        for call in _calls([ask for asks in self._waiting.values() for ask in asks])[0]:
            if call.sampling is not None:
                call.model.prefetch(call.requests(), call.sampling)

    def results(self) -> list[Result]:
        """Play to the end."""
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            calls, where = _calls([ask for asks in asked.values() for ask in asks])
            found: list[Iterator[Reply | Choice]] = [  # that of the first question is asked first
                iter(list(call.replies())) for call in calls
            ]
            replies = (next(found[call]) for call in where)
            for place, asks in asked.items():
                self._go_on(place, list(islice(replies, len(asks))))
        return [self._results[place] for place in range(len(self.scripts))]

    def _go_on(self, place: int, replies: list[Reply | Choice] | None) -> None:
        script = self.scripts[place]
        try:
            self._waiting[place] = next(script) if replies is None else script.send(replies)
        except StopIteration as end:
            self._results[place] = end.value


@dataclass(slots=True)
class _QuestionGroup:
    """Questions of one round to one model with one sampling."""

    model: Model
    sampling: Sampling | None
    asks: list[Question] = field(default_factory=list)

    def requests(self) -> Iterator[Request]:
        for place, ask in enumerate(self.asks):
            asked = Request(id=str(place), messages=ask.messages)
            if isinstance(ask, Ask):
                yield asked.model_copy(update={"sample_index": ask.sample_index})
            else:
                how = {"options": ask.options, "continuation": ask.continuation}
                yield asked.model_copy(update=how)

    def replies(self) -> Iterator[Reply] | Iterator[Choice]:
        if self.sampling is None:
            return self.model.choose(self.requests(), total=len(self.asks))
        return self.model.generate(self.requests(), self.sampling, total=len(self.asks))


def _calls(asks: list[Question]) -> tuple[list[_QuestionGroup], list[int]]:
    """Return the questions grouped by model and sampling, and the group of each."""
    calls: list[_QuestionGroup] = []
    where = []
    for ask in asks:
        how = ask.sampling
        alike = (
            number for number, call in enumerate(calls)
            if ask.model is call.model and (how is call.sampling or how == call.sampling)
        )  # fmt: skip
        place = next(alike, len(calls))
        if place == len(calls):
            calls.append(_QuestionGroup(ask.model, ask.sampling))
        calls[place].asks.append(ask)
        where.append(place)
    return calls, where
