"""`spyhop answer` end to end, against a server over real HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command import Done
from server import KEY, Server, ServerProcess, each, in_order
from spyhop.recipe.events import read_events

SPYHOP = Path(sys.executable).with_name("spyhop")
TEACHER = """
model = "teacher"
{service}
[[endpoints]]
url = "{url}"
key_env = "TOY_KEY"
usd_per_million_prompt = 1000.0
usd_per_million_response = 1000.0
"""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)


def _teacher(url: str, service: str = "") -> None:
    Path("teacher.toml").write_text(TEACHER.format(url=url, service=service))


def _prompts(num_rows: int, name: str = "prompts.jsonl") -> list[str]:
    texts = [f"Question {place}?" for place in range(num_rows)]
    rows = [{"messages": [{"role": "user", "content": text}], "own": 1} for text in texts]
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return texts


def _answer(cli: Any, *options: object, prompts: str = "prompts.jsonl", out: str = "out") -> Done:
    return cli("answer", prompts, "--teacher", "teacher.toml", "--out", out, *options)


def _rows(path: str = "out/answers.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def _line(done: Done, code: int, text: str) -> None:
    assert done.code == code, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("spyhop: ") and re.search(text, line), line


def test_prompts_are_answered_once_and_in_order(cli):
    texts = _prompts(50)
    with Server() as server:
        _teacher(server.url)
        done = _answer(cli)
        assert done.code == 0, done.stderr
        again = _answer(cli)
        more = _prompts(60)
        third = _answer(cli)
        assert sorted(server.billed().values()) == [1] * 60
    assert re.search(r"^out/answers\.jsonl: 50 rows; \$\d\.\d{4}$", done.stdout, re.M)
    assert "0 steps run, 4 reused" in again.stdout and again.code == third.code == 0
    rows = _rows()
    assert [row["messages"][0]["content"] for row in rows] == more and more[:50] == texts
    assert all(row["messages"][1]["content"].startswith("The answer is") for row in rows)
    assert all(row["own"] == 1 and row["error"] is None for row in rows)


def test_parquet_in_parquet_out_and_planned(cli):
    pq.write_table(pa.table({"prompt": [f"q{n}" for n in range(20)]}), "prompts.parquet")
    with Server() as server:
        _teacher(server.url)
        planned = _answer(cli, "--plan", prompts="prompts.parquet")
        assert server.stats()["requests"] == 0
        options = ("--set", "answers.num_samples=2", "--set", "answers.sampling.temperature=1.0")
        done = _answer(cli, *options, prompts="prompts.parquet")
        assert server.stats()["billed"] == 40
    assert planned.code == 0 and re.search(
        r"^answers +augment\.answer +20 +20 ", planned.stdout, re.M
    )
    assert done.code == 0, done.stderr
    rows = pq.read_table("out/answers.parquet").to_pylist()
    assert [(row["prompt"], row["sample_index"]) for row in rows] == [
        (f"q{n}", place) for n in range(20) for place in range(2)
    ]


def test_packed_rows_are_planned_and_answered(cli):
    texts = _prompts(30)
    packed = pa.compress(Path("prompts.jsonl").read_bytes(), "zstd", asbytes=True)
    Path("prompts.jsonl.zst").write_bytes(packed)
    with Server() as server:
        _teacher(server.url)
        planned = _answer(cli, "--plan", prompts="prompts.jsonl.zst")
        done = _answer(cli, prompts="prompts.jsonl.zst")
        Path("prompts.jsonl.zst").write_bytes(packed[:-9])
        for options in ((), ("--plan",)):
            broken = _answer(cli, *options, prompts="prompts.jsonl.zst", out="other")
            _line(broken, 2, r"prompts\.jsonl\.zst: cannot be read \(")
        assert len(server.billed()) == 30
    cells = re.search(r"^answers .*$", planned.stdout, re.M)
    assert cells is not None and cells[0].split()[2:4] == ["30", "30"]
    assert done.code == 0 and [row["messages"][0]["content"] for row in _rows()] == texts


def test_a_plan_spends_nothing_and_makes_nothing(cli):
    _prompts(30)
    _teacher("http://127.0.0.1:9/v1")
    done = _answer(cli, "--plan", "--set", "answers.sampling.max_new_tokens=1000")
    assert done.code == 0
    cells = re.search(r"^answers .*$", done.stdout, re.M)
    assert cells is not None and cells[0].split()[2:4] == ["30", "30"]
    assert float(cells[0].split()[8]) > 30 > float(cells[0].split()[7]) > 1  # dollars
    assert not list(Path("out").glob("*.*-*"))


def test_a_recipe_file_does_the_same(cli):
    _prompts(5)
    with Server() as server:
        _teacher(server.url)
        Path("mine.toml").write_text(
            'recipe = "answer"\nprompts = "prompts.jsonl"\nteacher = "teacher.toml"\n'
        )
        assert "augment.answer" in cli("plan", "mine.toml").stdout
        assert cli("run", "mine.toml", "--out", "out").code == 0
        assert _answer(cli).stdout.count("reused") == 1
        assert server.stats()["billed"] == 5
    assert (len(_rows()), len(list(Path("out/runs/mine").iterdir()))) == (5, 6)


def test_errors_are_rows_and_can_be_asked_again(cli):
    _prompts(20)
    keep = ("--set", "runtime.max_error_frac=1.0")
    with Server(plan=in_order(["400"] * 3 + [None, "length"])) as server:
        _teacher(server.url, "budget_usd = 100.0")
        done = _answer(cli, *keep)
        assert re.search(r"20 rows; .*failed 3.*errors 400: 3; \$", done.stdout), done
        before = {row["messages"][0]["content"]: row["messages"][1:] for row in _rows()}
        assert len([turns for turns in before.values() if not turns]) == 3
        assert _answer(cli, *keep).stdout.count("4 reused") == 1
        again = _answer(cli, *keep, "--retry-errors")
        assert server.stats()["requests"] == 23
    assert again.code == 0 and "failed" not in again.stdout
    after = {row["messages"][0]["content"]: row["messages"][1:] for row in _rows()}
    assert all(after.values())
    assert all(after[text] == turns for text, turns in before.items() if turns)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_finished_node_is_reopened(cli, workers: int):
    _prompts(10)
    Path("mine.toml").write_text(
        'recipe = "answer"\nprompts = "prompts.jsonl"\nteacher = "teacher.toml"\n'
        "runtime.max_error_frac = 1.0\n"
    )
    command = ("run", "mine.toml", "--out", "out", "--workers", workers)
    with Server(plan=in_order(["400"] * 2)) as server:
        _teacher(server.url)
        assert cli(*command).code == 0
        (old,) = Path("out").glob("augment.answer-*/record.json")
        assert '"outcome/failed": 2' in old.read_text()
        server.stop()
        _teacher(server.url, "patience_s = 0.1\nmax_attempts = 1")
        failed = cli(*command, "--retry-errors", "answers")
        _line(failed, 3, r"answers: .*run again")
        assert '"outcome/failed": 2' in old.read_text()  # the old one stays
        server.start()
        done = cli(*command, "--retry-errors", "answers")
        assert done.code == 0 and "3 steps run, 1 reused" in done.stdout, done
        assert server.stats()["billed"] == 10
    assert "outcome/failed" not in old.read_text()
    _line(cli(*command, "--retry-errors", "nowhere"), 2, "no step 'nowhere'")
    _line(cli(*command, "--retry-errors", "prompts"), 2, "calls no model; these do: answers$")


def test_an_outage_is_unfinished_and_goes_on(cli):
    _prompts(30)
    with Server(plan=lambda call: "503" if call.place >= 12 else None) as server:
        _teacher(server.url, "patience_s = 0.1\nmax_attempts = 1")
        done = _answer(cli)
        _line(done, 3, r"answers: teacher|answers: no answer .*run again")
        assert not Path("out/answers.jsonl").exists()
        billed = server.stats()["billed"]
        server.service.plan = None
        assert _answer(cli).code == 0
        assert server.stats()["billed"] == 30 and 0 < billed < 30
        assert set(server.billed().values()) == {1}
    assert len(_rows()) == 30


def test_a_budget_stops_and_a_larger_one_goes_on(cli):
    _prompts(30)
    with Server() as server:
        room = ("--set", "answers.sampling.max_new_tokens=10")
        _teacher(server.url, "budget_usd = 0.2")
        _line(_answer(cli, *room), 3, r"budget_usd = 0\.2 .*raise it and run again")
        assert 0 < server.stats()["billed"] < 30
        _teacher(server.url, "budget_usd = 20.0")
        assert _answer(cli, *room).code == 0
        assert set(server.billed().values()) == {1}


def test_wrong_settings_are_one_line(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _prompts(2)
    _teacher("http://127.0.0.1:9/v1")
    _line(_answer(cli, prompts="none.jsonl"), 2, r"none\.jsonl: no such file")
    _line(
        _answer(cli, "--set", "answers.sampling.max_tokens=3"), 2, "did you mean 'max_new_tokens'"
    )
    _line(_answer(cli, "--set", "format=xml"), 2, r"answer: format = 'xml'")
    _line(_answer(cli, "--set", "runtime=3"), 2, r"answer: runtime = 3: it is a table")
    Path("in").mkdir()
    _prompts(2, "in/a.jsonl")
    _line(_answer(cli, prompts="in", out="in/out"), 2, r"inside the input .*/in;")
    _prompts(2, "in/answers.jsonl")
    _line(_answer(cli, prompts="in/answers.jsonl", out="in"), 2, "would replace this input")
    Path("prompts.jsonl").write_text("{nope}\n")
    _line(_answer(cli), 2, r"prompts: .*prompts\.jsonl:1: not JSON")
    _prompts(2)
    monkeypatch.delenv("TOY_KEY")
    _line(_answer(cli), 2, r"set the environment variable TOY_KEY to its key")
    Path("teacher.toml").write_text('model = "x"')
    _line(_answer(cli), 2, r"teacher\.toml: add \[\[endpoints\]\] with a url")
    Path("teacher.toml").unlink()
    _line(_answer(cli), 2, r"teacher\.toml: cannot be read")


@pytest.mark.parametrize("fault", ["401-echo", "401", "400", "500"])
def test_the_key_is_nowhere(cli, tmp_path: Path, fault: str):
    _prompts(2)
    with Server(plan=each([fault])) as server:
        _teacher(server.url, "max_attempts = 2")
        _answer(cli, "--set", "runtime.max_error_frac=1.0", "--plan")
        _answer(cli, "--set", "runtime.max_error_frac=1.0")
        cli("doctor", "teacher.toml", "--out", "out")
        cli("clean", "--out", "out")
    assert KEY not in "".join(cli.said) and cli.said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".sqlite" for path in files) and len(files) > 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_folder_of_weights_answers_too(cli, tiny_folder: Path):
    _prompts(3)
    short = ("--set", "answers.sampling.max_new_tokens=4", "--set", "runtime.device=cpu")
    done = cli("answer", "prompts.jsonl", "--teacher", tiny_folder, "--out", "out", *short)
    assert done.code == 0 and "3 rows; " in done.stdout, done
    assert {row["model"] for row in _rows()} == {tiny_folder.name}


def _command(workers: int) -> list[str]:
    files = ["answer", "prompts.jsonl", "--teacher", "teacher.toml", "--out", "out"]
    return [str(SPYHOP), *files, "--set", f"runtime.workers={workers}"]


def _start(tmp_path: Path, workers: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(workers), cwd=tmp_path, env={**os.environ, "TOY_KEY": KEY}, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def _wait(server: ServerProcess, num: int) -> None:
    until = time.monotonic() + 30
    while server.stats()["billed"] < num:
        assert time.monotonic() < until
        time.sleep(0.05)


ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.server
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_ends_a_run_and_nothing_is_asked_again(
    cli, tmp_path: Path, number: signal.Signals, code: int, workers: int
):
    _prompts(400)
    with ServerProcess("--latency-ms", "100") as server:
        _teacher(server.url)
        process = _start(tmp_path, workers)
        _wait(server, 50)
        if number == signal.SIGTERM:  # schedulers send it to every process of a job
            for child in psutil.Process(process.pid).children(recursive=True):
                child.send_signal(number)
        os.killpg(process.pid, number)
        if number == signal.SIGHUP:  # a shell and the kernel send one each
            os.killpg(process.pid, number)
        _, error = process.communicate(timeout=30)
        assert process.returncode == code, error
        assert error.splitlines() == ["spyhop: stopped; run again to resume"]
        assert json.loads(Path("out/runs/answer/run.json").read_text())["state"] == "stopped"
        assert server.stats()["billed"] < 400
        assert _answer(cli).code == 0
        assert set(server.billed().values()) == {1}
    assert len(_rows()) == 400


@pytest.mark.server
def test_a_closed_terminal_ends_a_run_and_nothing_is_asked_again(cli, tmp_path: Path):
    _prompts(400)
    with ServerProcess("--latency-ms", "100") as server:
        _teacher(server.url)
        code = "import os, pty, sys; pid, fd = pty.fork()\n"
        code += "if not pid: os.execv(sys.argv[1], sys.argv[1:])\n"
        code += "print(pid, flush=True); sys.stdin.read(); os.close(fd); print(os.wait()[1] >> 8)"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *_command(1)], cwd=tmp_path, text=True,
            env={**os.environ, "TOY_KEY": KEY}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        _wait(server, 50)
        out, _ = process.communicate(timeout=60)
        assert out.split()[1] == "129"
        assert server.stats()["billed"] < 400
        assert _answer(cli).code == 0
        assert set(server.billed().values()) == {1}


@pytest.mark.server
def test_a_killed_run_goes_on(cli, tmp_path: Path):
    texts = _prompts(400)
    with ServerProcess("--latency-ms", "100") as server:
        _teacher(server.url)
        process = _start(tmp_path)
        _wait(server, 50)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done = _answer(cli)
        said = re.search(r"up to (\d+) in-flight requests may be billed twice", done.stdout)
        assert done.code == 0 and said, done
        stats = server.stats()
        assert stats["billed_distinct"] == 400 and stats["billed"] <= 400 + int(said[1])
    assert [row["messages"][0]["content"] for row in _rows()] == texts


def test_what_is_reserved_for_lost_requests_can_be_released(cli):
    _prompts(3)
    with Server(plan=in_order(["reset-billed"])) as server:
        _teacher(server.url)
        first = _answer(cli)
        assert first.code == 0, first
        released = [_answer(cli, "--settle").stdout for _ in range(2)]
    amounts = [
        re.search(r"^released \$([\d.]+) that was reserved", said, re.M) for said in released
    ]
    assert amounts[0] and float(amounts[0][1]) > 0
    assert amounts[1] and float(amounts[1][1]) == 0
    assert "may have been billed" in first.stdout


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:9", r"http://127\.0\.0\.1:9: cannot be reached: .*is it running"),
        ("http://no-such-host.invalid/v1", r"no-such-host\.invalid/v1: cannot be reached: "),
    ],
)
def test_a_server_that_is_not_there_is_named_at_the_end(cli, url: str, cause: str):
    _prompts(3)
    _teacher(url, "patience_s = 0.5")
    started = time.monotonic()
    _line(_answer(cli), 3, f"{cause}.*; run again to resume$")
    assert time.monotonic() - started < 20


def test_progress_of_a_served_model_is_logged_with_tokens_dollars_and_errors(cli, tmp_path: Path):
    _prompts(24)
    with Server(latency_s=0.3, plan=in_order(["500"])) as server:
        _teacher(server.url)
        assert _answer(cli).code == 0
    events = list(read_events(tmp_path / "out/runs/answer/events.jsonl"))
    moved = [event for event in events if event.kind == "progress" and event.step == "answers"]
    last, ended = (
        moved[-1],
        next(e for e in events if e.kind == "step_ended" and e.step == "answers"),
    )
    assert [event.done for event in moved] == sorted(event.done for event in moved)
    assert 0 < last.usage["requests"] <= 24 and last.usage["usd"] > 0
    assert last.usage["prompt_tokens"] > 0 and last.usage["response_tokens"] > 0
    assert last.total == ended.rows == 24 and sum(last.errors.values()) > 0
    assert ended.usage["usd"] > 0 and sum(ended.errors.values()) >= sum(last.errors.values())
