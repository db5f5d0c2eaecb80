"""Replies that are shown while they are written: by an endpoint that streams, and by weights."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spyhop.models import Sampling, read_teacher
from spyhop.models.dialect import DIALECTS
from spyhop.models.replies import parse
from spyhop.models.transport import StreamedReply
from spyhop.models.voices import Voice, voices
from spyhop.runtime import Runtime

WORDS = ["Two", " and", " two", " are", " four", ", größer als drei."]
USAGE = {"prompt_tokens": 9, "completion_tokens": 6}


def completion() -> Iterator[dict]:
    yield {"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    yield {"id": "1", "choices": [{"index": 0, "delta": {"reasoning_content": "Count."}}]}
    for word in WORDS:
        yield {"id": "1", "choices": [{"index": 0, "delta": {"content": word}}]}
    yield {"id": "1", "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}
    yield {"id": "1", "choices": [], "usage": USAGE}


def message() -> Iterator[dict]:
    """As the documentation of Anthropic's API has them."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    yield {"type": "message_start", "message": {"type": "message", "content": [], "usage": usage}}
    for place, (kind, name) in enumerate((("thinking", "thinking"), ("text", "text"))):
        block = {"type": kind, name: ""}
        yield {"type": "content_block_start", "index": place, "content_block": block}
        yield {"type": "ping"}
        for word in ["Count."] if kind == "thinking" else WORDS:
            delta = {"type": f"{kind}_delta", name: word}
            yield {"type": "content_block_delta", "index": place, "delta": delta}
        yield {"type": "content_block_stop", "index": place}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 6},
    }
    yield {"type": "message_stop"}


def body(events: Iterator[dict]) -> bytes:
    return b"".join(b"event: x\r\ndata: %s\r\n\r\n" % json.dumps(each).encode() for each in events)


@pytest.mark.parametrize(("events", "api"), [(completion, "openai"), (message, "anthropic")])
@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, 2000), max_size=30))
def test_a_stream_cut_anywhere_becomes_the_whole_reply(
    events: Callable[[], Iterator[dict]], api: str, cuts: list[int]
):
    whole, reply, seen = body(events()) + b"data: [DONE]\n\n", StreamedReply(), []
    edges = [0, *sorted({cut for cut in cuts if cut < len(whole)}), len(whole)]
    for start, end in pairwise(edges):
        reply.take(whole[start:end])
        seen.append(reply.text)
    assert seen[-1] == "".join(WORDS)
    assert all("".join(WORDS).startswith(text) or text == "Count." for text in seen)
    (choice,), usage = parse(json.dumps(reply.whole).encode(), 1, 5, DIALECTS[api].read)
    assert "".join(WORDS) in str(choice["message"]["content"])
    assert (usage.prompt_tokens, usage.response_tokens) == (9, 6)


class Streaming(BaseHTTPRequestHandler):
    """Writes one event after the other; `may_write` opens the way for the next one."""

    may_write: threading.Semaphore

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert asked["stream"] and asked["stream_options"] == {"include_usage": True}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.end_headers()
        for each in completion():
            self.may_write.acquire(timeout=5)
            is_last = "usage" in each  # its line may have no end
            self.wfile.write(body(iter([each])).rstrip() if is_last else body(iter([each])))
            self.wfile.flush()

    def log_message(self, format: str, *values: object) -> None:
        pass


def test_an_endpoint_that_streams_is_read_event_by_event(tmp_path: Path):
    Streaming.may_write = threading.Semaphore(1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Streaming)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    teacher = tmp_path / "teacher.toml"
    url = f"http://127.0.0.1:{server.server_port}/v1"
    teacher.write_text(f'model = "m"\n[[endpoints]]\nurl = "{url}"\nusd_per_million_prompt = 1.0')
    with _voice(teacher) as voice:
        seen: list[str] = []

        def on_text(text: str) -> bool:
            seen.append(text)
            Streaming.may_write.release()  # the next event is sent once this one is seen
            return True

        voice.on_text = on_text
        found = voice.ask("Be short.", "Two and two?")
    server.shutdown()
    server.server_close()
    assert found.text == "".join(WORDS) and found.reasoning == "Count."
    assert (found.ending, found.response_tokens, found.usd) == ("whole", 6, pytest.approx(9e-6))
    assert {"Count.", "Two", "Two and"} < set(seen)


def test_weights_show_each_token_and_stop_when_nobody_reads(tiny_folder: Path):
    with _voice(tiny_folder) as voice:
        voice.sampling, seen = Sampling(max_new_tokens=8), list[str]()
        voice.on_text = lambda text: bool(seen.append(text) or True)
        whole = voice.ask("", "hi")
        assert seen[-1] == whole.text and len(seen) > 3 and len(seen[0]) < len(whole.text)
        voice.history, voice.on_text = [], lambda text: False
        assert len(voice.ask("", "hi").text) < len(whole.text)


@contextmanager
def _voice(model: Path) -> Iterator[Voice]:
    opening = voices([("m", read_teacher(model))], Runtime(), Sampling(), is_streamed=True)
    with opening as (voice,):
        yield voice
