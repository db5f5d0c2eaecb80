"""Batches of Anthropic and Gemini, and the choice of an endpoint's form."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from pydantic_core import to_json

from spyhop.models.batch_files import (
    CLOCK_S,
    ENDED,
    MEGABYTE,
    PAGE,
    AzureFiles,
    BatchApi,
    FolderBatches,
    MistralFiles,
    OpenAIFiles,
    Progress,
    Result,
    TogetherFiles,
    errors_of,
)
from spyhop.models.batch_http import Json
from spyhop.models.endpoint_state import EndpointState


class AnthropicBatches(BatchApi):
    """Anthropic's Message Batches: the requests are the body of the call that starts the batch.

    A batch has no name of ours, so after a kill every batch that is as young and as large as ours
    may be ours: its results tell.
    """

    most_requests = 100_000
    most_bytes = 256 * MEGABYTE
    jobs = "/messages/batches"

    def line(self, key: str, body: Json) -> Json:
        """Return one request."""
        return {"custom_id": key, "params": body}

    async def create(self, tag: str, uploaded: str, file: Path) -> str:
        """Start the batch; the file is streamed as one JSON array."""
        how = {"data": _as_array(file), "headers": {"Content-Type": "application/json"}}
        made = await self.http.json("POST", self._at(self.jobs), **how)
        return str(made["id"])

    async def find(self, tag: str, uploaded: str, num: int, since: float) -> list[str]:
        """Return the batches of as many requests that may have been created since then."""
        found: list[str] = []
        query = f"?limit={PAGE}"
        while query:
            jobs, page = await self.http.rows(self._at(f"{self.jobs}{query}"))
            for job in jobs:
                if _seconds(job.get("created_at")) < since - CLOCK_S:
                    return found
                counts = job.get("request_counts") or {}
                if sum(count for count in counts.values() if isinstance(count, int)) == num:
                    found.append(str(job["id"]))
            query = f"?limit={PAGE}&after_id={page['last_id']}" if page.get("has_more") else ""
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
        if result.get("type") == "succeeded":
            return Result(key, 200, to_json(result.get("message")))
        if result.get("type") == "errored":
            error = result.get("error")
            inner = error.get("error", error) if isinstance(error, Mapping) else {}
            kind = str(inner.get("type", "")) if isinstance(inner, Mapping) else ""
            return Result(key, 400 if "invalid" in kind else 500, to_json({"error": inner}))
        return Result(key, 0, to_json({"error": result.get("type")}))


class GeminiBatches(BatchApi):
    """Gemini: a file is uploaded in two steps, and the batch bears the name that we give it."""

    most_requests = 200_000
    most_bytes = 2_000 * MEGABYTE
    cancels = ":cancel"

    def _at(self, path: str, *, folder: str = "") -> str:
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
        named = {"file": {"display_name": tag}}
        where = await self.http.header(
            self._at("/files", folder="/upload"), "X-Goog-Upload-URL", json=named, headers=start
        )
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
            page = await self.http.json(
                "GET", self._at(f"/batches?pageSize={PAGE}&pageToken={token}")
            )
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
            where = self._at(f"/{file}:download?alt=media", folder="/download")
            return Progress("ended", done, (where,))
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


KINDS: dict[str, type[BatchApi]] = {
    "anthropic": AnthropicBatches,
    "gemini": GeminiBatches,
    "azure": AzureFiles,
}
HOSTS: dict[str, type[BatchApi]] = {"mistral": MistralFiles, "together": TogetherFiles}


def batch_api(state: EndpointState) -> BatchApi:
    """Return the batch API of an endpoint, by its dialect and address."""
    endpoint, host = state.config, urlsplit(state.config.url).hostname or ""
    kind = KINDS.get(endpoint.api, OpenAIFiles)
    if endpoint.batch_folder:
        kind = FolderBatches
    elif kind is OpenAIFiles:
        kind = next((each for name, each in HOSTS.items() if name in host), kind)
    return kind(state)


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
