"""A server with the batch APIs of OpenAI, Mistral, Anthropic and Gemini, hostile on request.

    with BatchServer("openai", fate=lambda key, turn: "expired") as server:
        ...  # server.url, server.paid (Counter of keys), server.jobs

A batch ends after it was looked at `looks` times. `fate` says what happens to a request the
`turn`-th time it is sent: "ok", "expired", "missing", "twice", or a status such as 500. Results
are shuffled. `breaks` maps calls (upload, create, look, list, results) to how many of them are cut
off after their effect.
"""

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

KEY = "sk-batch-7"


def completion(text: str) -> dict[str, Any]:
    return {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }


def said(api: str, body: dict[str, Any]) -> dict[str, Any]:
    """A reply in the API's form: `re: ` and the last turn."""
    if api == "gemini":
        text = "re: " + body["contents"][-1]["parts"][-1]["text"]
        return {
            "candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5},
        }
    content = body["messages"][-1]["content"]
    text = "re: " + (content if isinstance(content, str) else content[-1]["text"])
    if api == "anthropic":
        return {
            "type": "message", "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn", "usage": {"input_tokens": 10, "output_tokens": 5},
        }  # fmt: skip
    return completion(text)


class BatchServer:
    def __init__(
        self,
        api: str,
        *,
        fate: Callable[[str, int], str] = lambda key, turn: "ok",
        looks: int = 1,
        breaks: dict[str, int] | None = None,
        most_requests: int | None = None,
        lists: tuple[Any, ...] = (),
        created: str = "2999-01-01T00:00:00Z",
    ) -> None:
        self.api, self.fate, self.looks = api, fate, looks
        self.breaks = Counter(breaks or {})
        self.most_requests, self.created = most_requests, created
        self.lists = [*lists]
        """What the first looks at the list are answered."""
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.sent: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.bodies: dict[str, Any] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> "BatchServer":
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self._serve(b"")

            def do_POST(self) -> None:
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    raw = b""
                    while size := int(self.rfile.readline(), 16):
                        raw += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._serve(raw)

            def _serve(self, raw: bytes) -> None:
                given = " ".join(v for v in self.headers.values())
                if KEY not in given:
                    return self._send(401, b'{"error": {"message": "no key"}}', {})
                with owner.lock:
                    status, found, headers = owner.answer(self.command, self.path, raw, self)
                if status == -1:
                    self.close_connection = True
                    return None
                data = found if isinstance(found, bytes) else json.dumps(found).encode()
                return self._send(status, data, headers)

            def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self._http.server_port}"
        self.url = self.base + {"gemini": "/v1beta", "azure": ""}.get(self.api, "/v1")
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, method: str, path: str, raw: bytes, handler: Any) -> tuple[int, Any, Any]:
        what = self._what(method, path)
        found = getattr(self, f"_{what}")(path, raw, handler)
        if self.breaks[what] > 0:
            self.breaks[what] -= 1
            return -1, b"", {}
        return found if isinstance(found, tuple) else (200, found, {})

    def _what(self, method: str, path: str) -> str:
        bare = path.partition("?")[0]
        if bare.endswith("/cancel") or bare.endswith(":cancel"):
            return "cancel"
        if bare.endswith(("/content", "/results", ":download")):
            return "results"
        if "/upload/" in bare or "/files" in bare:
            return "upload"
        if method == "POST":
            return "create"
        return "list" if bare.endswith(("/batches", "/jobs")) else "look"

    # ------------------------------------------------------------------------- calls

    def _upload(self, path: str, raw: bytes, handler: Any) -> Any:
        if self.api == "gemini" and handler.headers.get("X-Goog-Upload-Command") == "start":
            return 200, {}, {"X-Goog-Upload-URL": f"{self.base}/upload/put"}
        name = f"file-{len(self.files)}"
        if self.api == "gemini":
            self.files["files/" + name] = raw
            return {"file": {"name": "files/" + name}}
        edge = re.search(rb"boundary=(\S+)", handler.headers["Content-Type"].encode())[1]
        parts = raw.split(b"--" + edge)
        (content,) = (part for part in parts if b'name="file"' in part.split(b"\r\n\r\n")[0])
        self.files[name] = content.split(b"\r\n\r\n", 1)[1].rstrip(b"\r\n")
        return {"id": name}

    def _create(self, path: str, raw: bytes, handler: Any) -> Any:
        order = json.loads(raw)
        if self.api == "anthropic":
            lines, source = [(r["custom_id"], r["params"]) for r in order["requests"]], ""
        elif self.api == "gemini":
            source = order["batch"]["input_config"]["file_name"]
            rows = [json.loads(line) for line in self.files[source].splitlines()]
            lines = [(row["key"], row["request"]) for row in rows]
        else:
            source = order.get("input_file_id") or order["input_files"][0]
            rows = [json.loads(line) for line in self.files[source].splitlines()]
            lines = [(row["custom_id"], row["body"]) for row in rows]
        assert len({key for key, _ in lines}) == len(lines)
        self.bodies |= dict(lines)
        if self.most_requests and len(lines) > self.most_requests:
            return 400, {"error": {"message": f"more than {self.most_requests} requests"}}, {}
        number = f"batch_{len(self.jobs)}"
        name = f"batches/{number}" if self.api == "gemini" else number
        tag = order.get("batch", {}).get("display_name", "")
        self.jobs[name] = {
            "tag": tag, "source": source, "num": len(lines), "looks": 0,
            "results": self._results_of(lines), "is_cancelled": False,
        }  # fmt: skip
        return {"name": name} if self.api == "gemini" else {"id": name}

    def _results_of(self, lines: list[tuple[str, Any]]) -> bytes:
        rows = []
        for key, body in lines:
            turn = self.sent[key]
            self.sent[key] += 1
            fate = self.fate(key, turn)
            if fate in ("ok", "twice"):
                self.paid[key] += 1
            if fate != "missing":
                rows += [self._row(key, body, fate)] * (2 if fate == "twice" else 1)
        random.Random(len(self.jobs)).shuffle(rows)
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b"not json\n\n"

    def _row(self, key: str, body: Any, fate: str) -> dict[str, Any]:
        is_good = fate in ("ok", "twice")
        error = {"type": "api_error", "message": f"fate {fate}"}
        if self.api == "anthropic":
            if is_good:
                result = {"type": "succeeded", "message": said(self.api, body)}
            elif fate == "expired":
                result = {"type": "expired"}
            else:
                kind = "invalid_request_error" if fate == "400" else "api_error"
                inner = {"type": kind, "message": error["message"]}
                result = {"type": "errored", "error": {"type": "error", "error": inner}}
            return {"custom_id": key, "result": result}
        if self.api == "gemini":
            if is_good:
                return {"key": key, "response": said(self.api, body)}
            code = {} if fate == "expired" else {"code": int(fate)}
            return {"key": key, "error": code and {**code, "message": error["message"]}}
        if is_good:
            response = {"status_code": 200, "body": said(self.api, body)}
            return {"custom_id": key, "response": response, "error": None}
        if fate == "expired":
            expired = {"code": "batch_expired", "message": "not executed"}
            return {"custom_id": key, "response": None, "error": expired}
        response = {"status_code": int(fate), "body": {"error": error}}
        return {"custom_id": key, "response": response, "error": None}

    def _list(self, path: str, raw: bytes, handler: Any) -> Any:
        if self.lists:
            return self.lists.pop(0)
        if self.api == "gemini":
            return {"operations": [self._state(name) for name in self.jobs]}
        found = [self._state(name) for name in reversed(self.jobs)]
        page = int(match[1]) if (match := re.search(r"page=(\d+)", path)) else 0
        return {"data": found if not page else [], "has_more": False}

    def _look(self, path: str, raw: bytes, handler: Any) -> Any:
        name = path.partition("?")[0].rpartition("/")[2]
        name = f"batches/{name}" if self.api == "gemini" else name
        if name not in self.jobs:
            return 404, {"error": {"message": "no such batch"}}, {}
        self.jobs[name]["looks"] += 1
        return self._state(name)

    def _state(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        is_ended = job["looks"] > self.looks or job["is_cancelled"]
        num = job["num"]
        if self.api == "anthropic":
            counts = {"processing": 0 if is_ended else num, "succeeded": num if is_ended else 0}
            status = "ended" if is_ended else "in_progress"
            return {
                "id": name, "processing_status": status, "request_counts": counts,
                "created_at": self.created,
            }  # fmt: skip
        if self.api == "gemini":
            about: dict[str, Any] = {
                "state": "BATCH_STATE_SUCCEEDED" if is_ended else "BATCH_STATE_RUNNING",
                "displayName": job["tag"],
            }
            done = {"done": True, "response": {"responsesFile": f"files/out-{name[8:]}"}}
            return {"name": name, "metadata": about, **(done if is_ended else {})}
        if self.api == "mistral":
            status = "SUCCESS" if is_ended else "RUNNING"
            return {
                "id": name, "status": status, "input_files": [job["source"]],
                "output_file": f"out-{name}" if is_ended else None, "succeeded_requests": num,
            }  # fmt: skip
        return {
            "id": name, "status": "completed" if is_ended else "in_progress",
            "input_file_id": job["source"], "output_file_id": f"out-{name}" if is_ended else None,
            "request_counts": {"total": num, "completed": num if is_ended else 0, "failed": 0},
        }  # fmt: skip

    def _results(self, path: str, raw: bytes, handler: Any) -> Any:
        name = re.search(r"batch_\d+", path)[0]
        return self.jobs[f"batches/{name}" if self.api == "gemini" else name]["results"]

    def _cancel(self, path: str, raw: bytes, handler: Any) -> Any:
        name = re.search(r"batch_\d+", path)[0]
        name = f"batches/{name}" if self.api == "gemini" else name
        if name not in self.jobs:
            return 404, {"error": {"message": "no such batch"}}, {}
        self.jobs[name]["is_cancelled"] = True
        return {}


def half_lost(key: str, turn: int) -> str:
    """Half of the requests expire at first; some fail, are missing or come twice."""
    draw = random.Random(f"{key} {turn}")
    if turn == 0 and draw.random() < 0.5:
        return "expired"
    chance = draw.random()
    return (
        "500"
        if chance < 0.05
        else "missing"
        if chance < 0.08
        else "twice"
        if chance < 0.2
        else "ok"
    )


def serve(api: str, breaks: dict[str, int], pipe: Connection) -> None:
    """Run in a process of its own; answer "books" with (paid, number of jobs), until "end"."""
    with BatchServer(api, fate=half_lost, looks=40, breaks=breaks) as server:
        pipe.send(server.url)
        while pipe.recv() == "books":
            with server.lock:
                pipe.send((dict(server.paid), len(server.jobs)))
