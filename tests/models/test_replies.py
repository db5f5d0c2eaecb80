"""Replies of other servers, class by class: each is read as it was meant, over real HTTP.

Every class holds the forms that were seen and further ones of ours.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from asking import KEY_ENV, ask, change_state, committed, opened, requests, rows, service
from server import KEY
from spyhop.models import Remote, Reply, Sampling
from spyhop.models.failures import read_failure, read_stated
from spyhop.models.journal import settle
from spyhop.models.replies import split_thoughts
from spyhop.schema import ModelError, Unfinished
from spyhop.stage import Progress

Answer = tuple[int, dict[str, str], object]
GOOD = {"choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "fine"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2}}  # fmt: skip


@contextmanager
def answering(answers: Any, *, delay_s: float = 0.0) -> Iterator[Any]:
    """A server that says what `answers(last turn, number of this call)` returns."""
    lock, calls = threading.Lock(), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                calls.append((body["messages"][-1]["content"], body, dict(self.headers)))
                number = len(calls) - 1
            time.sleep(delay_s)
            status, headers, said = answers(body["messages"][-1]["content"], number)
            raw = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.calls = calls
    server.address = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setattr("spyhop.models.schedule.RETRY_S", 0.02)


def once(special: Answer, at: str = "number 3", times: int = 10**6) -> Any:
    """All calls are answered well, but this prompt's first ones."""
    left = [times]

    def answers(text: str, number: int) -> Answer:
        if text == at and left[0]:
            left[0] -= 1
            return special
        return 200, {}, GOOD

    return answers


def one(folder: Path, special: Answer, times: int = 10**6, **at_all: object) -> tuple[Reply, int]:
    """The reply to a prompt that is answered so, among others; and how often it was asked."""
    ask(folder, _with(folder, lambda *_: (200, {}, GOOD)), [])
    with answering(once(special, times=times)) as server:
        where = service(server.address, concurrency=1, at_all={"max_attempts": 3, **at_all})
        found = ask(folder, where, requests(6))
        return found[3], sum(text == "number 3" for text, *_ in server.calls)


def _with(folder: Path, answers: Any) -> Any:
    return service("http://127.0.0.1:9/v1")


def choice(finish_reason: object, content: object = "Half of", **message: object) -> dict[str, Any]:
    turn = {"role": "assistant", "content": content, **message}
    return {"index": 0, "finish_reason": finish_reason, "message": turn}


def body(*choices: object, **more: object) -> dict[str, Any]:
    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    return {"choices": list(choices), "usage": usage, **more}


# ---------------------------------------------------------------- one prompt's own fault


FLAGGED = {"error": {"code": 403, "message": "Your input was flagged",
                     "metadata": {"reasons": ["violence"], "flagged_input": "x"}}}  # fmt: skip
POLICY = {"error": {"code": "moderation_blocked", "message": "Rejected by the safety system."}}


@pytest.mark.parametrize(
    ("status", "said", "ending"),
    [
        (403, FLAGGED, "refused"),
        (400, POLICY, "refused"),
        (422, {"detail": "The prompt violates our usage policy"}, "refused"),
        (403, {"error": {"message": "no"}}, "failed"),
        (405, b"<html>Method Not Allowed</html>", "failed"),
        (424, {"error": "a dependency failed"}, "failed"),
        (498, {}, "failed"),
        (418, "teapot", "failed"),
    ],
)
def test_a_status_for_one_prompt_is_that_prompts_row(tmp_path: Path, status, said, ending):
    found, num = one(tmp_path, (status, {}, said))
    assert (found.ending, num) == (ending, 1)
    assert str(status) in found.error and "\n" not in found.error


