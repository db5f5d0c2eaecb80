"""A served model: any OpenAI-compatible chat API, over one endpoint or many."""

import gc
import json
from collections import defaultdict
from collections.abc import Iterable
from time import monotonic
from typing import Any, Literal

from pydantic import Field

from spyhop.models.base import Model, ModelConfig, ModelUse, Window
from spyhop.models.batch_client import BatchClient
from spyhop.models.batch_jobs import open_batches
from spyhop.models.calls import Reply, Request, Result, Sampling
from spyhop.models.capabilities import has_all, refusal
from spyhop.models.dialect import DIALECTS
from spyhop.models.endpoint_client import EndpointClient
from spyhop.models.journal import State
from spyhop.models.replies import split_thoughts
from spyhop.models.schedule import PendingBatch
from spyhop.models.service import Service
from spyhop.schema import ModelError
from spyhop.stage import Context, Progress

REPORT_S = 0.5
SILENT_S = 3.0
"""Without a reply for this long, the last failure is shown."""
PROJECTED_FROM = 0.05
"""Share of the replies from which the cost of all is projected."""
BATCH_WINDOW = 1_000_000
"""Requests that are sent together by batches: those of a whole stage."""
YOUNG_OBJECTS = 100_000
"""New objects before Python looks for cycles, while a served model is called: to look through
thousands of waiting requests again and again took a seventh of the processor time of a call."""


class Remote(ModelConfig):
    """What a served model is. Where it is served is told by a `Service`, and is no identity."""

    kind: Literal["remote"] = "remote"
    model: str
    """Its name, as the API calls it."""
    revision: str = ""
    """Distinguishes models with the same name: a date, commit or quantisation."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Sent with every request, such as `reasoning_effort`; wins over fields of spyhop's own."""
    omit: tuple[str, ...] = ()
    """Fields that are not sent, for models that refuse them, such as `temperature` and `seed`."""

    @property
    def label(self) -> str:
        """Return the model's name."""
        return self.model

    def sends_greedy(self, sampling: Sampling) -> bool:
        """Whether temperature 0 is really sent."""
        sent = self.extra.get("temperature", sampling.temperature)
        return "temperature" not in self.omit and sent == 0

    def open(self, ctx: Context, use: ModelUse) -> Model:
        """Return the model; nothing is sent before a call that the journal cannot answer."""
        if use.service is None:
            raise ModelError(f"{self.model}: say where it is served ([[endpoints]] with a url)")
        return RemoteModel(self, use.service, identity=use.digest, ctx=ctx)


