"""The commands around a training: train, delta, chat."""

import bz2
import io
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from command import Done
from spyhop.cli.chat import Chat, Voice
from spyhop.models import Reply, Request, Sampling
from spyhop.schema import ModelError
from spyhop.train.tensors import digest_file


@pytest.fixture
def place(tmp_path: Path, tiny_folder: Path) -> Path:
    shutil.copytree(tiny_folder, tmp_path / "base")
    _write(tmp_path / "rows.jsonl", range(30))
    return tmp_path


def _write(path: Path, numbers: Any) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Say {n}."},
                {"role": "assistant", "content": f"{n}{n}"},
            ]
        }
        for n in numbers
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


QUICK = (
    "--set",
    "train.batch_tokens=300",
    "--set",
    "train.max_tokens=90",
    "--set",
    "runtime.device=cpu",
)
SHORT = (*QUICK, "--set", "probe.num_prompts=1", "--set", "probe.max_new_tokens=4")


def _refused(done: Done, text: str) -> None:
    code, _, error = done
    assert code == 2, error
    (line,) = error.splitlines()
    assert line.startswith("spyhop: ") and re.search(text, line), line


def test_rows_become_a_model_a_card_and_a_report(cli, place: Path):
    _write(place / "more.jsonl", range(30, 40))
    command = ("train", "rows.jsonl", "more.jsonl", "--base", "base", "--out", "out", *SHORT)
    code, planned, error = cli(*command, "--plan")
    assert code == 0, error
    assert re.search(r"^rows-1\s+collect\.read_conversations\s+30", planned, re.M)
    assert re.search(r"^student\s+train\.tune", planned, re.M)
    assert not list(place.glob("out/*.*-*"))
    code, told, error = cli(*command)
    assert code == 0, error
    assert told.splitlines()[-2:] == [
        "report: out/runs/train/report/report.html",
        "model: out/model",
    ]
    assert {"README.md", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in (place / "out" / "model").iterdir()
    }
    first = digest_file(place / "out" / "model" / "model.safetensors")
    code, told, _ = cli(*command)
    assert code == 0 and " 0 steps run, " in told
    code, told, error = cli(*command, "--set", "train.epochs=1")
    assert code == 0, error
    assert digest_file(place / "out" / "model" / "model.safetensors") != first


def test_settings_stand_in_a_file_too(cli, place: Path):
    (place / "sub").mkdir()
    _write(place / "sub" / "watched.jsonl", range(5))
    (place / "sub" / "mine.toml").write_text(
        'recipe = "train"\nheld_out = ["watched.jsonl"]\n'
        "[train]\ntokens = 900\n[probe]\nnum_prompts = 1\n[release.card]\ntitle = 'Mine'\n"
    )
    command = (
        "train",
        "rows.jsonl",
        "--base",
        "base",
        "--out",
        "out",
        "--settings",
        "sub/mine.toml",
    )
    code, planned, error = cli(*command, "--plan")
    assert code == 0, error
    assert re.search(r"^held-out-1\s+collect\.read_conversations\s+5", planned, re.M)
    assert re.search(r"^student\s.*\s900\s", planned, re.M)
    (place / "sub" / "mine.toml").write_text("[train]\ntoken = 900\n")
    _refused(cli(*command), r"sub/mine\.toml: train\.token is not a setting; did you mean 'tokens'")
    (place / "sub" / "mine.toml").write_text('recipe = "orca"\n')
    _refused(
        cli(*command), r"mine\.toml: recipe = 'orca': this command runs the recipe 'train' only"
    )


