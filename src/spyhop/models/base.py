"""The model interface: `generate`, `choose` and `logprobs`; calls are journaled before use.

A stage sees a `Model`. A `BatchModel` has a `Backend` (weights in process, recorded answers) that
answers one batch at a time; batches are planned from the whole list of requests, so
a run that was killed asks the remaining batches exactly as a fresh run would. A served model
(`endpoint`) is asked without batches.
"""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from pydantic_core import PydanticSerializationError, to_json

from spyhop.cluster import Cluster
from spyhop.models.calls import (
    Choice,
    Kind,
    Labels,
    Reply,
    Request,
    Result,
    Sampling,
    TokenLogprobs,
)
from spyhop.models.journal import Journal
from spyhop.models.service import Service
from spyhop.models.shards import ReplyFiles
from spyhop.runtime import Runtime
from spyhop.schema import Config, InputError, ModelError, Unfinished
from spyhop.stage import Context, Progress
from spyhop.store import Artifact, canonical, key_of

WINDOW = 4096
ROWS_AT_ONCE = 16
BATCH = 500
"""Requests of a batch, where the model does not say how it batches them."""
CHOICES_READ = 2
"""Version of reading an endpoint's probabilities; raised when it changes, so that choices are
requested again."""
USAGE = (
    "prompt_tokens", "response_tokens", "usd", "reasoning_tokens", "cached_tokens",
    "cache_write_tokens",
)  # fmt: skip
"""Fields of results that a record sums up."""
KEY_CHARS = 32
"""Hex digits of a request's key: 128 bits, since there may be a billion."""


Row = TypeVar("Row")


@dataclass(slots=True)
class Window:
    """Consecutive requests of a call, their known results, and their position in the call."""

    kind: Kind
    sampling: Sampling
    requests: list[Request]
    keys: list[str]
    known: dict[str, str]
    """Results by key."""
    done: int
    """Requests of the call before these."""
    total: int | None


class Backend(Protocol):
    """Interface of a model in process: batches, and a method for each kind of call it can answer.

    They are `generate(batch, sampling)`, `choose(batch)`, `logprobs(batch)` and `classify(batch)`;
    results come in the order of the batch.
    """

    def batches(self, requests: Sequence[Request], kind: Kind) -> list[list[Request]]:
        """Split the requests of a call into batches; a function of the list alone."""
        return [list(requests[start : start + BATCH]) for start in range(0, len(requests), BATCH)]


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


class ModelConfig(Config):
    """What a model is. Every field but `name` is identity; where it runs belongs to `Runtime`."""

    version: ClassVar[int] = 1
    """Raised by hand whenever the same files and requests give other replies. It is part of the
    model's identity: replies that older code journaled are then not used."""
    needs: ClassVar[str] = ""
    """Extra of the package that it needs."""

    def connect(self, folder: Artifact | None, runtime: Runtime) -> Backend:
        """Return the backend of a model in process, loaded and ready."""
        raise TypeError(f"{type(self).__name__} must say how to connect")

    def sends_greedy(self, sampling: Sampling) -> bool:
        """Return whether the model decodes greedily, so that all its samples are equal."""
        return sampling.is_greedy

    def check_samples(self, num_samples: int, sampling: Sampling) -> None:
        """Refuse several samples that would all be the same."""
        if num_samples > 1 and self.sends_greedy(sampling):
            raise ModelError(
                f"{self.label}: {num_samples} samples at temperature 0 are all the same; set "
                'sampling.temperature above 0, or to "unset"'
            )

    def open(self, ctx: Context, use: "ModelUse") -> "Model":
        """Return the model; weights are loaded at the first call that the journal cannot answer."""
        folder = use.folder and Artifact(use.folder.path.absolute(), use.folder.record)
        return BatchModel(
            connect=partial(self.connect, folder, ctx.runtime),
            identity=use.digest,
            label=self.label,
            ctx=ctx,
            config=self,
        )

    @property
    def label(self) -> str:
        """Short name for reports."""
        return str(getattr(self, "name", type(self).__name__.lower()))


