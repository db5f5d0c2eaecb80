"""The test server keeps its word: API, limits, books and faults."""

import asyncio
import http.client
import json
import socket
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
import pytest

from server import (
    API_VERSION,
    FAULTS,
    KEY,
    Limits,
    Said,
    Server,
    ServerProcess,
    chances,
    count_tokens,
    duration,
    each,
    in_order,
    pieces,
    prompt_tokens,
    told,
)

HELLO = {"model": "teacher", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 20}


def ask(url, body=HELLO, path="/chat/completions", *, key=KEY, timeout=5.0, **headers):
    """Status, headers and raw body of one request."""
    parts = urlsplit(url + path)
    client = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    try:
        sent = {
            "Authorization": f"Bearer {key}",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        client.request("POST", f"{parts.path}?{parts.query}", raw, sent)
        response = client.getresponse()
        return response.status, response.headers, response.read()
    finally:
        client.close()


def body(place, **changes):
    return {**HELLO, "messages": [{"role": "user", "content": f"number {place}"}], **changes}


async def flood(url, bodies, *, concurrency=64):
    """Statuses of many requests through one session; None where there was none."""
    found, stream = [], iter(enumerate(bodies))
    headers = {"Authorization": f"Bearer {KEY}"}

    async def work(session):
        for place, one in stream:
            try:
                async with session.post(f"{url}/chat/completions", json=one) as response:
                    await response.read()
                    found.append((place, response.status))
            except aiohttp.ClientError:
                found.append((place, None))

    async with aiohttp.ClientSession(
        headers=headers, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        await asyncio.gather(*(work(session) for _ in range(concurrency)))
    return [status for _, status in sorted(found)]


def test_an_answer_is_a_function_of_the_messages():
    with Server() as server:
        status, headers, raw = ask(server.url)
        again = json.loads(ask(server.url)[2])
    reply = json.loads(raw)
    assert status == 200 and headers["Content-Type"] == "application/json"
    text = told(HELLO["messages"])
    message = {"role": "assistant", "content": text}
    assert reply["choices"] == [
        {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    ]
    assert again["choices"] == reply["choices"]
    used = prompt_tokens(HELLO["messages"]), count_tokens(text)
    assert reply["usage"]["prompt_tokens"] == used[0] == 3 + 4 + 2
    assert reply["usage"]["completion_tokens"] == used[1]
    assert reply["usage"]["total_tokens"] == sum(used)
    assert set(server.billed().values()) == {2}


def test_what_the_api_offers():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "why": {"type": "string"}}}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with Server(
        answer=lambda call: (
            Said(text="a b c", reasoning="hm hm") if "think" in call.text else "yes"
        ),
        counting="words",
    ) as server:
        three = json.loads(
            ask(server.url, {**HELLO, "n": 3, "logprobs": True, "top_logprobs": 2})[2]
        )
        thought = json.loads(ask(server.url, body("think"))[2])
        cut = json.loads(ask(server.url, body("think", max_tokens=4))[2])
    with Server() as server:
        shaped = json.loads(ask(server.url, {**HELLO, "response_format": shape})[2])
        varied = json.loads(ask(server.url, {**HELLO, "n": 2})[2])["choices"]
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    [line] = three["choices"][0]["logprobs"]["content"]
    assert line["token"] == "yes" and line["logprob"] < 0 and len(line["top_logprobs"]) == 2
    assert thought["choices"][0]["message"]["reasoning_content"] == "hm hm"
    assert thought["usage"]["completion_tokens"] == 5
    assert thought["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert cut["choices"][0]["message"]["content"] == "a b"
    assert cut["choices"][0]["finish_reason"] == "length"
    assert set(json.loads(shaped["choices"][0]["message"]["content"])) == {"n", "why"}
    assert varied[0]["message"] != varied[1]["message"]


@pytest.mark.parametrize("text", ["", "a", "Hello, world", "süß 你好 😀😀", " a  b\n c "])
@pytest.mark.parametrize("counting", ["bytes", "words"])
def test_tokens_joined_are_the_text(text, counting):
    assert "".join(pieces(text, counting)) == text


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"model": "other"}, 404, "model_not_found"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "content"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"temperature": 3}, 400, "temperature"),
        ({"temperature": "warm"}, 400, "invalid_type"),
        ({"top_logprobs": 2}, 400, "logprobs"),
        ({"stream": True}, 400, "stream"),
        ({"sample_index": 1}, 400, "sample_index"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format"),
    ],
)
def test_what_the_api_does_not_know_is_refused_and_free(change, status, word):
    with Server() as server:
        found, _, raw = ask(server.url, {**HELLO, **change})
    assert found == status and word in raw.decode()
    assert json.loads(raw)["error"]["message"]
    assert server.billed() == {}


