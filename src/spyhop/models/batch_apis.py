"""Batch APIs: what each provider's form offers.

A batch is one file of requests that a provider answers within a day at a lower price. Each line
has the payload of an ordinary call, and the key by which its result is recognised.
"""

import itertools
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from pydantic_core import from_json, to_json

from spyhop.models.dialect import Json
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure
from spyhop.models.transport import BatchHttp

MARGIN = 0.9
"""Share of a provider's limits that a batch uses."""
PAGE = 100
CLOCK_S = 600.0
"""A provider's clock and ours may differ by this much."""
MEGABYTE = 1_000_000
ENDED = ("completed", "success", "succeeded", "ended", "expired", "cancelled", "timeout_exceeded")


class Progress(NamedTuple):
    """How far a provider is with a batch."""

    state: Literal["running", "ended", "failed"]
    """`failed`: the provider refused the batch as a whole, and answered nothing."""
    done: int = 0
    files: tuple[str, ...] = ()
    """Where the results are."""
    message: str = ""


class Result(NamedTuple):
    """One line of results."""

    key: str
    status: int
    """As of an ordinary call; 0: the request was not processed, and is not billed."""
    raw: bytes
    """The body."""


class BatchApi:
    """OpenAI's form, which most providers copy: files and batches are objects of their own."""

    most_requests = 50_000
    most_bytes = 200 * MEGABYTE
    has_file = True
    """Whether a file is uploaded before the batch starts."""
    prefix = ""
    uploads = "/files"
    purpose = "batch"
    jobs = "/batches"
    cancels = "/cancel"
    after = "after"
    """Parameter of a list that names the last batch of the page before."""

    def __init__(self, state: EndpointState) -> None:
        self.endpoint, self.model, self.http = state.config, state.model, BatchHttp(state)
        self.call = f"/v1{state.dialect.path}"
        """Address of each request, as the batch names it."""

    def _at(self, path: str, query: str = "") -> str:
        return f"{self.endpoint.url}{self.prefix}{path}" + (f"?{query}" if query else "")

    def line(self, key: str, body: Json) -> Json:
        """Return a line of a batch file."""
        return {"custom_id": key, "method": "POST", "url": self.call, "body": body}

    async def upload(self, tag: str, file: Path) -> str:
        """Send the file, and return its name at the provider; it starts nothing."""
        form = aiohttp.FormData({"purpose": self.purpose, "file_name": f"{tag}.jsonl"})
        with file.open("rb") as stream:
            form.add_field("file", stream, filename=f"{tag}.jsonl", content_type="text/plain")
            return str((await self.http.json("POST", self._at(self.uploads), data=form))["id"])

    def order(self, tag: str, uploaded: str) -> Json:
        """Return the fields that start a batch."""
        return {
            "input_file_id": uploaded,
            "endpoint": self.call,
            "completion_window": "24h",
            "metadata": {"spyhop": tag},
        }

    async def create(self, tag: str, uploaded: str, file: Path) -> str:
        """Start the batch and return its id."""
        made = await self.http.json("POST", self._at(self.jobs), json=self.order(tag, uploaded))
        return str(made.get("job", made)["id"])  # Together wraps it

    async def find(self, tag: str, uploaded: str, num: int, since: float) -> list[str]:
        """Return the ids of batches that this file may have started; the whole list is read."""
        async for job in self._listed():
            if uploaded in (job.get("input_file_id"), *(job.get("input_files") or ())):
                return [str(job["id"])]
        return []

    async def _listed(self) -> AsyncIterator[Json]:
        """Yield the provider's batches, the latest first."""
        query = f"limit={PAGE}"
        while query:
            jobs, page = await self.http.rows(self._at(self.jobs, query))
            for job in jobs:
                yield job
            has_more = jobs and page.get("has_more")
            query = f"limit={PAGE}&{self.after}={jobs[-1]['id']}" if has_more else ""

    async def progress(self, job_id: str) -> Progress:
        """Return how far a batch is."""
        return self.state(await self.http.json("GET", self._at(f"{self.jobs}/{job_id}")))

    def state(self, job: Json) -> Progress:
        """Return how far a batch is, by the provider's object of it.

        One that has results is never `failed`.
        """
        names = ("output_file_id", "error_file_id", "output_file", "error_file")
        files = tuple(self._at(f"/files/{job[name]}/content") for name in names if job.get(name))
        status = str(job.get("status", "")).lower().removeprefix("job_state_")
        counts = job.get("request_counts") or job
        done = sum(
            count if isinstance(count := counts.get(name), int) else 0
            for name in ("completed", "failed", "succeeded_requests", "failed_requests")
        )
        if status == "failed" and not files:
            return Progress("failed", done, (), errors_of(job))
        return Progress("ended" if status in (*ENDED, "failed") else "running", done, files)

    async def cancel(self, job_id: str) -> None:
        """Ask the provider to stop; results so far are kept, and billed."""
        await self.http.call("POST", self._at(f"{self.jobs}/{job_id}{self.cancels}"))

    async def results(self, where: str) -> AsyncIterator[Result]:
        """Yield the results of one file; lines that are no JSON are skipped."""
        async for line in self.lines(where):
            try:
                row = from_json(line)
            except ValueError:
                continue
            if isinstance(row, dict) and (found := self.read(row)):
                yield found

    def lines(self, where: str) -> AsyncIterator[bytes]:
        """Yield the lines of a file of results."""
        return self.http.lines(where)

    def read(self, row: Json) -> Result | None:
        """Return the result in a line, None if it names no request."""
        key, response, error = row.get("custom_id"), row.get("response"), row.get("error")
        if not isinstance(key, str):
            return None
        if isinstance(response, Mapping) and response.get("status_code"):
            return Result(key, int(response["status_code"]), to_json(response.get("body")))
        status = 0 if "expired" in str(error) or "cancel" in str(error) or not error else 400
        return Result(key, status, to_json({"error": error}))


