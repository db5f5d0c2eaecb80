"""A completions server over a model in process, which echoes prompts as vLLM does.

with CompletionsServer(backend) as server:
    ...  # server.url

python tests/completions.py MODEL       # prints its address
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from spyhop.models import Local
from spyhop.models.local import LocalBackend
from spyhop.runtime import Runtime
from spyhop.store import Artifact, Record


class CompletionsServer:
    """Answers at `url`; `form` is `echo`, `prompt_logprobs`, or `silent`: as llama.cpp's server."""

    def __init__(self, backend: LocalBackend, form: str = "echo", begin: str = "") -> None:
        self.backend, self.form, self.begin = backend, form, begin
        self.bodies: list[dict[str, Any]] = []
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.bodies.append(body)
                    reply = json.dumps(server._reply(body)).encode()
                self.send_response(200 if self.path == "/v1/completions" else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "CompletionsServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if prompts and isinstance(prompts[0], int):
            prompts = [prompts]
        top = int(body.get("prompt_logprobs") or 1)
        choices = [self._choice(prompt, top) | {"index": n} for n, prompt in enumerate(prompts)]
        num = sum(choice.pop("num") for choice in choices)
        usage = {"prompt_tokens": num, "completion_tokens": len(prompts)}
        return {"object": "text_completion", "choices": choices[::-1], "usage": usage}

    def _choice(self, prompt: str | list[int], top: int) -> dict[str, Any]:
        key = json.dumps([prompt, top])
        if key not in self._known:
            self._known[key] = self._read(prompt, top)
        return dict(self._known[key])

    def _read(self, prompt: str | list[int], top: int) -> dict[str, Any]:
        tokenizer = self.backend.renderer.tokenizer
        ids = tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
        logits, _ = self.backend._forward.read([ids], [len(ids)])
        logs = logits.float().log_softmax(-1)
        values = [None, *(float(logs[n, token]) for n, token in enumerate(ids[1:]))]
        texts = [tokenizer.decode([token]) for token in ids]
        if self.begin:
            texts, values = [self.begin, *texts], [None, *values]
            ids, logs = [-1, *ids], torch.cat([logs[:1], logs])
        written = int(logs[-1].argmax())
        texts.append(tokenizer.decode([written]))
        choice = {"text": "".join(texts), "finish_reason": "length", "num": len(ids)}
        if self.form == "silent":
            return choice | {"logprobs": {"content": [{"token": texts[-1], "logprob": -0.1}]}}
        if self.form == "prompt_logprobs":
            likely = logs.topk(top).indices.tolist()
            places = [
                None if value is None else
                {str(ids[n]): {"logprob": value, "rank": 9, "decoded_token": text}} |
                {str(t): {"logprob": float(logs[n - 1, t]), "rank": rank,
                          "decoded_token": tokenizer.decode([t])}
                 for rank, t in enumerate(likely[n - 1], 1) if t != ids[n]}
                for n, (value, text) in enumerate(zip(values, texts[:-1], strict=True))
            ]  # fmt: skip
            return choice | {"logprobs": None, "prompt_logprobs": places}
        offsets = [len("".join(texts[:n])) for n in range(len(texts))]
        tops = [None if value is None else {"x": value} for value in [*values, -0.1]]
        return choice | {
            "logprobs": {
                "tokens": texts, "token_logprobs": [*values, float(logs[-1, written])],
                "text_offset": offsets, "top_logprobs": tops,
            }
        }  # fmt: skip


def main() -> None:
    record = Record(key="", stage="source", version=1, config={}, inputs={}, digest="")
    folder = Artifact(Path(sys.argv[1]), record)
    backend = Local(dtype="float32", format="humpback").connect(folder, Runtime(device="cpu"))
    with CompletionsServer(backend) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
