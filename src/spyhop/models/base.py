"""The model interface: `generate`, `choose` and `score`, every call journaled before it is used.

A stage sees a `Model`. Behind it stands a `Backend` (weights in process, recorded answers, a
server) that answers one batch at a time. Batches are planned from the whole list of requests, so
a run that was killed asks the remaining batches exactly as a fresh run would.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from spyhop.models.journal import Journal
from spyhop.schema import Config, InputError, Message
from spyhop.stage import Context, Progress, Runtime
from spyhop.store import Artifact, key_of

WINDOW = 4096
"""Requests that are planned, asked and written in order together; what is held in memory."""


class Sampling(Config):
    """How a response is drawn. Temperature 0 is greedy."""

    max_new_tokens: int = Field(512, gt=0)
    temperature: float = Field(0.0, ge=0.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    seed: int = 0
    """Randomness is drawn per request from the seed and the prompt, never from call order."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str


class Request(_Frozen):
    """One call: a prompt, and for `choose` its options, for `score` its continuation."""

    messages: list[Message]
    options: list[str] = []
    continuation: str = ""
    sample_index: int = 0


class Reply(_Frozen):
    """A response. `finish_reason` is `stop`, `length` (cut), or `error` with the reason beside."""

    text: str
    finish_reason: str
    prompt_tokens: int = 0
    response_tokens: int = 0
    error: str | None = None


class Choice(_Frozen):
    """Probabilities of a request's options, normalised over them."""

    probabilities: list[float]
    prompt_tokens: int = 0
    error: str | None = None


class Likelihood(_Frozen):
    """Natural log-probability of a continuation given the prompt, summed over its tokens."""

    log_probability: float
    num_tokens: int
    prompt_tokens: int = 0
    error: str | None = None


Result = TypeVar("Result", Reply, Choice, Likelihood)


class Backend(Protocol):
    """What a kind of model must offer. Results come in the order of the batch."""

    def batches(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Split requests into batches; a function of the list alone."""

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """Answer one batch."""

    def choose(self, batch: Sequence[Request]) -> list[Choice]:
        """Weigh the options of one batch."""

    def score(self, batch: Sequence[Request]) -> list[Likelihood]:
        """Weigh the continuations of one batch."""


class ModelConfig(Config):
    """What a model is. Every field is identity; where it runs belongs to `Runtime`."""

    version: ClassVar[int] = 1
    """Raised by hand whenever the same files and requests give other replies: it is part of the
    model's identity, so the journal of the old code is left behind."""

    def connect(self, folder: Artifact | None, runtime: Runtime) -> Backend:
        """Return the backend, loaded and ready."""
        raise TypeError(f"{type(self).__name__} must say how to connect")

    @property
    def label(self) -> str:
        """Short name for reports."""
        return type(self).__name__.lower()


class ModelUse:
    """A model named as a stage's input: its config and the folder it reads, if any."""

    def __init__(self, config: ModelConfig, folder: Artifact | None = None) -> None:
        self.config = config
        self.folder = folder

    @property
    def key(self) -> str:
        """Hash of the config and of the folder's key."""
        return self._hash(self.folder.key if self.folder else None)

    @property
    def digest(self) -> str:
        """Hash of the config and of the folder's content."""
        return self._hash(self.folder.digest if self.folder else None)

    def _hash(self, folder: str | None) -> str:
        kind = type(self.config)
        return key_of([kind.__name__, kind.version, self.config, folder])

    def open(self, ctx: Context) -> "Model":
        """Return the model; weights are loaded at the first call that the journal cannot answer."""
        return Model(
            connect=lambda: self.config.connect(self.folder, ctx.runtime),
            identity=self.digest,
            label=self.config.label,
            ctx=ctx,
        )


class Model:
    """A model as stages use it: replies in the order of the requests, each asked at most once."""

    def __init__(
        self, *, connect: Callable[[], Backend], identity: str, label: str, ctx: Context
    ) -> None:
        self.label = label
        self._connect = connect
        self._backend: Backend | None = None
        self._ctx = ctx
        self._journal = Journal(ctx.root, identity)
        ctx.resources.callback(self._journal.close)

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, total: int | None = None
    ) -> Iterator[Reply]:
        """Yield one reply per request, in order.

        A failed call is a reply with `error`. Replies that the journal holds are not asked again.
        `total` is for the progress bar only.
        """
        ask = lambda batch: self._open().generate(batch, sampling)  # noqa: E731
        for reply in self._ask("generate", requests, [sampling], ask, Reply, total):
            self._ctx.usage["response_tokens"] += reply.response_tokens
            yield reply

    def choose(self, requests: Iterable[Request], *, total: int | None = None) -> Iterator[Choice]:
        """Yield the probabilities of each request's options, in order."""
        ask = lambda batch: self._open().choose(batch)  # noqa: E731
        yield from self._ask("choose", requests, [], ask, Choice, total)

    def score(
        self, requests: Iterable[Request], *, total: int | None = None
    ) -> Iterator[Likelihood]:
        """Yield the log-probability of each request's continuation, in order."""
        ask = lambda batch: self._open().score(batch)  # noqa: E731
        yield from self._ask("score", requests, [], ask, Likelihood, total)

    def _open(self) -> Backend:
        if self._backend is None:
            self._backend = self._connect()
        return self._backend

    def _ask(
        self,
        kind: str,
        requests: Iterable[Request],
        settings: list[Config],
        ask: Callable[[list[Request]], list[Result]],
        result_type: type[Result],
        total: int | None,
    ) -> Iterator[Result]:
        done, stream = 0, iter(requests)
        while window := list(islice(stream, WINDOW)):
            keys = {
                request.id: key_of([kind, settings, request.model_copy(update={"id": ""})])
                for request in window
            }
            if len(keys) < len(window):
                raise InputError(f"{self.label}: two requests of one call have the same id")
            known = self._journal.get(list(keys.values()))
            if len(known) < len(set(keys.values())):
                self._fill(window, keys, known, ask, done, total)
                known = self._journal.get(list(keys.values()))
            for request in window:
                result = result_type.model_validate_json(known[keys[request.id]])
                self._ctx.usage["requests"] += 1
                self._ctx.usage["prompt_tokens"] += result.prompt_tokens
                yield result.model_copy(update={"id": request.id})
            done += len(window)

    def _fill(
        self,
        window: list[Request],
        keys: dict[str, str],
        known: dict[str, str],
        ask: Callable[[list[Request]], list[Result]],
        done: int,
        total: int | None,
    ) -> None:
        began, num_tokens = monotonic(), 0
        for batch in self._open().batches(window):
            if any(keys[request.id] not in known for request in batch):
                results = ask(batch)
                replies = {keys[result.id]: result.model_dump_json() for result in results}
                self._journal.put(replies)
                known |= replies
                num_tokens += sum(_num_tokens(result) for result in results)
            done += len(batch)
            note = f"{num_tokens / max(monotonic() - began, 1e-9):,.0f} tokens/s"
            self._ctx.report(Progress(f"asking {self.label}", done, total, "rows", note=note))


def _num_tokens(result: Reply | Choice | Likelihood) -> int:
    return result.prompt_tokens + (result.response_tokens if isinstance(result, Reply) else 0)