def test_wrong_inputs_are_one_line(cli, place: Path):
    command = ("train", "rows.jsonl", "--base", "base", "--out", "out", *SHORT)
    _refused(
        cli(*command, "--set", "train.seeds=1"), r"train\.seeds is not a setting; did you mean"
    )
    _refused(cli("train", "no.jsonl", "--base", "base", "--out", "out"), r"no\.jsonl: no such file")
    _refused(cli("train", "rows.jsonl", "--base", "no", "--out", "out"), r"no: no such file")
    _refused(
        cli("train", "rows.jsonl", "--base", "base", "--out", "base/x"),
        r"inside the input .*/base;",
    )
    (place / "made").mkdir()
    (place / "made" / "model").symlink_to("../base")
    ours = ("train", "rows.jsonl", "--base", "made/model", "--out", "made")
    _refused(cli(*ours), r"made/model: a result would replace this input")
    (place / "empty.jsonl").write_text("")
    _refused(
        cli("train", "empty.jsonl", "--base", "base", "--out", "out"), r"empty\.jsonl: no rows"
    )
    (place / "half.jsonl.bz2").write_bytes(bz2.compress(b'{"messages": []}')[:-9])
    _refused(
        cli("train", "half.jsonl.bz2", "--base", "base", "--out", "out"),
        r"half\.jsonl\.bz2: cannot be read \(",
    )
    (place / "odd.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n')
    _refused(
        cli("train", "odd.jsonl", "--base", "base", "--out", "out"),
        r"odd\.jsonl:1: 1 turns.* nothing to train on",
    )
    (place / "base" / "config.json").write_text("{}")
    _refused(cli(*command), r"base: ")
    (place / "out" / "model").mkdir()
    assert list((place / "out").glob("collect.read_conversations-*"))


CUSTOM = {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.jsonl", "", r"rows\.jsonl: no rows"),
        (
            "rows.jsonl",
            '{"messages": [{"role": "user", "content": "Hi"}]}\n',
            "nothing to train on",
        ),
        ("rows.jsonl", '{"prompt": "Hi", "response": "Yes."}\n{"prompt": ', r"rows\.jsonl:2: "),
        ("rows.jsonl", '{"prompt": "Hi", "response": "Yes."}\n{"x": 1}\n', r"rows\.jsonl:2: "),
        ("base/config.json", "", r"base/config\.json: not a model.s config"),
        ("base/config.json", json.dumps(CUSTOM), r"base: .*auto_map: modeling_own\.Own.*never run"),
        ("base/config.json", None, "base: weights without a config.json"),
        ("base/model.safetensors", None, "base: not a Hugging Face model folder"),
    ],
)
def test_a_plan_refuses_what_training_refuses(
    cli: Any, place: Path, name: str, text: str | None, message: str
):
    (place / name).unlink()
    if text is not None:
        (place / name).write_text(text)
    _refused(cli("train", "rows.jsonl", "--base", "base", "--out", "out", "--plan"), message)
    assert not list((place / "out").glob("*.*-*/record.json"))


