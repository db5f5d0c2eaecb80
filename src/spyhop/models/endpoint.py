"""A served model: any OpenAI-compatible chat API, over one endpoint or many."""

import gc
from collections.abc import Iterable
from time import monotonic
from typing import Any, Literal

from pydantic import Field

from spyhop.models.base import Model, ModelConfig, ModelUse, Request, Sampling, Window
from spyhop.models.endpoint_client import EndpointClient
from spyhop.models.schedule import PendingBatch
from spyhop.models.service import Service
from spyhop.schema import ModelError
from spyhop.stage import Context, Progress

REPORT_S = 0.5
YOUNG_OBJECTS = 100_000
"""New objects before Python looks for cycles among them, while a served model is called."""


class Remote(ModelConfig):
    """What a served model is. Where it is served is told by a `Service`, and is no identity."""

    kind: Literal["remote"] = "remote"
    model: str
    """Its name, as the API calls it."""
    revision: str = ""
    """What tells two models of one name apart: a date, a commit, a quantisation."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Sent with every request, such as `reasoning_effort`; wins over fields of spyhop's own."""
    omit: tuple[str, ...] = ()
    """Fields that are not sent, for models that refuse them, such as `temperature` and `seed`."""

    @property
    def label(self) -> str:
        """Return the model's name."""
        return self.model

    def open(self, ctx: Context, use: ModelUse) -> Model:
        """Return the model; nothing is sent before a call that the journal cannot answer."""
        if use.service is None:
            raise ModelError(f"{self.model}: say where it is served ([[endpoints]] with a url)")
        return RemoteModel(self, use.service, identity=use.digest, ctx=ctx)


class RemoteModel(Model):
    """Asks over the network, in any order and as fast as the limits allow."""

    ahead = 3  # so that the slowest answers of a window do not leave the endpoints idle

    def __init__(self, config: Remote, service: Service, *, identity: str, ctx: Context) -> None:
        super().__init__(identity=identity, label=config.label, ctx=ctx, is_owned=True)
        self._config = config
        self._service = service
        self._client: EndpointClient | None = None
        self._pending: dict[str, PendingBatch] = {}
        """Batches in flight, by key."""
        self._failed: dict[str, str] = {}
        """Results of calls that failed for good, by key: they are not requested twice in a run."""
        self._waits: dict[int, dict[str, PendingBatch]] = {}
        """By window: batches it waits for, also those of earlier windows."""
        self._began = monotonic()

    def prefetch(self, requests: Iterable[Request], sampling: Sampling) -> None:
        """Begin to ask what a later `generate` will read."""
        for window in self._windows("generate", requests, sampling, None):
            self._start(window)
            self._waits.pop(id(window), None)

    def _start(self, window: Window) -> None:
        if window.kind == "logprobs":
            raise ModelError(
                f"{self.label}: a chat API gives no log-probabilities of a given text; use a folder"
            )
        for key in window.known:
            self._pending.pop(key, None)
        window.known |= {key: self._failed[key] for key in window.keys if key in self._failed}
        pairs = zip(window.keys, window.requests, strict=True)
        unknown = {key: request for key, request in pairs if key not in window.known}
        new = [(key, request) for key, request in unknown.items() if key not in self._pending]
        if new:
            client = self._client or self._open()
            batch = client.ask(window.kind, window.sampling, new)
            self._pending |= dict.fromkeys((key for key, _ in new), batch)
        self._waits[id(window)] = {key: self._pending[key] for key in unknown}

    def _finish(self, window: Window) -> dict[str, str]:
        waits = self._waits.pop(id(window))
        for batch in set(waits.values()):
            self._wait(batch, window)
            self._left += batch.left
            batch.left.clear()
            self._failed |= {key: batch.results[key] for key in batch.failed}
        for key in waits:
            self._pending.pop(key, None)
        return {key: batch.results[key] for key, batch in waits.items() if key in batch.results}

    def _wait(self, batch: PendingBatch, window: Window) -> None:
        client = self._client
        assert client is not None
        try:
            while not batch.done.wait(REPORT_S):
                self._report(client, window)
        except KeyboardInterrupt:
            self._ctx.notice("taking in the answers on their way; Ctrl-C once more leaves them")
            client.stop()
            raise
        if batch.error is not None:
            raise batch.error

    def _open(self) -> EndpointClient:
        config = self._config
        _calm_collector(self._ctx)
        self._client = client = EndpointClient(
            config.model, config.extra, config.omit, self._service, self._journal
        )
        self._ctx.resources.callback(self._close, client)
        if not client.last.is_closed:
            self._ctx.use("maybe_billed_twice", client.last.ceiling)
            self._ctx.notice(
                f"the last run on {self.label} ended hard: at most {client.last.ceiling} requests "
                "that were in flight then may be billed twice"
                + (f"; waiting {client.hold_s:.0f} s for its limits" if client.hold_s else "")
            )
        return client

    def _close(self, client: EndpointClient) -> None:
        client.close()
        self._ctx.use("maybe_billed", client.counts.num_maybe_billed)
        for kind, num in client.counts.failures.items():
            self._ctx.use(f"failed_attempts/{kind}", num)

    def _report(self, client: EndpointClient, window: Window) -> None:
        counts, spent = client.counts, client.state.spent_usd
        num_known = sum(len(batch.results) for batch in set(self._pending.values()))
        done = window.done + num_known
        rate = counts.num_answered / max(monotonic() - self._began, 1e-9)
        notes = [f"{rate:,.1f}/s"]
        if spent:
            notes.append(f"${spent:,.2f}")
            if window.total and counts.num_answered:
                more = (window.total - done) * counts.usd / counts.num_answered
                notes[-1] += f" of about ${spent + more:,.2f}"
        notes += [f"{kind} {num:,}" for kind, num in sorted(counts.failures.items())]
        notes += client.shares()
        note = ", ".join(notes)
        self._ctx.report(
            Progress(
                f"asking {self.label}", done, window.total, "rows", note=note,
                usage={"requests": counts.num_answered, "usd": counts.usd},
                errors=dict(counts.failures),
            )
        )  # fmt: skip


def _calm_collector(ctx: Context) -> None:
    """Look for cyclic garbage less often for as long as the stage runs.

    Thousands of requests wait at any time, and going through them again and again took a seventh
    of the processor time of a call.
    """
    before = gc.get_threshold()
    gc.set_threshold(YOUNG_OBJECTS, *before[1:])
    ctx.resources.callback(gc.set_threshold, *before)