def test_null_is_as_good_as_absent():
    nulls = dict.fromkeys(["stop", "temperature", "top_logprobs", "seed", "n", "response_format"])
    with Server() as server:
        assert ask(server.url, {**HELLO, **nulls})[0] == 200


def test_keys():
    with Server() as server:
        assert ask(server.url, key="sk-wrong-0123456")[0] == 401
        assert b"sk-wrong-0123456" not in ask(server.url, key="sk-wrong-0123456")[2]
        assert ask(server.url, b"{")[0] == 400
    with Server(is_forbidden=True) as server:
        assert ask(server.url)[0] == 403
    with Server(key=None) as server:
        assert ask(server.url, key="any")[0] == 200
    with Server(plan=lambda call: "401-echo") as server:
        assert KEY.encode() in ask(server.url)[2]


def test_azure():
    unnamed = {name: value for name, value in HELLO.items() if name != "model"}
    path = "/openai/deployments/{}/chat/completions"
    with Server() as server:
        good = path.format("teacher") + f"?api-version={API_VERSION}"
        assert ask(server.azure_url, unnamed, good, api_key=KEY)[0] == 200
        assert ask(server.azure_url, unnamed, good, api_key="x")[0] == 401
        assert ask(server.azure_url, unnamed, path.format("teacher"), api_key=KEY)[0] == 404
        other = path.format("other") + f"?api-version={API_VERSION}"
        assert b"DeploymentNotFound" in ask(server.azure_url, unnamed, other, api_key=KEY)[2]


def test_the_fields_for_tokens():
    with Server(tokens_field="max_completion_tokens") as server:
        status, _, raw = ask(server.url)
        assert status == 400 and b"unsupported_parameter" in raw
        other = {**HELLO, "max_completion_tokens": 5}
        del other["max_tokens"]
        assert ask(server.url, other)[0] == 200
    assert server.entries()[1].output_reserved == 5


@pytest.mark.parametrize("form", ["seconds", "date", "ms", ""])
def test_a_limit_is_enforced_in_every_window_and_says_when_to_come_again(form):
    limits = Limits(requests=20, window_s=0.4, retry_after=form)
    with Server(limits=limits, tells_limits=True) as server:
        first = asyncio.run(flood(server.url, map(body, range(30))))
        status, headers, _ = ask(server.url)
        time.sleep(0.45)
        assert ask(server.url)[0] == 200
    assert sorted(first) == [200] * 20 + [429] * 10
    assert status == 429
    assert headers["x-ratelimit-limit-requests"] == "20"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"].endswith("ms")
    if form == "seconds":
        assert headers["Retry-After"] == "1"
    elif form == "date":
        assert abs(parsedate_to_datetime(headers["Retry-After"]).timestamp() - time.time()) < 3
    elif form == "ms":
        assert 0 < int(headers["retry-after-ms"]) <= 400
    else:
        assert headers["Retry-After"] is headers["retry-after-ms"] is None
    assert not server.violations(rejected=False)
    assert len(server.violations()) == 11
    assert server.stats()["billed"] == 21