@pytest.mark.slow
def test_a_killed_training_goes_on(place: Path):
    command = [
        sys.executable, "-m", "spyhop", "train", "rows.jsonl", "--base", "base", "--out", "out",
        *SHORT, "--set", "train.epochs=15", "--set", "runtime.checkpoint_s=0.05",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 90
    while not list(place.glob("out/.partial/train.tune-*/state/checkpoint*")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (place / "out" / "model").exists()
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"4 steps run, 1 reused", done.stdout)
    assert (place / "out" / "model" / "model.safetensors").is_file()


def test_a_delta_is_made_and_applied(cli, place: Path):
    shutil.copytree(place / "base", place / "model")
    data = bytearray((place / "model" / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (place / "model" / "model.safetensors").write_bytes(data)
    code, told, error = cli("delta", "make", "base", "model", "delta")
    assert code == 0 and told.startswith("delta: delta (0.0 MB)"), error
    code, told, error = cli("delta", "apply", "base", "delta", "again")
    assert (code, told) == (0, "model: again\n"), error
    assert digest_file(place / "again" / "model.safetensors") == digest_file(
        place / "model" / "model.safetensors"
    )
    _refused(
        cli("delta", "apply", "model", "delta", "third"), r"model: not the base that this delta"
    )
    _refused(cli("delta", "apply", "base", "delta", "again"), r"again: it is there already")
    _refused(
        cli("delta", "apply", "base", "base", "third"), r"base: not a delta: it holds no delta"
    )
    _refused(cli("delta", "frob"), r"No such command 'frob'")
    assert not (place / "third").exists()


class Echo:
    """A model that tells what it was sent."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.error = ""

    def generate(self, requests: Sequence[Request], sampling: Sampling, *, total: int) -> Any:
        for request in requests:
            if self.error:
                raise ModelError(self.error)
            self.asked.append(request)
            text = " / ".join(f"{turn.role} {turn.content}" for turn in request.messages)
            yield Reply(id=request.id, text=text, finish_reason="stop")


def _chat(
    lines: str, *models: Any, system: str = "", is_live: bool = False, width: int = 60
) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_live, width=width, color_system=None)
    voices = [Voice(f"model-{n}", model, Sampling()) for n, model in enumerate(models, 1)]
    given = iter(lines.splitlines())

    def read() -> str:
        try:
            line = next(given)
        except StopIteration:
            raise EOFError from None
        if line == "^C":
            raise KeyboardInterrupt
        return line

    Chat(voices, console, system, read, is_live=is_live).talk()
    return out.getvalue()


def test_what_was_said_is_remembered_until_a_reset():
    told = _chat("a\n\nb\n/reset\nc\n/system Be kind.\nd\n/quit\ne\n", Echo(), system="S.")
    assert told.splitlines() == [
        "system S. / user a",
        "system S. / user a / assistant system S. / user a / user b",
        "system S. / user c",
        "system Be kind. / user d",
    ]


def test_each_model_remembers_its_own_words():
    one, other = Echo(), Echo()
    told = _chat("a\n/etc/hosts?\n", one, other)
    assert told.splitlines()[:2] == ["[model-1] user a", "[model-2] user a"]
    assert [len(request.messages) for request in one.asked] == [1, 3]
    assert one.asked[1].messages[-1].content == "/etc/hosts?"


def test_two_models_stand_side_by_side_on_a_terminal():
    told = _chat("hello\n", Echo(), Echo(), is_live=True)
    line = next(line for line in told.splitlines() if "user hello" in line)
    assert line.count("user hello") == 2 and "model-1" in told


def test_a_person_is_told_of_errors_and_goes_on():
    model = Echo()
    model.error = "no answer"
    told = _chat("a\n/frob\n^C\nb", model, is_live=True)
    assert "no answer" in told and "/frob: no such command" in told
    with pytest.raises(ModelError):
        _chat("a\n", model)


def test_a_failed_question_is_not_remembered_by_anyone():
    fine, broken = Echo(), Echo()
    voices = [Voice("a", fine, Sampling()), Voice("b", broken, Sampling())]  # type: ignore[arg-type]
    lines = iter(["one", "two"])

    def read() -> str:
        broken.error = "" if broken.error else "gone"
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    console = Console(file=io.StringIO())
    Chat(voices, console, "", read, is_live=True).talk()
    assert [len(request.messages) for request in fine.asked] == [1, 1]


def test_lines_of_a_pipe_are_asked_one_after_another(cli, place: Path):
    options = ("--max-new-tokens", 5, "--device", "cpu")
    code, told, error = cli("chat", "base", "--system", "Hi", *options, stdin="a\nb\n")
    assert code == 0, error
    assert len(told.splitlines()) >= 2 and told.endswith("(cut)\n")
    assert cli("chat", "base", "base", *options, stdin="")[:2] == (0, "")
    _refused(cli("chat", "no", stdin="a\n"), r"no: cannot be read")
    _refused(cli("chat", "base", "base", "base"), r"3 models: name one, or two")
    _refused(cli("chat", "base", "--device", "gpu", stdin="a\n"), r"device = 'gpu'")
    (place / "base" / "config.json").write_text("{}")
    _refused(cli("chat", "base", stdin="a\n"), r"base: not a Hugging Face model folder")


@pytest.mark.slow
def test_a_terminal_has_a_prompt_and_ends_cleanly(place: Path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "spyhop", "chat", "base", "--max-new-tokens", "4"]
    process = subprocess.Popen(
        command, cwd=place, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)
    seen = _until(ours, "> ")
    os.write(ours, b"Say it.\n")
    seen = _until(ours, "> ", seen.partition("> ")[2])
    assert "(cut)" in seen
    os.write(ours, b"\x04")
    assert process.wait(20) == 0
    assert "Traceback" not in _rest(ours)
    os.close(ours)


def _until(terminal: int, text: str, seen: str = "") -> str:
    until = time.monotonic() + 120
    while text not in seen:
        assert time.monotonic() < until, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


def _rest(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # how a terminal tells that nobody is left
        return ""
