"""A stand-in for the Hugging Face hub: what an upload needs of its HTTP API, checksums verified.

    with HubServer() as hub:
        ...  # hub.url, hub.repos["dataset/OWNER/NAME"].files

It follows the documented protocol: create, validate-yaml, preupload, Git LFS batch, commit as
NDJSON. Files of more than `LFS_BYTES` go through LFS, others into the commit.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_test"
LFS_BYTES = 5000


@dataclass
class Repo:
    is_private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    num_commits: int = 0


class HubServer:
    """A hub in a thread."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self._blobs: dict[str, bytes] = {}

    def __enter__(self) -> "HubServer":
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._answer()

            do_PUT = do_GET = do_POST

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                hub.requests.append(f"{self.command} {path}")
                is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                code, found = (401, {"error": "Invalid credentials"})
                if is_known or path.startswith("/lfs/"):
                    code, found = hub.answer(self.command, path, body)
                text = json.dumps(found).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path.startswith("/lfs/"):
            self._blobs[path.removeprefix("/lfs/")] = body
            return 200, {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['type']}/{asked['organization']}/{asked['name']}"
            is_new = name not in self.repos
            self.repos.setdefault(name, Repo(asked["visibility"] == "private"))
            url = f"{self.url}/{name.removeprefix('model/').replace('dataset/', 'datasets/')}"
            return (200, {"url": url}) if is_new else (409, {"error": "exists", "url": url})
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            errors = faults(text)
            return (400 if errors else 200), {"errors": errors, "warnings": []}
        if lfs := re.fullmatch(r"/(datasets/)?(\S+)\.git/info/lfs/objects/batch", path):
            assert lfs
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.url}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        found = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(\S+)/\w+)?", path)
        if found is None:
            return 404, {"error": f"no such address: {path}"}
        repo = self.repos[f"{found[1]}/{found[2]}"]
        match found[3]:
            case "preupload":
                return 200, {"files": [_mode(each) for each in json.loads(body)["files"]]}
            case "commit":
                return self._commit(repo, body, found[2])
        return 200, {"id": found[2], "private": repo.is_private, "sha": "0" * 40}

    def _commit(self, repo: Repo, body: bytes, name: str) -> tuple[int, Any]:
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                content = self._blobs[value["oid"]]
                if hashlib.sha256(content).hexdigest() != value["oid"]:
                    return 400, {"error": "checksum"}
                repo.files[value["path"]] = content
        repo.num_commits += 1
        url = f"{self.url}/{name}/commit/{'1' * 40}"
        return 200, {"commitUrl": url, "commitOid": "1" * 40, "success": True}


def faults(card: str) -> list[dict[str, str]]:
    """Mistakes in a card's head that the hub refuses."""
    head = yaml.safe_load(card.split("---\n")[1])
    wrong = [] if isinstance(head.get("license"), str) else ["license"]
    for model in head.get("model-index", []):
        for result in model["results"]:
            whole = {"type", "name"} <= result["dataset"].keys() and result["task"]["type"]
            scored = all({"type", "value"} <= metric.keys() for metric in result["metrics"])
            wrong += [] if whole and scored else ["model-index"]
    wrong += [] if all(isinstance(tag, str) for tag in head.get("tags", [])) else ["tags"]
    return [{"message": f'"{name}" is not valid'} for name in wrong]


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["size"] > LFS_BYTES else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