def errors_of(job: Json) -> str:
    """Return what a provider says about a batch that failed."""
    errors: Any = job.get("errors") or job.get("error") or "no reason stated"
    if isinstance(errors, Mapping):
        errors = errors.get("data") or errors
    said = [
        f"{each.get('code') or ''} {each.get('message') or ''}"
        if isinstance(each, Mapping)
        else each
        for each in (errors[:3] if isinstance(errors, list) else [errors])
    ]
    return "; ".join(str(each).strip() for each in said)


class AzureFiles(BatchApi):
    """Azure OpenAI: the resource's address, and a version in each query."""

    most_requests = 100_000
    prefix = "/openai"

    def __init__(self, state: EndpointState) -> None:
        super().__init__(state)
        self.call = "/chat/completions"  # the deployment is the model of each body

    def line(self, key: str, body: Json) -> Json:
        """Return a line whose body names the deployment."""
        return super().line(key, body | {"model": self.model})

    def _at(self, path: str, query: str = "") -> str:
        version = f"api-version={self.endpoint.api_version}"
        return super()._at(path, f"{version}&{query}" if query else version)


class TogetherFiles(BatchApi):
    """Together: an address of its own for uploads, and a purpose of its own."""

    most_bytes = 100 * MEGABYTE
    uploads = "/files/upload"
    purpose = "batch-api"


class MistralFiles(BatchApi):
    """Mistral: jobs in place of batches, each for one model; pages are numbered."""

    most_requests = 1_000_000
    most_bytes = 512 * MEGABYTE
    jobs = "/batch/jobs"

    def line(self, key: str, body: Json) -> Json:
        """Return a line without the model, which the job names."""
        return {"custom_id": key, "body": {n: v for n, v in body.items() if n != "model"}}

    def order(self, tag: str, uploaded: str) -> Json:
        """Return the fields that start a job."""
        return {
            "input_files": [uploaded],
            "endpoint": self.call,
            "model": self.model,
            "metadata": {"spyhop": tag},
        }

    async def _listed(self) -> AsyncIterator[Json]:
        for number in itertools.count():
            jobs, _ = await self.http.rows(self._at(self.jobs, f"page={number}&page_size={PAGE}"))
            for job in jobs:
                yield job
            if len(jobs) < PAGE:
                return


