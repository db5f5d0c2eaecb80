"""Batch APIs: what each provider's form offers, and files in OpenAI's form.

A batch is one file of requests that a provider answers within a day at a lower price. Each line
has the payload of an ordinary call, and the key by which its result is recognised. The form of
OpenAI is that of Azure, Together, Mistral, and of another program.
"""

import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import aiohttp
from pydantic_core import from_json, to_json

from spyhop.models.batch_http import BatchHttp, Json
from spyhop.models.endpoint_state import EndpointState

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
    """The batch API of one provider. Subclasses speak its form."""

    most_requests: ClassVar[int]
    most_bytes: ClassVar[int]
    jobs = ""
    cancels = "/cancel"
    """Paths of batches, and of the call that stops one."""

    def __init__(self, state: EndpointState) -> None:
        self.endpoint, self.model, self.path = state.config, state.model, state.dialect.path
        self.http = BatchHttp(state)

    def _at(self, path: str) -> str:
        return f"{self.endpoint.url}{path}"

    def line(self, key: str, body: Json) -> Json:
        """Return a line of a batch file."""
        return {"custom_id": key, "body": body}

    async def upload(self, tag: str, file: Path) -> str:
        """Send the file, and return its name at the provider; it starts nothing."""
        return ""

    async def create(self, tag: str, uploaded: str, file: Path) -> str:
        """Start the batch and return its id."""
        raise NotImplementedError

    async def find(self, tag: str, uploaded: str, num: int, since: float) -> list[str]:
        """Return the ids of batches that this file may have started; the whole list is read."""
        raise NotImplementedError

    async def progress(self, job_id: str) -> Progress:
        """Return how far a batch is."""
        return self.state(await self.http.json("GET", self._at(f"{self.jobs}/{job_id}")))

    def state(self, job: Json) -> Progress:
        """Return how far a batch is, by the provider's object of it."""
        raise NotImplementedError

    async def cancel(self, job_id: str) -> None:
        """Ask the provider to stop; results so far are kept, and billed."""
        await self.http.any("POST", self._at(f"{self.jobs}/{job_id}{self.cancels}"))

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
        raise NotImplementedError


def errors_of(job: Json) -> str:
    """Return what a provider says about a batch that failed."""
    errors: Any = job.get("errors") or job.get("error") or "no reason stated"
    if isinstance(errors, Mapping):
        errors = errors.get("data") or errors
    some = errors if isinstance(errors, list) else [errors]
    said = [
        f"{each.get('code') or ''} {each.get('message') or ''}".strip()
        if isinstance(each, Mapping)
        else str(each)
        for each in some[:3]
    ]
    return "; ".join(said)


class OpenAIFiles(BatchApi):
    """OpenAI, Azure and all that copy them: files and batches are objects of their own."""

    most_requests = 50_000
    most_bytes = 200 * MEGABYTE
    prefix = ""
    uploads = "/files"
    jobs = "/batches"
    purpose = "batch"
    call_prefix = "/v1"

    def _at(self, path: str, query: str = "") -> str:
        return f"{self.endpoint.url}{self.prefix}{path}" + (f"?{query}" if query else "")

    def line(self, key: str, body: Json) -> Json:
        """Return a line with the address of the call."""
        return {"custom_id": key, "method": "POST", "url": self.call, "body": body}

    @property
    def call(self) -> str:
        """Address of each request, as the batch names it."""
        return self.call_prefix + self.path

    async def upload(self, tag: str, file: Path) -> str:
        """Upload the file; its id identifies the batch later."""
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
        """Start the batch."""
        made = await self.http.json("POST", self._at(self.jobs), json=self.order(tag, uploaded))
        return str(made.get("job", made)["id"])  # Together wraps it

    async def find(self, tag: str, uploaded: str, num: int, since: float) -> list[str]:
        """Return the batch of the uploaded file."""
        async for job in self._listed():
            if uploaded in (job.get("input_file_id"), *(job.get("input_files") or ())):
                return [str(job["id"])]
        return []

    async def _listed(self) -> AsyncIterator[Json]:
        query = f"limit={PAGE}"
        while query:
            jobs, page = await self.http.rows(self._at(self.jobs, query))
            for job in jobs:
                yield job
            has_more = jobs and page.get("has_more")
            query = f"limit={PAGE}&after={jobs[-1]['id']}" if has_more else ""

    def state(self, job: Json) -> Progress:
        """Return how far a batch is; one that has results is never `failed`."""
        names = ("output_file_id", "error_file_id", "output_file", "error_file")
        files = tuple(self._at(f"/files/{job[name]}/content") for name in names if job.get(name))
        status = str(job.get("status", "")).lower().removeprefix("job_state_")
        done = sum(
            count if isinstance(count := counts.get(name), int) else 0
            for counts in [job.get("request_counts") or job]
            for name in ("completed", "failed", "succeeded_requests", "failed_requests")
        )
        if status == "failed" and not files:
            return Progress("failed", done, (), errors_of(job))
        return Progress("ended" if status in (*ENDED, "failed") else "running", done, files)

    def read(self, row: Json) -> Result | None:
        """Read a line of an output or error file."""
        key, response, error = row.get("custom_id"), row.get("response"), row.get("error")
        if not isinstance(key, str):
            return None
        if isinstance(response, Mapping) and response.get("status_code"):
            return Result(key, int(response["status_code"]), to_json(response.get("body")))
        status = 0 if "expired" in str(error) or "cancel" in str(error) or not error else 400
        return Result(key, status, to_json({"error": error}))


class AzureFiles(OpenAIFiles):
    """Azure OpenAI: the resource's address, and a version in each query."""

    most_requests = 100_000
    prefix = "/openai"
    call_prefix = ""

    def __init__(self, state: EndpointState) -> None:
        super().__init__(state)
        self.path = "/chat/completions"  # the deployment is the model of each body

    def line(self, key: str, body: Json) -> Json:
        """Return a line whose body names the deployment."""
        return super().line(key, body | {"model": self.model})

    def _at(self, path: str, query: str = "") -> str:
        version = f"api-version={self.endpoint.api_version}"
        return super()._at(path, f"{version}&{query}" if query else version)


class TogetherFiles(OpenAIFiles):
    """Together: an address of its own for uploads, and a purpose of its own."""

    most_bytes = 100 * MEGABYTE
    uploads = "/files/upload"
    purpose = "batch-api"


class MistralFiles(OpenAIFiles):
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


class FolderBatches(OpenAIFiles):
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