def test_tokens_count_as_reserved_or_as_used():
    prompt = prompt_tokens(HELLO["messages"])
    used = prompt + count_tokens(told(HELLO["messages"]))
    for counts, room in (("reserved", 4), ("used", 1 + (5 * (prompt + 20) - prompt - 20) // used)):
        limits = Limits(tokens=5 * (prompt + 20) - 1, counts=counts, retry_after="")
        with Server(limits=limits) as server:
            statuses = [ask(server.url)[0] for _ in range(12)]
        assert statuses == [200] * room + [429] * (12 - room), counts
        assert not server.violations(rejected=False)
    with Server(limits=Limits(output_tokens=19)) as server:
        status, headers, raw = ask(server.url)
    assert status == 429 and b"too large" in raw and headers["Retry-After"] is None


def test_violations_are_told_from_the_log_alone():
    limits = Limits(requests=5, tokens=100, window_s=0.3, is_enforced=False)
    with Server(limits=limits) as server:
        assert set(asyncio.run(flood(server.url, map(body, range(6))))) == {200}
        time.sleep(0.35)
        ask(server.url)
    found = server.violations()
    assert [violation.limit for violation in found if violation.limit == "requests"] == ["requests"]
    [first] = [violation for violation in found if violation.limit == "requests"]
    assert (first.count, first.allowed) == (6, 5)
    assert {violation.limit for violation in found} == {"requests", "tokens"}


def test_concurrency():
    with Server(latency_s=0.05, limits=Limits(concurrency=4)) as server:
        statuses = asyncio.run(flood(server.url, map(body, range(8)), concurrency=8))
    assert statuses.count(429) == 4
    with Server(latency_s=0.05) as server:
        asyncio.run(flood(server.url, map(body, range(40)), concurrency=20))
    assert server.stats()["max_in_flight"] == 20


def test_an_answer_is_billed_although_the_client_went_away():
    with Server(latency_s=0.1) as server:
        with pytest.raises(TimeoutError):
            ask(server.url, timeout=0.02)
        time.sleep(0.15)
        [entry] = server.entries()
        assert entry.is_billed and not entry.is_delivered and entry.status == 200
        assert list(server.billed().values()) == [1]
        assert server.stats()["billed_undelivered"] == 1


def test_every_fault_is_what_it_says():
    broken = {"reset", "reset-billed", "close", "cut", "cut-reset", "cut-chunked"}
    for name, fault in FAULTS.items():
        with Server(plan=in_order([name]), slow_s=0.1) as server:
            try:
                timeout = 0.2 if name.startswith("hang") else 10.0
                status, headers, raw = ask(server.url, timeout=timeout)
            except (ConnectionError, http.client.HTTPException):
                assert name in broken, name
            except TimeoutError:
                assert name in {"hang", "hang-billed"}, name
            else:
                assert name not in broken and not name.startswith("hang"), name
                assert status == fault.status, name
                assert ("Retry-After" in headers) == (
                    name in {"429-seconds", "429-date", "503-seconds"}
                    or "Retry-After" in str(fault.headers)
                ), name
                assert (raw == b"") == (fault.text == b""), name
            assert ask(server.url)[0] == 200
            first, second = server.entries()
            assert (first.outcome, second.outcome) == (name, "ok")
            assert name != "slow" or first.settled - first.time > 0.09
            billed = 2 if fault.status == 200 and fault.is_billed else 1
            assert sum(server.billed().values()) == billed, name
            assert server.stats()["max_in_flight"] == 1


def test_odd_replies_are_odd():
    def reply(name):
        with Server(plan=in_order([name])) as server:
            return ask(server.url)

    assert json.loads(reply("empty-choices")[2])["choices"] == []
    assert json.loads(reply("null")[2])["choices"][0]["message"]["content"] is None
    assert json.loads(reply("length")[2])["choices"][0]["finish_reason"] == "length"
    assert "usage" not in json.loads(reply("no-usage")[2])
    assert isinstance(json.loads(reply("string-usage")[2])["usage"]["prompt_tokens"], str)
    assert reply("html")[1]["Content-Type"] == "text/html"
    assert reply("chunked")[1]["Transfer-Encoding"] == "chunked"
    assert reply("twice")[1].get_all("x-request-id") == ["a", "b"]
    assert reply("last")[1]["Connection"] == "close"
    assert json.loads(reply("drip")[2])["choices"][0]["message"]["content"].startswith("The answer")
    assert json.loads(reply("quota")[2])["error"]["code"] == "insufficient_quota"
    for name in ("json", "not-utf8"):
        with pytest.raises(ValueError):
            json.loads(reply(name)[2])


def test_planned_faults_end_and_do_not_depend_on_order():
    bodies = [body(place) for place in range(60)]
    parts = {"429": 0.2, "reset": 0.2, "500": 0.2}

    def outcomes(concurrency):
        with Server(plan=chances(parts, seed=3, attempts=2)) as server:
            for _ in range(3):
                last = asyncio.run(flood(server.url, bodies, concurrency=concurrency))
            return last, sorted((e.key, e.outcome) for e in server.entries())

    (last, first), (_, second) = outcomes(1), outcomes(32)
    assert set(last) == {200}
    assert first == second
    assert {outcome for _, outcome in first} == {"ok", "429", "reset", "500"}
    with Server(plan=each(["500", None, "502"])) as server:
        statuses = [[ask(server.url, one)[0] for one in bodies[:2]] for _ in range(4)]
    assert statuses == [[500, 500], [200, 200], [502, 502], [200, 200]]


def test_requests_in_pieces_in_chunks_and_in_a_row():
    raw = json.dumps(HELLO).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
    )
    whole = head + b"Content-Length: %d\r\n\r\n" % len(raw) + raw
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    chunked += b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (raw[:5], len(raw) - 5, raw[5:])
    with Server() as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        for place in range(0, len(whole), 100):
            client.sendall(whole[place : place + 100])
            time.sleep(0.001)
        client.sendall(chunked + whole + whole[:-1])
        client.sendall(whole[-1:])
        found = b""
        while found.count(b"chat.completion") < 4:
            found += client.recv(65536)
        client.sendall(b"nonsense\r\n\r\n")
        while more := client.recv(65536):
            found += more
    assert found.count(b"HTTP/1.1 200 OK") == 4 and found.count(b"HTTP/1.1 400") == 1
    assert list(server.billed().values()) == [4]


def test_a_stopped_server_comes_back_on_its_port_with_its_books():
    with Server() as server:
        port = server.port
        assert ask(server.url)[0] == 200
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            ask(server.url)
        server.start()
        assert server.port == port and ask(server.url)[0] == 200
    assert list(server.billed().values()) == [2]


def test_a_process_of_its_own():
    options = ["--latency-ms", "5", "--fault", "429=1", "--attempts", "1", "--requests", "1000"]
    with ServerProcess(*options) as server:
        bodies = [body(place) for place in range(100)]
        assert set(asyncio.run(flood(server.url, bodies))) == {429}
        assert set(asyncio.run(flood(server.url, bodies))) == {200}
        stats = server.stats()
        assert (stats["requests"], stats["billed"], stats["billed_most"]) == (200, 100, 1)
        assert stats["outcomes"] == {"429": 100, "ok": 100}
        assert 1 < stats["max_in_flight"] <= 64 and stats["violations"] == 0
        assert len(server.billed()) == 100
        assert server.entries()[-1].outcome == "ok"
        server.clear()
        assert server.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(360, "6m0s"), (1, "1s"), (1.5, "1.5s"), (0.02, "20ms"), (61.25, "1m1.25s")],
)
def test_duration(seconds, shown):
    assert duration(seconds) == shown
