"""Native APIs over HTTP: what is sent, how replies read, and every documented error body."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asking import opened, service
from providers import KEY, Provider
from spyhop.models import Endpoint, Reply, Request, Sampling
from spyhop.models.dialect import DIALECTS, ApiCall, SharedPart, group_of, shared_parts
from spyhop.models.endpoint import Remote
from spyhop.models.failures import NO_CREDIT, read_failure, remaining
from spyhop.models.replies import Unreadable, parse, read_choice, read_reply
from spyhop.schema import Message, ModelError, Unfinished

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY_ENV = "NATIVE_KEY"
NATIVE = ["anthropic", "gemini"]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setattr("spyhop.models.schedule.RETRY_S", 0.02)


def turns(*contents: str, system: str = "") -> list[Message]:
    """Turns of user and assistant, below a system message."""
    roles = ["user", "assistant"] * len(contents)
    found = [Message(role=role, content=text) for role, text in zip(roles, contents, strict=False)]
    return [Message(role="system", content=system), *found] if system else found


def asked(*contents: str, name: str = "r", system: str = "", **more: Any) -> Request:
    return Request(id=name, messages=turns(*contents, system=system), **more)


def ask(
    folder: Path, server: Provider, requests: list[Request], sampling: Sampling, **more: Any
) -> tuple[list[Reply], dict[str, float]]:
    """Every reply of one run, and the usage that the stage counts."""
    remote = Remote(model="m", extra=more.pop("extra", {}), omit=more.pop("omit", ()))
    where = service(server.url, api=server.api, **more)
    where = where.model_copy(
        update={
            "endpoints": tuple(e.model_copy(update={"key_env": KEY_ENV}) for e in where.endpoints)
        }
    )
    with opened(folder, where, remote=remote) as (model, ctx):
        return list(model.generate(requests, sampling)), dict(ctx.usage)


def sent(api: str, call: ApiCall, extra: Any = None, omit: tuple[str, ...] = ()) -> dict[str, Any]:
    return json.loads(DIALECTS[api].body(call, extra or {}, omit))


# ---------------------------------------------------------------- every dialect


def test_every_api_of_an_endpoint_has_a_dialect():
    names = Endpoint.model_fields["api"].annotation.__args__
    assert set(names) == set(DIALECTS)


@pytest.mark.parametrize("api", NATIVE)
def test_a_conversation_over_http(tmp_path: Path, api: str):
    talk = asked("Hi", "Hello", "Why?", system="Be brief.")
    sampling = Sampling(max_new_tokens=40, temperature=0.5, top_p=0.9, stop=("END",))
    with Provider(api) as server:
        (found,), usage = ask(tmp_path, server, [talk], sampling)
    assert (found.text, found.ending) == ("re: Why?", "whole")
    assert found.prompt_tokens and found.response_tokens == 2 == usage["response_tokens"]
    path, _, body = server.calls[0]
    assert KEY not in json.dumps(body) + path and "END" in json.dumps(body)
    if api == "anthropic":
        assert body["system"] == [{"type": "text", "text": "Be brief."}]
        assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
        assert (body["temperature"], body["top_p"]) == (0.5, 0.9) and "seed" not in body
    else:
        assert path.endswith("/models/m:generateContent")
        assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
        assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
        how = {"maxOutputTokens": 40, "temperature": 0.5, "topP": 0.9, "seed": 0}
        assert body["generationConfig"] == how | {"stopSequences": ["END"]}


@pytest.mark.parametrize("api", NATIVE)
def test_turns_of_one_role_are_one_message(tmp_path: Path, api: str):
    odd = Request(id="r", messages=[*turns("a", system="s"), *turns("b"), *turns("c", system="t")])
    with Provider(api) as server:
        (found,), _ = ask(tmp_path, server, [odd], Sampling(max_new_tokens=9))
    body = server.calls[0][2]
    contents = [
        turn.get("content") or turn["parts"] for turn in body.get("messages") or body["contents"]
    ]
    assert found.text in ("re: abc", "re: c") and len(contents) == 1
    assert [block["text"] for block in contents[0]] == ["a", "b", "c"]
    system = body.get("system") or body["systemInstruction"]["parts"]
    assert [block["text"] for block in system] == ["s", "t"]


@pytest.mark.parametrize("api", NATIVE)
def test_a_response_that_is_begun_is_continued(tmp_path: Path, api: str):
    begun = asked("Count.", continuation="1, 2, ")
    with Provider(api) as server:
        ask(tmp_path, server, [begun], Sampling(max_new_tokens=9))
    body = server.calls[0][2]
    last = (body.get("messages") or body.get("contents"))[-1]
    assert last in ({"role": "assistant", "content": "1, 2,"},
                    {"role": "model", "parts": [{"text": "1, 2,"}]})  # fmt: skip


@pytest.mark.parametrize("api", NATIVE)
def test_a_schema_goes_out_and_comes_back(tmp_path: Path, api: str):
    sampling = Sampling(max_new_tokens=40, json_schema=SCHEMA)
    with Provider(api) as server:
        (found,), _ = ask(tmp_path, server, [asked("How many?")], sampling)
    assert json.loads(found.text) == {"n": 3}


@pytest.mark.parametrize(
    ("api", "extra"),
    [
        ("anthropic", {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("gemini", {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}),
    ],
)
def test_thoughts_come_apart_from_the_text(tmp_path: Path, api: str, extra: dict[str, Any]):
    sampling = Sampling(max_new_tokens=4000, temperature="unset")
    with Provider(api) as server:
        (found,), _ = ask(tmp_path, server, [asked("Why?")], sampling, extra=extra)
    assert (found.text, found.reasoning) == ("re: Why?", "hm")
    if api == "gemini":  # counted apart from the response
        assert (found.reasoning_tokens, found.response_tokens) == (7, 9)
        assert server.calls[0][2]["generationConfig"]["maxOutputTokens"] == 4000


@pytest.mark.parametrize(
    ("api", "names"), [("anthropic", ("temperature",)), ("gemini", ("temperature", "topP", "seed"))]
)
def test_fields_that_a_model_refuses_stay_out(tmp_path: Path, api: str, names: tuple[str, ...]):
    with Provider(api, refuses=dict.fromkeys(names, "deprecated")) as server:
        (found,), _ = ask(tmp_path, server, [asked("x")], Sampling(), omit=names)
        (other,), _ = ask(tmp_path, server, [asked("y")], Sampling(temperature="unset"))
    assert found.ending == other.ending == "whole"


# ---------------------------------------------------------------- how replies read


def message(stop_reason: object, *blocks: object, **usage: object) -> dict[str, Any]:
    counts = {"input_tokens": 9, "output_tokens": 5, **usage}
    return {"type": "message", "role": "assistant", "content": list(blocks),
            "stop_reason": stop_reason, "usage": counts}  # fmt: skip


def candidate(reason: object, *texts: str, **more: object) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": text} for text in texts]}
    found = {"finishReason": reason, "index": 0, **({"content": content} if texts else {}), **more}
    return {"candidates": [found], "usageMetadata": {"promptTokenCount": 9}}


TEXT = {"type": "text", "text": "Half of"}
HIDDEN = {"type": "redacted_thinking", "data": "x"}


@pytest.mark.parametrize(
    ("api", "said", "ending"),
    [
        ("anthropic", message("end_turn", TEXT), "whole"),
        ("anthropic", message("stop_sequence", TEXT), "whole"),
        ("anthropic", message("end_turn"), "empty"),
        ("anthropic", message("end_turn", HIDDEN, TEXT), "whole"),
        ("anthropic", message("max_tokens", TEXT), "cut"),
        ("anthropic", message("model_context_window_exceeded", TEXT), "cut"),
        ("anthropic", message("pause_turn", TEXT), "cut"),
        ("anthropic", message("tool_use", TEXT), "cut"),
        ("anthropic", message("refusal"), "refused"),
        ("anthropic", message("refusal", TEXT), "cut"),
        ("anthropic", message(None, TEXT), "cut"),
        ("gemini", candidate("STOP", "Half of"), "whole"),
        ("gemini", candidate("STOP"), "empty"),
        ("gemini", candidate("MAX_TOKENS", "Half of"), "cut"),
        ("gemini", candidate("MAX_TOKENS"), "cut"),
        ("gemini", candidate("OTHER", "Half of"), "cut"),
        ("gemini", candidate("FINISH_REASON_UNSPECIFIED", "Half of"), "cut"),
        *(("gemini", candidate(word), "refused")
          for word in ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT",
                       "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
                       "MODEL_ARMOR")),
        ("gemini", candidate("SAFETY", "Half of"), "cut"),
        *(("gemini", {"promptFeedback": {"blockReason": word}, "usageMetadata": {}}, "refused")
          for word in ("SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY",
                       "BLOCKED_REASON_UNSPECIFIED")),
    ],
)  # fmt: skip
def test_how_replies_end(api: str, said: object, ending: str):
    choices, usage = parse(json.dumps(said).encode(), 1, 50, DIALECTS[api].read)
    assert read_reply(asked("x"), choices[0], usage, 0.0).ending == ending


@pytest.mark.parametrize(
    ("api", "said", "kind", "is_billed"),
    [
        *(("gemini", candidate(word, "x"), "overloaded", True)
          for word in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE",
                       "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE")),
        ("gemini", {"candidates": [], "usageMetadata": {"promptTokenCount": 3}}, "malformed", True),
        ("gemini", {"usageMetadata": {"promptTokenCount": 3}}, "malformed", True),
        ("gemini", [{"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}],
         "overloaded", False),
        ("anthropic", {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
         "overloaded", False),
        ("anthropic", {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}},
         "throttled", False),
        ("anthropic", {"type": "message", "content": None, "stop_reason": "end_turn"}, None, None),
        ("anthropic", {"type": "message", "content": 7, "stop_reason": "end_turn"}, "malformed",
         True),
        ("anthropic", b"<html><title>Sign in</title></html>", "page", True),
        ("gemini", b"<!doctype html><p>proxy", "page", True),
        ("anthropic", b'{"type": "message", "content": [{"type": "te', "malformed", True),
        ("gemini", b'{"candidates": [{"content": {"parts": [{"text": "x', "malformed", True),
        ("anthropic", {"completion": "old API"}, "page", True),
    ],
)  # fmt: skip
def test_what_is_no_reply(api: str, said: object, kind: str | None, is_billed: bool | None):
    raw = said if isinstance(said, bytes) else json.dumps(said).encode()
    if kind is None:
        assert parse(raw, 1, 50, DIALECTS[api].read)
        return
    with pytest.raises(Unreadable) as error:
        parse(raw, 1, 50, DIALECTS[api].read)
    assert (error.value.failure.kind, error.value.failure.is_maybe_billed) == (kind, is_billed)


def test_usage_of_each_dialect():
    said = message("end_turn", TEXT, cache_read_input_tokens=100, cache_creation_input_tokens=20,
                   output_tokens_details={"thinking_tokens": 3})  # fmt: skip
    _, usage = parse(json.dumps(said).encode(), 1, 50, DIALECTS["anthropic"].read)
    assert tuple(usage) == (129, 100, 5, 3, True, 20)
    counts = {"promptTokenCount": 90, "cachedContentTokenCount": 60, "candidatesTokenCount": 5,
              "thoughtsTokenCount": 30, "totalTokenCount": 125}  # fmt: skip
    raw = json.dumps({**candidate("STOP", "x"), "usageMetadata": counts}).encode()
    assert tuple(parse(raw, 1, 50, DIALECTS["gemini"].read)[1]) == (90, 60, 35, 30, True, 0)
    chat = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 50, "completion_tokens": 2,
                      "prompt_cache_hit_tokens": 40}}  # fmt: skip
    assert parse(json.dumps(chat).encode(), 1, 50)[1].cached_tokens == 40


@pytest.mark.parametrize("usage", [None, 7, {}, {"input_tokens": "x"}, {"output_tokens": None}])
def test_odd_usage_breaks_nothing(usage: object):
    one = {**message("end_turn", TEXT), "usage": usage}
    other = {**candidate("STOP", "Half of"), "usageMetadata": usage}
    for api, said in (("anthropic", one), ("gemini", other)):
        choices, found = parse(json.dumps(said).encode(), 1, 50, DIALECTS[api].read)
        assert choices and (found.prompt_tokens, found.response_tokens) == (50, 2)


def test_geminis_log_probabilities_score_options():
    places = [{"candidates": [{"token": "A", "logProbability": -0.1},
                              {"token": "B", "logProbability": -2.4}]}]  # fmt: skip
    logprobs = {"chosenCandidates": [{"token": "A", "logProbability": -0.1}],
                "topCandidates": places}  # fmt: skip
    said = candidate("STOP", "A", logprobsResult=logprobs)
    choices, usage = parse(json.dumps(said).encode(), 1, 50, DIALECTS["gemini"].read)
    found = read_choice(asked("x", options=("A", "B")), choices[0], usage, 0.0)
    assert not found.is_parsed and found.probabilities[0] == pytest.approx(0.909, abs=1e-3)
    assert read_reply(asked("x"), choices[0], usage, 0.0).log_probability == pytest.approx(-0.1)
    call = ApiCall("choose", asked("x", options=("A", "B")), Sampling(), "m")
    assert sent("gemini", call)["generationConfig"]["logprobs"] == 20
    assert "logprobs" not in sent("anthropic", call)


@pytest.mark.parametrize("odd", [None, 7, [], {}, {"chosenCandidates": [None, 3]},
                                 {"chosenCandidates": [{}], "topCandidates": [None]}])  # fmt: skip
def test_odd_log_probabilities_break_nothing(odd: object):
    raw = json.dumps(candidate("STOP", "A", logprobsResult=odd)).encode()
    choices, usage = parse(raw, 1, 50, DIALECTS["gemini"].read)
    assert read_reply(asked("x"), choices[0], usage, 0.0).text == "A"


# ---------------------------------------------------------------- documented errors


def anthropic_error(kind: str, message: str = "no", **details: object) -> dict[str, Any]:
    more = {"details": details} if details else {}
    return {"type": "error", "error": {"type": kind, "message": message, **more},
            "request_id": "req_1"}  # fmt: skip


def google_error(code: int, status: str, message: str = "no", *details: object) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def openai_error(code: str | None, message: str = "no", kind: str = "x") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


INFO = "type.googleapis.com/google.rpc"
DAILY = {"@type": f"{INFO}.QuotaFailure", "violations": [
    {"quotaMetric": "m", "quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}  # fmt: skip
MINUTE = {"@type": f"{INFO}.QuotaFailure", "violations": [
    {"quotaMetric": "m", "quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}  # fmt: skip
DELAY = {"@type": f"{INFO}.RetryInfo", "retryDelay": "34.5s"}
SPENT = "You have reached your specified API usage limits. You will regain access on 2026-12-01."
FILTERED = {"error": {"message": "The response was filtered", "type": None, "param": "prompt",
                      "code": "content_filter", "status": 400}}  # fmt: skip
ERRORS = [
    # Anthropic
    (400, anthropic_error("invalid_request_error", "max_tokens: Field required"), "rejected"),
    (400, anthropic_error("invalid_request_error", "prompt is too long: 21 tokens"), "rejected"),
    (400, anthropic_error("invalid_request_error", "`temperature` is deprecated"), "rejected"),
    (400, anthropic_error("invalid_request_error", "Your credit balance is too low"), "credit"),
    (400, anthropic_error("invalid_request_error", SPENT), "credit"),
    (400, anthropic_error("invalid_request_error", "Output blocked by content filtering policy"),
     "refused"),
    (400, anthropic_error("invalid_request_error", "This organization has been disabled"), "fatal"),
    (401, anthropic_error("authentication_error"), "fatal"),
    (402, anthropic_error("billing_error"), "credit"),
    (403, anthropic_error("permission_error"), "fatal"),
    (404, anthropic_error("not_found_error"), "fatal"),
    (409, anthropic_error("conflict_error"), "overloaded"),
    (413, anthropic_error("request_too_large"), "rejected"),
    (429, anthropic_error("rate_limit_error"), "throttled"),
    (429, anthropic_error("rate_limit_error", error_code="enforced_spend_limit_reached"), "credit"),
    (500, anthropic_error("api_error"), "overloaded"),
    (504, anthropic_error("timeout_error"), "overloaded"),
    (529, anthropic_error("overloaded_error"), "overloaded"),
    # Gemini
    (400, google_error(400, "INVALID_ARGUMENT", "Logprobs is not enabled for m"), "rejected"),
    (400, google_error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.",
                       {"@type": f"{INFO}.ErrorInfo", "reason": "API_KEY_INVALID"}), "fatal"),
    (400, google_error(400, "FAILED_PRECONDITION", "User location is not supported"), "fatal"),
    (400, google_error(400, "OUT_OF_RANGE"), "rejected"),
    (401, google_error(401, "UNAUTHENTICATED"), "fatal"),
    (403, google_error(403, "PERMISSION_DENIED"), "fatal"),
    (404, google_error(404, "NOT_FOUND"), "fatal"),
    (429, google_error(429, "RESOURCE_EXHAUSTED", "exceeded your current quota", MINUTE, DELAY),
     "throttled"),
    (429, google_error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", DAILY, DELAY),
     "credit"),
    (499, google_error(499, "CANCELLED"), "overloaded"),
    (500, google_error(500, "INTERNAL"), "overloaded"),
    (501, google_error(501, "UNIMPLEMENTED"), "overloaded"),
    (503, google_error(503, "UNAVAILABLE", "The model is overloaded."), "overloaded"),
    (504, google_error(504, "DEADLINE_EXCEEDED"), "overloaded"),
    # OpenAI
    (400, openai_error("unsupported_parameter", "Use 'max_completion_tokens'"), "rejected"),
    (400, openai_error("unsupported_value", "'temperature' does not support 0.7"), "rejected"),
    (400, openai_error("context_length_exceeded"), "rejected"),
    (400, openai_error("content_policy_violation"), "refused"),
    (400, openai_error("invalid_prompt", "flagged as potentially violating our usage policy"),
     "refused"),
    (401, openai_error("invalid_api_key"), "fatal"),
    (401, openai_error(None, "You must be a member of an organization to use the API"), "fatal"),
    (401, openai_error("ip_not_authorized"), "fatal"),
    (403, openai_error("unsupported_country_region_territory"), "fatal"),
    (404, openai_error("model_not_found"), "fatal"),
    (429, openai_error("rate_limit_exceeded", kind="tokens"), "throttled"),
    (429, openai_error("slow_down", kind="rate_limit_error"), "throttled"),
    (429, openai_error("insufficient_quota", kind="insufficient_quota"), "credit"),
    (429, openai_error("credit_balance_exhausted", kind="insufficient_quota"), "credit"),
    (429, openai_error("billing_hard_limit_reached"), "credit"),
    (429, openai_error("billing_not_active"), "credit"),
    (500, openai_error(None, kind="server_error"), "overloaded"),
    (503, openai_error("server_is_overloaded", kind="service_unavailable_error"), "overloaded"),
    # Azure
    (400, FILTERED, "refused"),
    (400, openai_error("OperationNotSupported"), "rejected"),
    (401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}},
     "fatal"),
    (401, {"error": {"code": "PermissionDenied", "message": "Principal does not have access"}},
     "fatal"),
    (403, {"error": {"code": "403", "message": "Access denied due to Virtual Network rules."}},
     "fatal"),
    (403, {"error": {"code": "403", "message": "The resource has been temporarily blocked because "
                     "we detected behavior that may violate our content policy."}}, "fatal"),
    (404, {"error": {"code": "DeploymentNotFound", "message": "no such deployment"}}, "fatal"),
    (408, {"error": {"code": "Timeout", "message": "The operation was timeout."}}, "overloaded"),
    (429, {"error": {"code": "429", "message": "Please retry after 6 seconds."}}, "throttled"),
    (500, {"error": {"code": "InternalServerError", "message": "Backend error"}}, "overloaded"),
    (503, {"error": {"code": "ServiceUnavailable", "message": "no"}}, "overloaded"),
    # gateways
    (402, {"error": {"code": 402, "message": "Insufficient credits"}}, "credit"),
    (403, {"error": {"message": "Input token count + max_tokens must be less than 8193"}},
     "rejected"),
    (403, {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["hate"]}}},
     "refused"),
    (502, b"<html><h1>502 Bad Gateway</h1></html>", "overloaded"),
    (400, b"<html><h1>400 Bad Request</h1>cloudflare</html>", "rejected"),
    (429, b'{"error": {"type": "rate_limit_err', "throttled"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind"), ERRORS)
def test_documented_errors(status: int, body: Any, kind: str):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = read_failure(status, {}, raw, NOW)
    expected = ("fatal", NO_CREDIT) if kind == "credit" else (kind, found.status)
    assert (found.kind, found.status) == expected and "\n" not in found.message
    if kind == "fatal":
        assert found.status != NO_CREDIT


def test_googles_delay_is_waited_for():
    raw = json.dumps(google_error(429, "RESOURCE_EXHAUSTED", "no", MINUTE, DELAY)).encode()
    assert read_failure(429, {}, raw, NOW).retry_after_s == 34.5
    assert read_failure(429, {"retry-after": "2"}, raw, NOW).retry_after_s == 2
    for odd in (None, 7, "soon", {"x": 1}, [None, "x", {"violations": [3], "retryDelay": 5}]):
        body = json.dumps({"error": {"code": 429, "message": "no", "details": odd}}).encode()
        assert read_failure(429, {}, body, NOW).retry_after_s is None


def test_anthropics_limits_are_read():
    headers = {
        f"anthropic-ratelimit-{name}-{what}": value
        for name, values in {
            "requests": ("50", "0", "2026-01-02T03:04:15Z"),
            "input-tokens": ("30000", "12000", "2026-01-02T03:04:07Z"),
            "output-tokens": ("8000", "8000", "2026-01-02T03:00:00Z"),
            "tokens": ("38000", "many", "2026-01-02T03:04:07Z"),
        }.items()
        for what, value in zip(("limit", "remaining", "reset"), values, strict=True)
    }
    assert remaining(headers, NOW) == {
        "requests": (50, 0, 10), "prompt tokens": (30000, 12000, 2),
        "response tokens": (8000, 8000, 0),
    }  # fmt: skip
    assert read_failure(429, headers, b"", NOW).retry_after_s == 10


@pytest.mark.parametrize(
    ("api", "status", "body", "shown"),
    [
        ("anthropic", 529, anthropic_error("overloaded_error", "Overloaded"), "Overloaded"),
        ("anthropic", 402, anthropic_error("billing_error", "x"), "no credit"),
        ("gemini", 503, google_error(503, "UNAVAILABLE", "overloaded"), "overloaded"),
        ("gemini", 429, google_error(429, "RESOURCE_EXHAUSTED", "x", DAILY), "no credit"),
    ],
)
def test_errors_over_http_leave_the_run_resumable(tmp_path: Path, api, status, body, shown):
    with (
        Provider(api, say=lambda text, place: (status, body)) as server,
        pytest.raises(Unfinished, match=shown),
    ):
        ask(tmp_path, server, [asked("x")], Sampling(), at_all={"max_attempts": 2})
    with Provider(api) as server:
        (found,), usage = ask(tmp_path, server, [asked("x")], Sampling())
    assert found.ending == "whole" and "maybe_billed_usd" not in usage


@pytest.mark.parametrize("api", NATIVE)
def test_a_wrong_key_is_one_line(tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(KEY_ENV, "wrong")
    with Provider(api) as server, pytest.raises(ModelError, match=f"{KEY_ENV} to a key") as error:
        ask(tmp_path, server, [asked("x")], Sampling())
    assert len(str(error.value).splitlines()) == 1


def test_the_chat_layer_of_anthropic_is_refused():
    with pytest.raises(ValueError, match='needs api = "anthropic"'):
        Endpoint(url="https://api.anthropic.com/v1")
    assert Endpoint(url="https://api.anthropic.com/v1", api="anthropic").api == "anthropic"


# ---------------------------------------------------------------- shared beginnings


RULES = "Rate the answer by these rules.\n" + "Be strict about every single word.\n" * 120
PRICES = {"usd_per_million_prompt": 10.0, "usd_per_million_cached": 1.0,
          "usd_per_million_cache_write": 12.5, "usd_per_million_response": 0.0}  # fmt: skip


def test_what_prompts_share():
    some = [asked(f"{RULES}Answer {n}: 1{n}", name=f"r{n}") for n in range(3)]
    assert shared_parts(some) == {"": SharedPart(0, len(RULES))}
    below = [asked(f"q{n}", system=name, name=f"{n}") for n in range(4) for name in ("s", "t")]
    assert shared_parts(below) == {"s": SharedPart(1, 0), "t": SharedPart(1, 0)}
    assert shared_parts(some[:1]) == {} and shared_parts([]) == {}
    same = [asked("one", name=f"r{n}", sample_index=n) for n in range(2)]
    assert shared_parts(same) == {"": SharedPart(1, 0)} and group_of(same[0]) == ""
    longer = [asked("a\nb", "c"), asked("a\nb", "c", "d")]
    assert shared_parts(longer) == {"": SharedPart(2, 0)}


@pytest.mark.parametrize("is_system", [True, False])
def test_the_shared_part_is_marked_cached_and_priced(tmp_path: Path, is_system: bool):
    some = [
        asked(f"Answer {n}", name=f"r{n}", system=RULES) if is_system
        else asked(f"{RULES}Answer {n}", name=f"r{n}")
        for n in range(5)
    ]  # fmt: skip
    with Provider("anthropic") as server:
        found, usage = ask(tmp_path, server, some, Sampling(), concurrency=1, **PRICES)
    num_shared, num_own = len(RULES.split()), 2
    assert usage["cached_tokens"] == 4 * num_shared and usage["cache_write_tokens"] == num_shared
    assert usage["prompt_tokens"] == 5 * (num_shared + num_own)
    price = (1.0 * 4 * num_shared + 12.5 * num_shared + 10.0 * 5 * num_own) / 1e6
    assert usage["usd"] == pytest.approx(price)
    assert [each.cached_tokens for each in found] == [0] + 4 * [num_shared]
    marks = json.dumps([body for *_, body in server.calls]).count("cache_control")
    assert marks == 5


def test_short_or_lone_beginnings_are_not_marked(tmp_path: Path):
    with Provider("anthropic") as server:
        ask(tmp_path, server, [asked(f"{RULES}x")], Sampling())
        ask(tmp_path, server, [asked(f"Q {n}", name=f"{n}", system="Be kind.") for n in range(3)],
            Sampling())  # fmt: skip
    assert "cache_control" not in json.dumps([body for *_, body in server.calls])


def test_a_blank_rest_is_not_a_block(tmp_path: Path):
    some = [asked(f"{RULES}{' ' * n}", name=f"r{n}") for n in range(3)]
    with Provider("anthropic") as server:
        found, _ = ask(tmp_path, server, some, Sampling(max_new_tokens=4000))
    assert {each.ending for each in found} == {"whole"}


def test_a_budget_reserves_the_price_of_writing_to_the_cache():
    endpoint = Endpoint(url="https://api.anthropic.com/v1", api="anthropic", **PRICES)
    assert endpoint.most_usd(10**6, 0) == 12.5
    assert endpoint.usd(10**6, 400_000, 0, 100_000) == pytest.approx(5.0 + 0.4 + 1.25)


@pytest.mark.parametrize("api", NATIVE)
def test_a_paid_reply_is_not_asked_for_again_through_any_api(tmp_path: Path, api: str):
    some = [asked(f"Q {n}", name=f"r{n}") for n in range(3)]
    with Provider(api) as server:
        first, _ = ask(tmp_path, server, some, Sampling())
        num = len(server.calls)
        assert ask(tmp_path, server, some, Sampling())[0] == first and len(server.calls) == num
    other = "gemini" if api == "anthropic" else "anthropic"
    with Provider(other) as server:  # the model is the same, wherever it answers
        assert ask(tmp_path, server, some, Sampling())[0] == first and not server.calls
