import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from spyhop.render import TURNS, Renderer, TemplateFormat
from spyhop.schema import Message, TrainingError
from spyhop.stage import Context, Runtime
from spyhop.train import rows as rows_module
from spyhop.train.encoding import Encoding
from spyhop.train.rows import DONE, FILES, tokenise

TEMPLATE = (
    "{% for m in messages %}{% set before = messages[loop.index0 - 1]['role'] %}"
    "{% if loop.index0 > 0 and m['role'] == before %}"
    "{{ raise_exception('two turns of one role') }}{% endif %}"
    "{{ '<|user|>' if m['role'] == 'user' else '<|assistant|>' }}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)  # fmt: skip


def _rows(num: int) -> list[Any]:
    """Every seventh cannot be trained on, every eleventh is too long."""
    lengths = [0 if n % 7 == 0 else 200 if n % 11 == 0 else n % 40 for n in range(num)]
    return [toys.answer_row(n, f"question {n}", "x" * length) for n, length in enumerate(lengths)]


def _context(folder: Path, **runtime: Any) -> Context:
    shutil.rmtree(folder / "out", ignore_errors=True)
    for name in ("out", "state"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Context(
        folder,
        folder / "out",
        folder / "state",
        Runtime(device="cpu", **runtime),
        lambda news: None,
    )


def _bytes(ctx: Context) -> list[bytes]:
    return [(ctx.state / file).read_bytes() for file in FILES.values()]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(rows_module, "CHUNK_ROWS", 128)
    return [toys.artifact_of(tmp_path, _rows(num)) for num in (700, 150)]


def test_the_files_hold_every_row_in_order(tmp_path: Path, words: Any, answers: list[Any]):
    renderer = Renderer(words, TURNS)
    ctx = _context(tmp_path / "one")
    made = tokenise(ctx, answers, Encoding(renderer, 80))
    kept = [row for row in [*_rows(700), *_rows(150)] if 0 < len(row.messages[-1].content) < 60]
    encoded = renderer.encode([row.messages for row in kept])
    assert made.ids.tolist() == np.concatenate([each.ids for each in encoded]).tolist()
    assert (
        made.is_supervised.tolist() == np.concatenate([e.is_supervised for e in encoded]).tolist()
    )
    assert made.lengths.tolist() == [len(each.ids) for each in encoded]
    assert made.inputs[-1] == len(kept)
    assert sum(ctx.dropped.values()) == 850 - len(kept)


@pytest.mark.slow
def test_processes_change_nothing(
    tmp_path: Path, words: Any, answers: list[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rows_module, "FEW_ROWS", 0)
    renderer = Renderer(words, TURNS)
    found = []
    for num in (1, 3):
        ctx = _context(tmp_path / str(num), processes=num)
        tokenise(ctx, answers, Encoding(renderer, 80))
        ctx.close()
        lost = sorted((ctx.out / "dropped").glob("*"))
        found.append((_bytes(ctx), ctx.dropped, [path.read_bytes() for path in lost]))
    assert found[0] == found[1]


def test_what_a_killed_run_tokenised_is_taken_up(tmp_path: Path, words: Any, answers: list[Any]):
    renderer = Renderer(words, TURNS)
    whole = _context(tmp_path / "whole")
    tokenise(whole, answers, Encoding(renderer, 80))
    cut = _context(tmp_path / "cut")
    tokenise(cut, answers, Encoding(renderer, 80))
    lines = (cut.state / DONE).read_bytes().splitlines(keepends=True)
    assert len(lines) > 3
    (cut.state / DONE).write_bytes(b"".join(lines[:2]) + lines[2][:40])  # killed as it wrote
    seen = 0
    encode = renderer.encode_sequences

    def counting(conversations: Any, *rest: Any) -> Any:
        nonlocal seen
        seen += len(conversations)
        return encode(conversations, *rest)

    renderer.encode_sequences = counting  # type: ignore[method-assign]
    again = _context(tmp_path / "cut")
    made = tokenise(again, answers, Encoding(renderer, 80))
    assert _bytes(again) == _bytes(whole) and again.dropped == whole.dropped
    assert 0 < seen < 500
    seen = 0
    last = tokenise(_context(tmp_path / "cut"), answers, Encoding(renderer, 80))
    assert seen == 0 and last.ids.tolist() == made.ids.tolist() and last.inputs == made.inputs


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import byte_tokenizer
from test_rows import _context
from spyhop.render import TURNS, Renderer
from spyhop.store.artifact import load
from spyhop.train import rows
from spyhop.train.encoding import Encoding
rows.FEW_ROWS, rows.CHUNK_ROWS = 0, 128
ctx = _context(Path({folder!r}), processes=2)
ctx.report = lambda news: print(news.done, flush=True)
encoding = Encoding(Renderer(byte_tokenizer(), TURNS), 80)
rows.tokenise(ctx, [load(Path(p)) for p in {answers!r}], encoding)
print("end", flush=True)
"""


@pytest.mark.slow
def test_killed_with_its_processes(tmp_path: Path, words: Any, answers: list[Any]):
    here = Path(__file__).parent
    script = SCRIPT.format(
        tests=str(here.parent), folder=str(tmp_path / "killed"),
        answers=[str(artifact.path) for artifact in answers],
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout and run.stdout.readline().strip() == "128"
        run.send_signal(signal.SIGKILL)
    ctx = _context(tmp_path / "killed")
    tokenise(ctx, answers, Encoding(Renderer(words, TURNS), 80))
    whole = _context(tmp_path / "whole")
    tokenise(whole, answers, Encoding(Renderer(words, TURNS), 80))
    assert _bytes(ctx) == _bytes(whole)


def test_rows_that_the_template_refuses_are_dropped_and_told(tmp_path: Path, words: Any):
    rows = _rows(20)[1:7]
    rows[2] = rows[2].model_copy(
        update={"messages": [Message(role="user", content="one"), *rows[2].messages]}
    )
    ctx = _context(tmp_path / "one")
    told: list[str] = []
    ctx.report = lambda news: told.append(news.doing)
    made = tokenise(
        ctx,
        [toys.artifact_of(tmp_path, rows)],
        Encoding(Renderer(words, TemplateFormat(template=TEMPLATE)), 300),
    )
    assert len(made.lengths) == 5 and ctx.dropped == {"template": 1}
    assert any("row a3: the chat template refuses (user, user, assistant)" in text for text in told)


def test_only_the_last_response_is_a_target(tmp_path: Path, words: Any):
    (row,) = _rows(6)[5:]
    more = [*row.messages, Message(role="user", content="more"),
            Message(role="assistant", content="last")]  # fmt: skip
    answers = [toys.artifact_of(tmp_path, [row.model_copy(update={"messages": more})])]
    for which, wanted in (("last", "last<|end|>"), ("all", "xxxxx<|end|>last<|end|>")):
        encoding = Encoding(Renderer(words, TURNS), 300, which)
        made = tokenise(_context(tmp_path / which), answers, encoding)
        assert words.decode(made.ids[made.is_supervised]) == wanted


def test_a_process_that_dies_is_told(
    tmp_path: Path, words: Any, answers: list[Any], monkeypatch: Any
):
    monkeypatch.setattr(rows_module, "FEW_ROWS", 0)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TrainingError, match="process that tokenised rows died"):
        tokenise(
            _context(tmp_path / "x", processes=2), answers, Encoding(Renderer(words, TURNS), 80)
        )
