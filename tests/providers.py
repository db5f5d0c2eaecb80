"""Servers that speak Anthropic's and Gemini's native APIs, strict about what they take.

    with Provider("anthropic", refuses={"temperature": "`temperature` is deprecated"}) as server:
        ...  # server.url, server.calls

A reply is `re: ` and the last turn, unless `say` returns another one, or a status and a body.
Prompts are counted in words. What was marked (Anthropic) or came before (Gemini) is cached.
"""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

KEY = "sk-native-42"
LEAST_CACHED = 400
"""Words of the shortest part that is cached."""
ANTHROPIC = {
    "model", "max_tokens", "messages", "system", "temperature", "top_p", "stop_sequences",
    "output_config", "thinking", "metadata", "service_tier",
}  # fmt: skip
GEMINI = {"contents", "systemInstruction", "generationConfig", "safetySettings"}
GENERATION = {
    "maxOutputTokens", "temperature", "topP", "topK", "seed", "candidateCount", "stopSequences",
    "responseLogprobs", "logprobs", "responseMimeType", "responseJsonSchema", "thinkingConfig",
}  # fmt: skip

Say = Callable[[str, int], Any]


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Provider:
    """A server in a thread. `calls` holds (path, headers, body) of every request."""

    def __init__(
        self,
        api: str,
        *,
        say: Say | None = None,
        refuses: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        ignores: tuple[str, ...] = (),
        thinks: bool = False,
    ) -> None:
        self.api, self.say, self.ignores, self.thinks = api, say, ignores, thinks
        self.refuses, self.headers = dict(refuses or {}), dict(headers or {})
        self.calls: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self._cached: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> "Provider":
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                status, said = provider.handle(self.path, dict(self.headers), raw)
                body = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                for name, value in provider.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        version = {"anthropic": "v1", "gemini": "v1beta"}[self.api]
        self.url = f"http://127.0.0.1:{self._server.server_port}/{version}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, path: str, headers: dict[str, str], raw: bytes) -> tuple[int, Any]:
        """Answer one request."""
        body = json.loads(raw)
        lower = {name.lower(): value for name, value in headers.items()}
        with self._lock:
            self.calls.append((path, lower, body))
            try:
                answer = self._anthropic if self.api == "anthropic" else self._gemini
                return answer(path, lower, body, len(self.calls) - 1)
            except Refused as error:
                return error.status, self.error(error.status, error.message)

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Return an error body in the API's form."""
        if self.api == "anthropic":
            kinds = {401: "authentication_error", 404: "not_found_error"}
            kind = kinds.get(status, "invalid_request_error")
            return {"type": "error", "error": {"type": kind, "message": message},
                    "request_id": "req_1"}  # fmt: skip
        word = {401: "UNAUTHENTICATED", 404: "NOT_FOUND"}.get(status, "INVALID_ARGUMENT")
        return {"error": {"code": status, "message": message, "status": word}}

    def _check(self, fields: Mapping[str, Any], known: set[str]) -> None:
        for name in fields:
            if name not in known:
                raise Refused(400, f"{name}: Extra inputs are not permitted")
            if name in self.refuses:
                raise Refused(400, self.refuses[name])

    def _anthropic(
        self, path: str, headers: dict[str, str], body: dict[str, Any], place: int
    ) -> tuple[int, Any]:
        if path != "/v1/messages":
            raise Refused(404, f"Not found: {path}")
        if headers.get("x-api-key") != KEY or headers.get("anthropic-version") != "2023-06-01":
            raise Refused(401, "invalid x-api-key")
        self._check(body, ANTHROPIC)
        if not isinstance(body.get("max_tokens"), int):
            raise Refused(400, "max_tokens: Field required")
        roles = [turn["role"] for turn in body["messages"]]
        is_alternating = all(a != b for a, b in pairwise(roles))
        if not roles or roles[0] != "user" or not is_alternating or "system" in roles:
            raise Refused(
                400, f"messages: roles must alternate between user and assistant: {roles}"
            )
        if roles[-1] == "assistant":
            if "prefill" in self.refuses:
                raise Refused(400, self.refuses["prefill"])
            if (
                str(body["messages"][-1]["content"])
                != str(body["messages"][-1]["content"]).rstrip()
            ):
                raise Refused(400, "final assistant content cannot end with trailing whitespace")
        blocks = list(body.get("system", []))
        for turn in body["messages"]:
            content = turn["content"]
            blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
        if any(not block["text"].strip() for block in blocks):
            raise Refused(400, "text content blocks must contain non-whitespace text")
        read, written, rest = self._cache(blocks)
        schema = body.get("output_config", {}).get("format")
        last = body["messages"][-1]["content"]
        text = last if isinstance(last, str) else "".join(block["text"] for block in last)
        said = self._said(text, place, schema and schema["schema"], is_begun=roles[-1] != "user")
        if not isinstance(said, str):
            return said if isinstance(said, tuple) else (200, said)
        content = [{"type": "text", "text": said}]
        if body.get("thinking", {}).get("type") == "enabled":
            content.insert(0, {"type": "thinking", "thinking": "hm", "signature": "x"})
        words = said.split()
        is_cut = len(words) > body["max_tokens"]
        if is_cut:
            content[-1]["text"] = " ".join(words[: body["max_tokens"]])
        return 200, {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
            "content": content, "stop_reason": "max_tokens" if is_cut else "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": rest, "cache_creation_input_tokens": written,
                "cache_read_input_tokens": read, 
                "output_tokens": min(len(words), body["max_tokens"]),
                "service_tier": "standard",
            },
        }  # fmt: skip

    def _cache(self, blocks: list[dict[str, Any]]) -> tuple[int, int, int]:
        """Return words that were cached, that are now, and the rest."""
        marked = [place for place, block in enumerate(blocks) if block.get("cache_control")]
        end = marked[-1] + 1 if marked else 0
        start = "".join(block["text"] for block in blocks[:end])
        size, rest = len(start.split()), sum(len(block["text"].split()) for block in blocks[end:])
        if size < LEAST_CACHED or "cache" in self.ignores:
            return 0, 0, size + rest
        if start in self._cached:
            return size, 0, rest
        self._cached.add(start)
        return 0, size, rest

    def _gemini(
        self, path: str, headers: dict[str, str], body: dict[str, Any], place: int
    ) -> tuple[int, Any]:
        if not path.startswith("/v1beta/models/") or not path.endswith(":generateContent"):
            raise Refused(404, f"models{path} is not found for API version v1beta")
        if headers.get("x-goog-api-key") != KEY:
            raise Refused(400, "API key not valid. Please pass a valid API key.")
        how = body.get("generationConfig", {})
        self._check(body, GEMINI)
        self._check(how, GENERATION)
        roles = [turn["role"] for turn in body["contents"]]
        if not roles or set(roles) - {"user", "model"}:
            raise Refused(400, f"Please use a valid role: user, model; got {roles}")
        parts = [part for turn in body["contents"] for part in turn["parts"]]
        start = json.dumps(body.get("systemInstruction")) + parts[0]["text"][: 2 * LEAST_CACHED]
        num_words = len(" ".join(part["text"] for part in parts).split())
        cached = num_words // 2 if start in self._cached and num_words > LEAST_CACHED else 0
        self._cached.add(start)
        said = self._said(
            parts[-1]["text"], place, how.get("responseJsonSchema"), how.get("seed"),
            is_begun=roles[-1] != "user",
        )  # fmt: skip
        if not isinstance(said, str):
            return said if isinstance(said, tuple) else (200, said)
        num, thoughts = how.get("candidateCount", 1), how.get("thinkingConfig")
        shown = [{"text": "hm", "thought": True}] if thoughts else []
        words = said.split()
        tokens = [{"token": word, "logProbability": -0.25} for word in words]
        likely = {"topCandidates": [{"candidates": [token]} for token in tokens]}
        result = {"chosenCandidates": tokens} | (likely if how.get("logprobs") else {})
        return 200, {
            "candidates": [
                {
                    "content": {"role": "model", "parts": [*shown, {"text": said}]},
                    "finishReason": "STOP", "index": index,
                    **({"logprobsResult": result} if how.get("responseLogprobs") else {}),
                }
                for index in range(1 if "n" in self.ignores else num)
            ],
            "usageMetadata": {
                "promptTokenCount": num_words, "candidatesTokenCount": num * len(words),
                "thoughtsTokenCount": 7 if thoughts or self.thinks else 0,
                "cachedContentTokenCount": cached,
            },
            "modelVersion": "m",
        }  # fmt: skip

    def _said(
        self,
        text: str,
        place: int,
        schema: dict[str, Any] | None,
        seed: int | None = None,
        *,
        is_begun: bool,
    ) -> Any:
        if self.say is not None:
            return self.say(text, place)
        if schema is not None and "schema" not in self.ignores:
            names = schema.get("properties", {})
            kinds = {"integer": 3, "string": "yes", "boolean": True}
            return json.dumps({name: kinds.get(each.get("type")) for name, each in names.items()})
        if is_begun and "prefill" not in self.ignores:
            return " 4, 5, 6"
        if "random" in text:
            return f"re: {place if 'seed' in self.ignores else seed} {text}"
        return f"re: {text}"