class FolderBatches(BatchApi):
    """Files in OpenAI's form that another program answers, such as `vllm run-batch`.

    `NAME.jsonl` waits until `NAME.results.jsonl` exists; the program should write it aside and
    rename it.
    """

    most_requests = 1_000_000
    most_bytes = 2_000 * MEGABYTE

    def _file(self, tag: str, ending: str = ".jsonl") -> Path:
        assert self.endpoint.batch_folder is not None
        return self.endpoint.batch_folder / f"{tag}{ending}"

    async def upload(self, tag: str, file: Path) -> str:
        """Place the file."""
        self._file(tag).parent.mkdir(parents=True, exist_ok=True)
        aside = self._file(tag, ".partial")
        aside.write_bytes(file.read_bytes())
        aside.rename(self._file(tag))
        return tag

    async def create(self, tag: str, uploaded: str, file: Path) -> str:
        """Start nothing: the other program does."""
        return tag

    async def find(self, tag: str, uploaded: str, num: int, since: float) -> list[str]:
        """Return the name of a file that was placed."""
        return [tag] if self._file(tag).exists() else []

    async def progress(self, job_id: str) -> Progress:
        """Look for the results."""
        results = self._file(job_id, ".results.jsonl")
        if results.exists():
            return Progress("ended", 0, (str(results),))
        if not self._file(job_id).exists():
            return Progress("failed", 0, (), f"{self._file(job_id)} has disappeared")
        return Progress("running")

    async def cancel(self, job_id: str) -> None:
        """Take the file away."""
        self._file(job_id).unlink(missing_ok=True)

    async def lines(self, where: str) -> AsyncIterator[bytes]:
        """Yield the lines of a file."""
        with Path(where).open("rb") as stream:
            for line in stream:
                yield line


class AnthropicBatches(BatchApi):
    """Anthropic's Message Batches: the requests are the body of the call that starts the batch.

    A batch has no name of ours, so after a kill every batch that is as young and as large as ours
    may be ours: its results tell.
    """

    most_requests = 100_000
    most_bytes = 256 * MEGABYTE
    has_file = False
    jobs = "/messages/batches"
    after = "after_id"

    def line(self, key: str, body: Json) -> Json:
        """Return one request."""
        return {"custom_id": key, "params": body}

    async def upload(self, tag: str, file: Path) -> str:
        """Upload nothing."""
        return ""

    async def create(self, tag: str, uploaded: str, file: Path) -> str:
        """Start the batch; the file is streamed as one JSON array."""
        how = {"data": _as_array(file), "headers": {"Content-Type": "application/json"}}
        made = await self.http.json("POST", self._at(self.jobs), **how)
        return str(made["id"])

    async def find(self, tag: str, uploaded: str, num: int, since: float) -> list[str]:
        """Return the batches of as many requests that may have been created since then."""
        found = []
        async for job in self._listed():
            if _seconds(job.get("created_at")) < since - CLOCK_S:
                break
            counts = job.get("request_counts") or {}
            if sum(count for count in counts.values() if isinstance(count, int)) == num:
                found.append(str(job["id"]))
        return found

    def state(self, job: Json) -> Progress:
        """Return how far a batch is."""
        counts = job.get("request_counts") or {}
        done = sum(num for name, num in counts.items() if name != "processing")
        if job.get("processing_status") != "ended":
            return Progress("running", done)
        return Progress("ended", done, (self._at(f"{self.jobs}/{job['id']}/results"),))

    def read(self, row: Json) -> Result | None:
        """Read a line of results."""
        key, result = row.get("custom_id"), row.get("result")
        if not isinstance(key, str) or not isinstance(result, Mapping):
            return None
        kind = result.get("type")
        if kind == "succeeded":
            return Result(key, 200, to_json(result.get("message")))
        if kind != "errored":
            return Result(key, 0, to_json({"error": kind}))
        error = result.get("error")
        inner = error.get("error", error) if isinstance(error, Mapping) else {}
        is_invalid = isinstance(inner, Mapping) and "invalid" in str(inner.get("type", ""))
        return Result(key, 400 if is_invalid else 500, to_json({"error": inner}))


