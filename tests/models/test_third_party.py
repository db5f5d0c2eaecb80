"""A server that others wrote: the client against `transformers serve` on a small model."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from spyhop.augment import AnswerConfig, answer
from spyhop.collect.messages import MessagesConfig, read_prompts
from spyhop.models import Endpoint, ModelUse, Remote, Sampling, Service
from spyhop.models.doctor import doctor
from spyhop.models.teacher import Teacher
from spyhop.schema import Answer
from spyhop.store import Source

pytestmark = pytest.mark.server

TEMPLATE = (
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def served(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the server; the model's name there is its folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tiny_folder / "chat_template.jinja").write_text(TEMPLATE)
    log = (tmp_path_factory.mktemp("serve") / "log").open("w+")
    program = Path(sys.executable).with_name("transformers")
    server = subprocess.Popen(
        [program, "serve", str(tiny_folder), "--port", str(port), "--device", "cpu"],
        stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while not _is_up(port):
            assert server.poll() is None and time.monotonic() < deadline, log.seek(0) or log.read()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()
        log.close()


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answered:
            return answered.status == 200
    except OSError:
        return False


def test_a_third_partys_server_answers(served: str, tiny_folder: Path, tmp_path: Path):
    config = Remote(model=str(tiny_folder), revision="tiny")
    service = Service(endpoints=(Endpoint(url=served, concurrency=4),))
    assert all(finding.ok for finding in doctor(Teacher(config, service=service), tmp_path))
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f'{{"prompt": "Say {place}"}}\n' for place in range(24)))
    prompts = read_prompts.run(tmp_path, MessagesConfig(), file=Source(file).open(tmp_path))
    made = answer.run(
        tmp_path,
        AnswerConfig(sampling=Sampling(max_new_tokens=8)),
        prompts=prompts,
        teacher=ModelUse(config, service=service),
    )
    rows = list(made.rows(Answer))
    assert len(rows) == 24 and {row.finish_reason for row in rows} <= {"stop", "length"}
    assert all(row.error is None and row.prompt_tokens > 0 for row in rows)
    assert all(0 < row.response_tokens <= 8 for row in rows)