@pytest.mark.parametrize("status", [403, 498])
def test_fatal_replies_in_a_row_stop_resumably(tmp_path: Path, monkeypatch, status):
    monkeypatch.setattr("spyhop.models.schedule.HOPELESS_FATAL", 8)
    bad = lambda text, number: (status, {}, {"error": {"message": "no"}})  # noqa: E731
    with answering(lambda *_: (200, {}, GOOD)) as server:
        ask(tmp_path, service(server.address), requests(2))
    with answering(bad) as server, pytest.raises(Unfinished, match="8 in a row"):
        ask(tmp_path, service(server.address, concurrency=1), requests(20))
    with answering(lambda *_: (200, {}, GOOD)) as server:
        assert len(ask(tmp_path, service(server.address), requests(20))) == 20
        assert len(server.calls) == 18


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"error": {"type": "invalid_request_error",
                         "message": "Your credit balance is too low to access the API."}}),
        (429, {"error": {"message": "x", "code": "insufficient_quota"}}),
        (402, {"error": {"message": "This request requires more credits"}}),
        (403, {"error": {"code": "AllocationQuota.x", "message": "Insufficient account balance"}}),
        (200, {"error": {"code": 402, "message": "Payment required"}}),
    ],
)  # fmt: skip
def test_no_credit_stops_with_one_line(tmp_path: Path, status, said):
    with answering(once((status, {}, said))) as server:
        with pytest.raises(Unfinished, match=r"no credit.*add credit") as error:
            ask(tmp_path, service(server.address, concurrency=1), requests(40))
        assert len(server.calls) <= 6
    assert len(str(error.value).splitlines()) == 1


def test_a_limit_that_speaks_of_quota_is_no_empty_account():
    said = b'{"error": {"message": "You exceeded your current quota", "code": 429}}'
    assert read_failure(429, {"retry-after": "3"}, said, None).kind == "throttled"


# ---------------------------------------------------------------- errors inside 200


@pytest.mark.parametrize(
    ("said", "is_billed"),
    [
        ({"error": {"code": 502, "message": "Provider returned error"}}, False),
        ({"error": {"type": "overloaded_error", "message": "Overloaded"}, "type": "error"}, False),
        ({"error": {"code": "rate_limit_exceeded", "message": "slow"}}, False),
        ({"object": "error", "message": "internal", "code": 500}, False),
        (body({"index": 0, "error": {"code": 503, "message": "no"}, "finish_reason": "error"}),
         False),
        ([{"error": {"code": 504, "message": "deadline"}}], True),
        ({"error": "upstream failed"}, True),
        (body(), True),
        ({"choices": None}, True),
        (body({"index": 0, "finish_reason": "stop"}), True),
        (body({"index": 0, "message": {"content": 5}, "finish_reason": "stop"}), True),
        (body({"index": 0, "message": {"content": {"text": "x"}}, "finish_reason": "stop"}), True),
        (body(choice("error")), True),
        (body(choice("abort")), True),
        (body(choice("insufficient_system_resource")), True),
    ],
)  # fmt: skip
def test_an_error_inside_200_is_retried(tmp_path: Path, said, is_billed):
    found, num = one(tmp_path, (200, {}, said), times=1)
    assert (found.text, found.ending, num) == ("fine", "whole", 2)
    assert rows(tmp_path, "SELECT maybe_billed FROM failures") == [(int(is_billed),)]


def test_an_error_that_stays_is_left_for_the_next_run(tmp_path: Path):
    said = {"error": {"code": 502, "message": "Provider returned error"}}
    with pytest.raises(Unfinished, match=r"1 requests have no reply yet .*Provider returned error"):
        one(tmp_path, (200, {}, said))
    assert "r3" not in committed(tmp_path) and len(committed(tmp_path)) == 5


def test_an_error_may_state_a_status_in_many_forms():
    for said, status in [({"error": {"status": "UNAVAILABLE"}}, 503),
                         ({"error": {"code": "429"}}, 429),
                         ({"detail": "x", "status_code": 401}, 401)]:  # fmt: skip
        assert read_stated(said).status == status
    assert read_stated({"choices": []}) is None and read_stated({"id": 1}) is None


# ---------------------------------------------------------------- how a reply ended


@pytest.mark.parametrize(
    ("said", "ending", "text"),
    [
        ({"index": 0, "finish_reason": "content_filter", "content_filter_results": {}}, "refused",
         ""),
        ({"index": 0, "finish_reason": "SAFETY", "message": None}, "refused", ""),
        (choice("content_filter", "Half of an answ"), "cut", "Half of an answ"),
        (choice("RECITATION"), "cut", "Half of"),
        (choice("sensitive", ""), "refused", ""),
        (choice("MAX_TOKENS"), "cut", "Half of"),
        (choice("length"), "cut", "Half of"),
        (choice(None), "cut", "Half of"),
        (choice("done"), "cut", "Half of"),
        (choice("STOP"), "whole", "Half of"),
        ({"index": 0, "finish_reason": "stop", "text": "as completions"}, "whole",
         "as completions"),
    ],
)  # fmt: skip
def test_finish_reasons_over_http(tmp_path: Path, said, ending, text):
    found, num = one(tmp_path, (200, {}, body(said)))
    assert (found.ending, found.text, found.error, num) == (ending, text, None, 1)