@dataclass(eq=False, slots=True)
class ModelUse:
    """A model as a stage's input: its config, and its folder or its service."""

    config: ModelConfig
    folder: Artifact | None = None
    service: Service | None = None

    @property
    def key(self) -> str:
        """Hash of the config, display name excluded, and of the folder's key."""
        return self._hash(self.folder.key if self.folder else None)

    @property
    def digest(self) -> str:
        """Hash of the config, display name excluded, and of the folder's content."""
        return self._hash(self.folder.digest if self.folder else None)

    def _hash(self, folder: str | None) -> str:
        kind = type(self.config)
        content = {n: getattr(self.config, n) for n in kind.model_fields if n != "name"}
        return key_of([kind.__name__, kind.version, content, folder])

    def open(self, ctx: Context) -> "Model":
        """Return the opened model; inputs of the same identity share it."""
        held: tuple[ModelUse, Model] | None = ctx.models.get(self.digest)
        if held is None:
            held = ctx.models[self.digest] = (self, self.config.open(ctx, self))
        if held[0].service != self.service:
            raise ModelError(
                f"{self.config.label}: one model with two different services in one stage; "
                "name the same file twice, or give the models different revisions"
            )
        return held[1]


class Model:
    """A model as stages use it: replies in the order of the requests, each requested at most once.

    Kinds of models differ in how they fill the journal: `_start` and `_finish`.
    """

    window = WINDOW
    """Requests that are sent and then read in order together; a batch API takes a whole stage's."""
    ahead = 0
    """Windows that are sent while an earlier one is read."""
    on_text: Callable[[str], bool] | None = None
    """Receives a response while it is written, in conversations; False ends the response."""

    def __init__(
        self,
        *,
        identity: str,
        label: str,
        ctx: Context,
        config: ModelConfig | None = None,
        is_owned: bool = False,
    ) -> None:
        self.identity = identity
        """Hash of what the model is."""
        self.label = label
        self.config = config
        self._ctx = ctx
        self._left: Counter[str] = Counter()
        """Requests left for the next run, by reason."""
        self._cause = ""
        """The last reason in words."""
        self._num_read = 0
        """Requests of all finished calls."""
        root = ctx.root
        if ctx.shard is not None and not is_owned:  # no lock on the disk that shards share
            root = Path(ctx.resources.enter_context(TemporaryDirectory(prefix="spyhop-shard-")))
        self._journal = Journal(root, identity, is_owned=is_owned)
        ctx.resources.callback(self._journal.close)
        if root != ctx.root:
            self._journal.read_also(ctx.root)

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, total: int | None = None
    ) -> Iterator[Reply]:
        """Yield one reply per request, in order.

        A failed call is a reply with `error`. Replies that the journal holds are not requested.
        `total` is for the progress bar only.
        """
        yield from self._ask("generate", requests, sampling, Reply, total)

    def check_samples(self, num_samples: int, sampling: Sampling) -> None:
        """Refuse several samples that would all be the same."""
        if self.config is not None:
            self.config.check_samples(num_samples, sampling)

    def has_all(self, *capabilities: str) -> bool:
        """Return whether the model is not known to lack one of these capabilities."""
        return True

    def prefetch(self, requests: Iterable[Request], sampling: Sampling) -> None:
        """Send requests that a later `generate` will read, if the model works in the background."""

    def choose(self, requests: Iterable[Request], *, total: int | None = None) -> Iterator[Choice]:
        """Yield the probabilities of each request's options, in order."""
        yield from self._ask("choose", requests, None, Choice, total)

    def logprobs(
        self, requests: Iterable[Request], *, total: int | None = None
    ) -> Iterator[TokenLogprobs]:
        """Yield the log-probabilities of each request's continuation, in order."""
        yield from self._ask("logprobs", requests, None, TokenLogprobs, total)

    def classify(
        self, requests: Iterable[Request], *, total: int | None = None
    ) -> Iterator[Labels]:
        """Yield the labels of each request's last turn, in order; classifiers only."""
        yield from self._ask("classify", requests, None, Labels, total)

    def _ask(
        self,
        kind: Kind,
        requests: Iterable[Request],
        sampling: Sampling | None,
        result_type: type[Result],
        total: int | None,
    ) -> Iterator[Result]:
        started: deque[Window] = deque()
        for window in self._windows(kind, requests, sampling, total):
            self._start(window)
            started.append(window)
            if len(started) > self.ahead:
                yield from self._read(started.popleft(), result_type)
        num_read = window.done + len(window.keys) if started else 0
        while started:
            yield from self._read(started.popleft(), result_type)
        self._num_read += num_read
        self._ctx.num_calls += not self._left
        self._count_use()
        if self._left:
            left, self._left = self._left, Counter()  # a later call may have its replies
            why = ", ".join(f"{name}: {num:,}" for name, num in sorted(left.items()))
            raise Unfinished(
                f"{self.label}: {left.total():,} requests have no reply yet ({why})"
                + (f", the last one: {self._cause}" if self._cause else "")
                + "; run again to request them"
            )

    def _windows(
        self,
        kind: Kind,
        requests: Iterable[Request],
        sampling: Sampling | None,
        total: int | None,
    ) -> Iterator[Window]:
        done, stream, start = 0, iter(requests), _start_of(kind, sampling)
        while some := list(islice(_giving_way(stream), self.window)):
            keys = [_key(start, request) for request in _giving_way(some)]
            if len({request.id for request in some}) < len(some):
                raise InputError(f"{self.label}: two requests of one call have the same id")
            known = self._journal.get(keys)
            yield Window(kind, sampling or Sampling(), some, keys, known, done, total)
            done += len(some)

    def _read(self, window: Window, result_type: type[Result]) -> Iterator[Result]:
        known = window.known
        if any(key not in known for key in window.keys):
            known |= self._finish(window)
        if self._left:  # nothing can be finished now, but what follows is asked and kept
            return
        new, use = self._journal.first_read(window.keys), self._ctx.use
        for key, request in _giving_way(zip(window.keys, window.requests, strict=True)):
            result = self._interpret(result_type.model_validate_json(known[key]))
            if key in new:  # rows that share a reply made one call
                new.remove(key)
                use("requests", 1)
                for name in USAGE:
                    use(name, getattr(result, name, 0))
            if result.id != request.id:  # the reply to an equal request
                result = result.model_copy(update={"id": request.id})
            yield result

    def _interpret(self, result: Result) -> Result:
        """Return a result as the current settings interpret it."""
        return result

    def _count_use(self) -> None:
        """Count failed attempts, and requests that may be billed without a reply."""

    def _start(self, window: Window) -> None:
        """Send requests that are not in the journal, if the model works in the background."""

    def _finish(self, window: Window) -> dict[str, str]:
        """Return the results that were not in the journal, by key, once they are there.

        Results with `error` are returned too, and are not journaled.
        """
        raise NotImplementedError