class RemoteModel(Model):
    """Asks over the network, in any order and as fast as the limits allow."""

    ahead = 3  # so that the slowest replies of a window do not leave the endpoints idle

    def __init__(self, config: Remote, service: Service, *, identity: str, ctx: Context) -> None:
        super().__init__(
            identity=identity, label=config.label, ctx=ctx, config=config, is_owned=True
        )
        self._config = config
        self._service = service
        self._client: EndpointClient | BatchClient | None = None
        if service.is_batch:
            self.window, self.ahead = BATCH_WINDOW, 0
        self._pending: dict[str, PendingBatch] = {}
        """Batches in flight, by key."""
        self._failed: dict[str, str] = {}
        """Results of permanent failures, by key: they are not requested twice in a run."""
        self._waits: dict[int, dict[str, PendingBatch]] = {}
        """By window: batches it waits for, also those of earlier windows."""
        self._checked: set[tuple[str, str, bool]] = set()
        """Kinds of calls that the endpoints are able to answer."""
        self._began = monotonic()
        self._most_done = 0
        self._num_journaled = 0
        """Requests whose replies were in the journal before this run."""
        self._noted = defaultdict[str, float](float)
        path = ctx.state / f"bills-{identity}.json"  # beside the stage's partial work
        if not path.exists():
            path.write_text(json.dumps(_figures(self._journal.state().taken_over())))
        self._before: dict[str, float] = json.loads(path.read_text())
        """What may have been billed for nothing or twice before the stage's first run."""

    def prefetch(self, requests: Iterable[Request], sampling: Sampling) -> None:
        """Send requests that a later `generate` will read."""
        for window in self._windows("generate", requests, sampling, None):
            num_journaled = self._num_journaled
            self._start(window)
            self._waits.pop(id(window), None)
            self._num_journaled = num_journaled  # the later `generate` counts them

    def _start(self, window: Window) -> None:
        is_scored = window.kind == "logprobs"
        if is_scored and not all(request.scored_ids for request in window.requests):
            raise ModelError(
                f"{self.label}: a chat API gives no log-probabilities of a given text; use a folder"
            )
        kinds = {"chats" if each.messages else "plain prompts" for each in window.requests}
        kinds = {"texts to label"} if window.kind == "classify" else kinds
        for each in self._service.endpoints:
            takes = DIALECTS[each.api].takes
            for wrong in kinds - {takes}:
                form = {"chats": "asked", "plain prompts": "plain"}.get(takes)
                remedy = f"; for a benchmark, add --set measure.form={form}" if form else ""
                remedy = '; set api = "completions"' if is_scored else remedy
                raise ModelError(
                    f"{self.label}: {each.address} has api = {each.api!r}: it takes {takes}, not "
                    f"{wrong}{remedy}"
                )
        self._refuse(window)
        self._num_journaled += sum(key not in self._pending for key in window.known)
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

    def _refuse(self, window: Window) -> None:
        """Refuse requests that need what an endpoint is known not to have, before they are sent."""
        is_begun = any(request.continuation for request in window.requests)
        needed = (window.kind, window.sampling.model_dump_json(), is_begun)
        if needed in self._checked or len(window.known) == len(window.keys):
            return
        self._checked.add(needed)
        if reason := refusal(
            self._ctx.root, self._config.model, self._service, window.sampling, self._config.omit,
            kind=window.kind, is_begun=is_begun,
        ):  # fmt: skip
            raise ModelError(f"{self.label}: {reason}")

    def has_all(self, *capabilities: str) -> bool:
        """Return whether no endpoint is known to lack one of these capabilities."""
        return has_all(self._ctx.root, self._config.model, self._service, capabilities)

    def _finish(self, window: Window) -> dict[str, str]:
        waits, client = self._waits.pop(id(window)), self._client
        for batch in set(waits.values()):
            assert client is not None
            try:
                while not batch.done.wait(REPORT_S):
                    self._report(client, window)
            except KeyboardInterrupt:
                note = "waiting for in-flight replies; press Ctrl-C again to abandon them"
                self._ctx.notice(note)
                client.stop()
                raise
            if batch.error is not None:
                raise batch.error
            self._left += batch.left
            self._cause = batch.cause or self._cause
            batch.left.clear()
            self._failed |= {key: batch.results[key] for key in batch.failed}
        for key in waits:
            self._pending.pop(key, None)
        return {key: batch.results[key] for key, batch in waits.items() if key in batch.results}

    def _interpret(self, result: Result) -> Result:
        """Apply the settings' finish reasons; split off thoughts that older code left in texts."""
        if not isinstance(result, Reply) or result.error is not None:
            return result
        change: dict[str, object] = {}
        if "think" in result.text.lower() and not result.reasoning:
            thoughts, text = split_thoughts(result.text)
            change = {"reasoning": thoughts, "text": text}
        mapped = self._service.finish_reasons.get(result.finish_reason)
        if mapped is not None:
            is_empty = mapped == "whole" and not result.text.strip()
            change["ending"] = "empty" if is_empty else mapped
        return result.model_copy(update=change) if change else result

    def _count_use(self) -> None:
        """Bring up to date what the stage may have been billed for nothing or twice, in all runs.

        The journal counts it for the model, whatever happens to the process.
        """
        client = self._client
        state = client.state if client else self._journal.state().taken_over()
        figures = {name: num - self._before[name] for name, num in _figures(state).items()}
        failures = client.counts.failures if client else {}
        figures |= {f"failed_attempts/{kind}": num for kind, num in failures.items()}
        for name, amount in figures.items():
            self._ctx.use(name, amount - self._noted[name])
            self._noted[name] = amount

    def _open(self) -> EndpointClient | BatchClient:
        config = self._config
        before = gc.get_threshold()
        gc.set_threshold(YOUNG_OBJECTS, *before[1:])
        self._ctx.resources.callback(gc.set_threshold, *before)
        is_batch = self._service.is_batch
        if not is_batch and (jobs := open_batches(self._journal)):
            raise ModelError(
                f"{self.label}: {sum(job.num for job in jobs):,} requests are in batches that were "
                "sent earlier; fetch them with `spyhop batches --fetch`, or set batch = true"
            )
        kind = BatchClient if is_batch else EndpointClient
        self._client = client = kind(
            config.model, config.extra, config.omit, self._service, self._journal
        )
        if isinstance(client, EndpointClient):
            client.on_text = self.on_text
        self._ctx.resources.callback(self._close, client)
        if not client.last.is_closed:
            self._ctx.notice(
                f"previous run on {self.label} did not shut down cleanly: up to "
                f"{client.last.ceiling} in-flight requests may be billed twice"
                + (f"; waiting {client.hold_s:.0f} s for rate limits" if client.hold_s else "")
            )
        return client

    def _close(self, client: EndpointClient | BatchClient) -> None:
        before = client.last.unsettled_usd
        client.close()
        self._count_use()
        if (more := client.state.unsettled_usd - before) > 0:
            self._ctx.notice(
                f"{self.label}: requests without a reply may have been billed; ${more:.4f} is "
                "reserved for them (compare with the provider's bill, then run with --settle)"
            )

    def _report(self, client: EndpointClient | BatchClient, window: Window) -> None:
        counts, spent = client.counts, client.state.spent_usd
        num_known = sum(len(batch.results) for batch in set(self._pending.values()))
        done = self._num_read + window.done + num_known
        total = None if window.total is None else self._num_read + window.total
        self._most_done = max(self._most_done, done if total is None else min(done, total))
        notes = [f"{counts.num_answered / max(monotonic() - self._began, 1e-9):,.1f}/s"]
        silent_s = monotonic() - (counts.answered_at or self._began)
        if silent_s > SILENT_S and counts.last_failure:
            notes.insert(0, f"no reply for {silent_s:.0f} s: {counts.last_failure}")
        if spent:
            notes.append(f"${spent:,.2f}")
            if total and counts.num_answered >= PROJECTED_FROM * total:
                mean = counts.usd / counts.num_answered
                whole = spent - counts.usd + mean * (total - self._num_journaled)
                notes[-1] += f" of about ${max(spent, whole):,.2f}"
        notes += [f"{kind} {num:,}" for kind, num in sorted(counts.failures.items())]
        notes += client.shares()
        self._ctx.report(
            Progress(
                f"asking {self.label}", self._most_done, total, "rows", note=", ".join(notes),
                usage={
                    "requests": counts.num_answered, "prompt_tokens": counts.prompt_tokens,
                    "response_tokens": counts.response_tokens, "usd": counts.usd,
                },
                errors=dict(counts.failures),
            )
        )  # fmt: skip


def _figures(state: State) -> dict[str, float]:
    return {
        "maybe_billed": state.num_maybe_billed,
        "maybe_billed_twice": state.num_maybe_twice,
        "maybe_billed_usd": state.maybe_billed_usd,
    }