def test_an_unknown_reason_in_most_first_replies_stops_and_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("spyhop.models.schedule.FIRST_REASONS", 12)
    with answering(lambda *_: (200, {}, body(choice("done", "It is 4.")))) as server:
        with pytest.raises(Unfinished, match=r'finish_reasons = \{ "done" = "whole" \}'):
            ask(tmp_path, service(server.address), requests(50))
        kept, num = len(committed(tmp_path)), len(server.calls)
        assert 12 <= kept == num < 40
        where = service(server.address, at_all={"finish_reasons": {"done": "whole"}})
        found = ask(tmp_path, where, requests(50))
        assert len(server.calls) == 50
    assert {each.ending for each in found} == {"whole"}


# ---------------------------------------------------------------- what is no reply


@pytest.mark.parametrize(
    ("headers", "said", "shown"),
    [
        (
            {"Content-Type": "text/html"},
            b"<html><body>Sign in to continue</body></html>",
            "Sign in",
        ),
        ({}, b"\n<!DOCTYPE html><title>Captive portal</title>", "Captive portal"),
        ({"Content-Type": "text/event-stream"}, b'data: {"choices": [{"delta": {}}]}\n\n', "delta"),
        ({}, b"event: error\ndata: nothing\n\n", "nothing"),
        ({}, b'{"status": "signed out"}', "signed out"),
        ({}, b"[1, 2]", r"\[1, 2\]"),
        ({}, b'{"choices": null}', "null"),
    ],
)
def test_a_page_in_place_of_replies_stops_the_run_and_is_shown(tmp_path, headers, said, shown):
    with answering(lambda *_: (200, headers, said)) as server:
        with pytest.raises(Unfinished, match=shown) as error:
            ask(tmp_path, service(server.address, concurrency=2), requests(50))
        assert len(server.calls) <= 10
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 500


def test_a_redirect_is_named(tmp_path: Path):
    moved = lambda *_: (302, {"Location": "https://login.example/x"}, b"")  # noqa: E731
    shown = r"302 redirects to https://login\.example/x"
    with answering(moved) as server, pytest.raises(Unfinished, match=shown):
        ask(tmp_path, service(server.address, concurrency=2), requests(50))


def test_a_body_above_the_cap_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spyhop.models.transport.MOST_BYTES", 100_000)
    found, num = one(tmp_path, (200, {}, body(choice("stop", "x" * 200_000))))
    assert (found.ending, num) == ("failed", 3) and "more than" in found.error