class GeminiBatches(BatchApi):
    """Gemini: a file is uploaded in two steps, and the batch bears the name that we give it."""

    most_requests = 200_000
    most_bytes = 2_000 * MEGABYTE
    jobs = ""
    cancels = ":cancel"

    def _in(self, folder: str, path: str) -> str:
        parts = urlsplit(self.endpoint.url)
        return f"{parts.scheme}://{parts.netloc}{folder}{parts.path}{path}"

    def line(self, key: str, body: Json) -> Json:
        """Return one request."""
        return {"key": key, "request": body}

    async def upload(self, tag: str, file: Path) -> str:
        """Upload the file in one piece of a resumable upload."""
        size = str(file.stat().st_size)
        start = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": size,
            "X-Goog-Upload-Header-Content-Type": "application/jsonl",
        }
        url, named = self._in("/upload", "/files"), {"file": {"display_name": tag}}
        _, headers = await self.http.call("POST", url, start, json=named)
        where = str(headers.get("X-Goog-Upload-URL", ""))
        if urlsplit(where).hostname != urlsplit(url).hostname:  # the key goes to no other host
            said = f"X-Goog-Upload-URL: {where!r} names no address at the same host"
            raise self.http.error(url, Failure("malformed", said))
        send = {"X-Goog-Upload-Offset": "0", "X-Goog-Upload-Command": "upload, finalize"}
        with file.open("rb") as stream:
            made = await self.http.json("POST", where, data=stream, headers=send)
        return str(made["file"]["name"])

    async def create(self, tag: str, uploaded: str, file: Path) -> str:
        """Start the batch."""
        fields = {"batch": {"display_name": tag, "input_config": {"file_name": uploaded}}}
        where = self._at(f"/models/{self.model}:batchGenerateContent")
        return str((await self.http.json("POST", where, json=fields))["name"])

    async def find(self, tag: str, uploaded: str, num: int, since: float) -> list[str]:
        """Return the batch of our name."""
        token = ""
        while True:
            where = self._at("/batches", f"pageSize={PAGE}&pageToken={token}")
            page = await self.http.json("GET", where)
            for job in page.get("operations") or page.get("batches") or []:
                about = job.get("metadata") or job
                if tag in (about.get("displayName"), about.get("display_name")):
                    return [str(job["name"])]
            if not (token := str(page.get("nextPageToken") or "")):
                return []

    def state(self, job: Json) -> Progress:
        """Return how far a batch is."""
        about = job.get("metadata") or job
        state = str(about.get("state", "")).rpartition("STATE_")[2].lower()
        stats = about.get("batchStats") or {}
        done = sum(int(stats.get(f"{what}RequestCount") or 0) for what in ("successful", "failed"))
        output = {**(about.get("output") or {}), **(job.get("response") or {})}
        if file := output.get("responsesFile"):
            return Progress("ended", done, (self._in("/download", f"/{file}:download?alt=media"),))
        if state in ENDED:
            return Progress("ended", done)
        if state == "failed" or job.get("error"):
            return Progress("failed", done, (), errors_of(job))
        return Progress("running", done)

    def read(self, row: Json) -> Result | None:
        """Read a line of responses."""
        key, response, error = row.get("key"), row.get("response"), row.get("error")
        if not isinstance(key, str):
            return None
        if isinstance(response, Mapping):
            return Result(key, 200, to_json(response))
        status = error.get("code") if isinstance(error, Mapping) else None
        if not isinstance(status, int) or status < 400:
            status = 500 if error else 0
        return Result(key, status, to_json({"error": error}))


def batch_api(state: EndpointState) -> BatchApi:
    """Return the batch API of an endpoint, by its dialect and address."""
    endpoint, host = state.config, urlsplit(state.config.url).hostname or ""
    if endpoint.batch_folder:
        return FolderBatches(state)
    by_api: dict[str, type[BatchApi]] = {
        "anthropic": AnthropicBatches, "gemini": GeminiBatches, "azure": AzureFiles,
    }  # fmt: skip
    by_host = {"mistral": MistralFiles, "together": TogetherFiles}
    copies = [kind for name, kind in by_host.items() if name in host]
    return by_api.get(endpoint.api, copies[0] if copies else BatchApi)(state)


async def _as_array(file: Path) -> AsyncIterator[bytes]:
    """Yield `{"requests": [...]}` of the file's lines."""
    start = b'{"requests":['
    with file.open("rb") as stream:
        for line in stream:
            yield start + line.rstrip(b"\n")
            start = b","
    yield b"]}"


def _seconds(text: object) -> float:
    """Return seconds since 1970; infinity where a time is missing."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return float("inf")