class BatchModel(Model):
    """A model in process, which answers in batches: here, on a cluster, or shared with shards."""

    def __init__(self, *, connect: Callable[[], Backend], **about: Any) -> None:  # noqa: ANN401
        super().__init__(**about)
        ctx = self._ctx
        self._worker = BatchWorker(connect, self.label)
        self._cluster: Cluster | None = None
        has_weights = bool(self.config and self.config.needs)
        self._on = ctx.runtime.on if has_weights else ""
        self._shard = ctx.shard if has_weights else None
        is_shard = ctx.shard is not None
        self._files = ReplyFiles(ctx.root, self.identity, self._journal, is_shard=is_shard)
        ctx.resources.callback(self._files.flush)

    def _finish(self, window: Window) -> dict[str, str]:
        if self._shard is not None and not self._shard.number:  # it need not load the weights
            self._left["of other shards"] += len(set(window.keys) - window.known.keys())
            return {}
        asked = Asked(window.kind, window.sampling, window.requests)
        key_by_id = {r.id: key for r, key in zip(window.requests, window.keys, strict=True)}
        found: dict[str, str] = {}
        began, num_tokens = monotonic(), 0
        batch_of: dict[str, int] = {}
        ((_, batches),) = self._computed(asked, [None])
        for number, batch in enumerate(batches):
            for request_id in batch:  # equal requests share the reply of the first batch
                batch_of.setdefault(key_by_id[request_id], number)
        due = self._due({key: n for key, n in batch_of.items() if key not in window.known})
        done = window.done + len(window.known)
        if self.on_text is not None and hasattr(self._worker.backend, "listen"):
            self._worker.backend.listen(self.on_text)
        for place, results in self._computed(asked, due):
            own = [each for each in results if batch_of[key_by_id[each.id]] == due[place]]
            replies = {key_by_id[each.id]: each.model_dump_json() for each in own}
            failed = {key_by_id[each.id] for each in own if each.error is not None}
            self._journal.put({k: text for k, text in replies.items() if k not in failed})
            if self._shard is not None:
                self._files.add(replies)
            found |= {k: text for k, text in replies.items() if k not in window.known}
            num_tokens += sum(each.prompt_tokens + each.response_tokens for each in results)
            done += len(own)
            note = f"{num_tokens / max(monotonic() - began, 1e-9):,.0f} tokens/s"
            doing = f"asking {self.label}"
            usage = {"tokens": num_tokens}
            self._ctx.report(Progress(doing, done, window.total, "rows", note=note, usage=usage))
        return found

    def _due(self, missing: Mapping[str, int]) -> list[int]:
        """Return the batches to answer here, of those that the missing keys are in."""
        if self._shard is None:
            return sorted(set(missing.values()))
        new = self._journal.first_read(list(missing), "asked")  # others are an earlier window's
        mine = {key for key in new if self._shard.owns(missing[key])}
        for key in missing.keys() - mine:
            self._left[f"of shard {missing[key] % self._shard.total + 1}"] += 1
        return sorted({missing[key] for key in mine})

    def _computed(
        self, asked: Asked, numbers: Sequence[int | None]
    ) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield the place of each number and what a `BatchWorker` gives for it, as they come."""
        if not self._on:
            yield from enumerate(self._worker(asked, number) for number in numbers)
            return
        if self._cluster is None:
            share = len(self._ctx.models)  # they are asked in turns, and all have their actors
            gpus, threads = self._ctx.runtime.device != "cpu", self._ctx.runtime.threads
            self._cluster = Cluster(self._on, self._worker, cpus=threads / share, gpus=gpus / share)
            self._ctx.resources.callback(self._cluster.close)
        yield from self._cluster.map(asked, numbers)


def _giving_way(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the GIL every few rows so that reply handling is not delayed."""
    for place, row in enumerate(rows):
        if not place % ROWS_AT_ONCE:
            sleep(0)
        yield row


def request_key(kind: Kind, sampling: Sampling | None, request: Request) -> str:
    """Return the key of a request in its model's journal."""
    return _key(_start_of(kind, sampling), request)


def _start_of(kind: Kind, sampling: Sampling | None) -> str:
    how: list[object] = [CHOICES_READ] if kind == "choose" else []
    return canonical([kind, [sampling.identity()] if sampling else how])


def _key(start: str, request: Request) -> str:
    """Hash the exact request: everything but its id."""
    turns = [(turn.role, turn.content) for turn in request.messages]
    rest: tuple[object, ...] = (
        start, turns, request.options, request.continuation, request.sample_index
    )  # fmt: skip
    if request.text or request.with_unconditional:
        rest = (*rest, request.text, request.with_unconditional)
    if request.scored_ids:
        rest = (*rest, request.ids, request.scored_ids, request.num_top)
    try:
        text = to_json(rest)
    except PydanticSerializationError:  # a lone surrogate, which is no Unicode
        text = json.dumps(rest).encode()
    return hashlib.sha256(text).hexdigest()[:KEY_CHARS]