def test_a_key_that_is_repeated_is_kept_nowhere(tmp_path: Path):
    spelled = json.dumps(body(choice("stop", "your key is KEY"))).replace(
        "KEY", "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    )
    for number, said in enumerate([body(choice("stop", f"I see {KEY}.")), spelled.encode()]):
        folder = tmp_path / str(number)
        found, _ = one(folder, (200, {}, said))
        assert KEY not in found.text and KEY_ENV in found.text
        assert KEY.encode() not in b"".join(
            path.read_bytes() for path in (folder / ".journal").iterdir()
        )
    with pytest.raises(ModelError) as error, answering(lambda *_: (401, {}, f"bad {KEY}")) as bad:
        ask(tmp_path / "401", service(bad.address), requests(1))
    assert KEY not in str(error.value)


# ---------------------------------------------------------------- thoughts


@pytest.mark.parametrize(
    ("message", "thoughts", "text"),
    [
        ({"content": "<think>\n2 and 2\n</think>\n\n4"}, "2 and 2", "4"),
        ({"content": "2 and 2\n</think>\n\n4"}, "2 and 2", "4"),
        ({"content": "<think></think>4"}, "", "4"),
        ({"content": "[THINK]2 and 2[/THINK]4"}, "2 and 2", "4"),
        ({"content": "<thinking>2 and 2</thinking>\n4"}, "2 and 2", "4"),
        ({"content": "4", "reasoning": "2 and 2"}, "2 and 2", "4"),
        ({"content": "4", "reasoning_content": "2 and 2"}, "2 and 2", "4"),
        ({"content": "4", "reasoning_details": [{"type": "reasoning.text", "text": "2 and 2"}]},
         "2 and 2", "4"),
        ({"content": [{"type": "thinking", "thinking": "2 and 2"}, {"type": "text", "text": "4"}]},
         "2 and 2", "4"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2 and 2"}]},
                      {"type": "text", "text": "4"}]}, "2 and 2", "4"),
        ({"content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}, "", "42"),
        ({"content": "Write `</think>` to end a thought."}, "",
         "Write `</think>` to end a thought."),
        ({"content": "The tag <think> opens it."}, "", "The tag <think> opens it."),
    ],
)  # fmt: skip
def test_thoughts_go_where_they_belong(tmp_path: Path, message, thoughts, text):
    said = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    found, _ = one(tmp_path, (200, {}, body(said)))
    assert (found.reasoning, found.text, found.ending) == (thoughts, text, "whole")


def test_a_thought_that_is_cut_leaves_no_response(tmp_path: Path):
    found, _ = one(tmp_path, (200, {}, body(choice("length", "<think>2 and"))))
    assert (found.reasoning, found.text, found.ending) == ("2 and", "", "cut")
    assert split_thoughts("<think>a</think><think>b</think>c") == ("a\n\nb", "c")


# ---------------------------------------------------------------- the cause is said


def test_the_cause_of_silence_is_shown_while_nothing_answers(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("spyhop.models.endpoint.SILENT_S", 0.2)
    monkeypatch.setattr("spyhop.models.schedule.RETRY_S", 0.2)
    shown: list[str] = []
    where = service("http://127.0.0.1:1/v1", at_all={"max_attempts": 4})
    with opened(tmp_path, where) as (model, ctx):
        ctx.report = lambda progress: shown.append(progress.note)
        with pytest.raises(Unfinished, match=r"cannot be reached.*is it running") as error:
            list(model.generate(requests(3), Sampling(max_new_tokens=9)))
    assert any("no reply for" in note and "127.0.0.1:1" in note for note in shown)
    assert len(str(error.value).splitlines()) == 1


def test_a_steady_500_asks_about_the_url(tmp_path: Path):
    with answering(lambda *_: (500, {}, {"error": "boom"})) as server:
        address = server.address.removesuffix("/v1")
        with pytest.raises(Unfinished, match=r"500 boom.*/v1"):
            ask(tmp_path, service(address, at_all={"max_attempts": 2}), requests(2))


# ---------------------------------------------------------------- money


def test_failures_that_nobody_bills_reserve_nothing(tmp_path: Path):
    priced = {"usd_per_million_prompt": 1.0, "usd_per_million_response": 1000.0}
    bad = [(502, {}, b"bad"), (429, {}, {}), (503, {}, {}), (529, {}, {}), (500, {}, {})]
    answers = lambda text, number: bad[number] if number < len(bad) else (200, {}, GOOD)  # noqa: E731
    with answering(answers) as server:
        where = service(server.address, concurrency=1, **priced, at_all={"budget_usd": 0.05})
        with opened(tmp_path, where) as (model, ctx):
            assert len(list(model.generate(requests(3), Sampling(max_new_tokens=9)))) == 3
    assert ctx.usage["usd"] == pytest.approx(3 * (9e-6 + 2e-3))
    assert "maybe_billed_usd" not in ctx.usage


@pytest.mark.parametrize("status", [408, 504, 524])
def test_what_may_be_billed_is_reserved_until_it_is_settled(tmp_path: Path, status):
    priced = {"usd_per_million_response": 1000.0}
    bad = lambda text, number: (status, {}, {}) if number < 2 else (200, {}, GOOD)  # noqa: E731
    with answering(bad) as server:
        where = service(server.address, concurrency=1, **priced, at_all={"budget_usd": 0.02})
        with pytest.raises(Unfinished, match=r"\$0\.0180 reserved .* --settle"):
            ask(tmp_path, where, requests(3), Sampling(max_new_tokens=9))
        assert settle(tmp_path) == pytest.approx(0.018)
        assert len(ask(tmp_path, where, requests(3), Sampling(max_new_tokens=9))) == 3


def test_rows_that_share_a_reply_made_one_call(tmp_path: Path):
    with answering(lambda *_: (200, {}, GOOD)) as server:
        twice = [each.model_copy(update={"id": f"{each.id}.{n}"})
                 for n in range(2) for each in requests(7)]  # fmt: skip
        with opened(tmp_path, service(server.address)) as (model, ctx):
            assert len(list(model.generate(twice, Sampling(max_new_tokens=9)))) == 14
            list(model.generate(requests(7), Sampling(max_new_tokens=9)))
        assert len(server.calls) == 7
    assert (ctx.usage["requests"], ctx.usage["response_tokens"]) == (7, 14)


@pytest.mark.parametrize(
    ("remote", "temperature", "is_refused"),
    [
        ({}, 0.0, True),
        ({}, 0.7, False),
        ({}, "unset", False),
        ({"omit": ("temperature",)}, 0.0, False),
        ({"extra": {"temperature": 0}}, 0.7, True),
    ],
)
def test_samples_that_would_all_be_the_same_are_refused(remote, temperature, is_refused):
    config, sampling = Remote(model="m", **remote), Sampling(temperature=temperature)
    config.check_samples(1, sampling)
    outcome = pytest.raises(ModelError, match="3 samples at temperature 0")
    with outcome if is_refused else nullcontext():
        config.check_samples(3, sampling)


def test_what_may_be_billed_twice_is_summed_over_kills(tmp_path: Path):
    bad = lambda text, number: (504, {}, {}) if number < 2 else (200, {}, GOOD)  # noqa: E731
    with answering(bad) as server:
        where = service(server.address, concurrency=1, usd_per_million_response=1000.0)
        ask(tmp_path, where, requests(2), Sampling(max_new_tokens=9))
        for _ in range(2):  # as two kills with three requests in flight leave it
            change_state(tmp_path, is_closed=False, ceiling=3, ceiling_usd=0.03)
            with opened(tmp_path, where) as (model, ctx):
                replies = list(model.generate(requests(3), Sampling(max_new_tokens=9)))
            assert len(replies) == 3
    assert ctx.usage["maybe_billed"] == 2 and ctx.usage["maybe_billed_twice"] == 6
    assert ctx.usage["maybe_billed_usd"] == pytest.approx(2 * 9e-3 + 2 * 0.03)


def test_progress_never_runs_backwards_and_projects_what_it_will_cost(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("spyhop.models.endpoint.REPORT_S", 0.01)
    seen: list[Progress] = []
    with answering(lambda *_: (200, {}, GOOD), delay_s=0.02) as server:
        where = service(server.address, concurrency=8, usd_per_million_response=10_000.0)
        with opened(tmp_path, where) as (model, ctx):
            ctx.report = seen.append
            for start in (0, 60):
                asked = requests(60, start=start)
                list(model.generate(asked, Sampling(max_new_tokens=9), total=60))
    done = [each.done for each in seen]
    assert done == sorted(done) and done[-1] <= 120
    guesses = [float(each.note.split("of about $")[1].split(",")[0])
               for each in seen if "of about" in each.note and each.done < 60]  # fmt: skip
    assert guesses and all(guess == pytest.approx(60 * 0.02, rel=0.02) for guess in guesses)


# ---------------------------------------------------------------- a stopped process


@pytest.mark.waits
def test_a_stopped_process_takes_the_replies_that_wait_in_its_sockets(tmp_path: Path):
    with answering(lambda *_: (200, {}, GOOD), delay_s=0.5) as server:
        command = [sys.executable, "-c", "import asking, sys; "
                   "from pathlib import Path; "
                   "asking.ask(Path(sys.argv[1]), asking.service(sys.argv[2], timeout_s=3.0),"
                   " asking.requests(12))", str(tmp_path), server.address]  # fmt: skip
        path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        env = os.environ | {"PYTHONPATH": path}
        process = subprocess.Popen(command, env=env)
        while len(server.calls) < 12:
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        time.sleep(4.5)
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0
        assert len(server.calls) == 12 == len(committed(tmp_path))
