"""Bodies out, outcomes in: whatever a server says."""

import json
import math
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server import FAULTS
from spyhop.models.calls import Choice, Reply, Request, Sampling
from spyhop.models.dialect import DIALECTS, ApiCall
from spyhop.models.failures import NO_CREDIT, read_failure, remaining
from spyhop.models.replies import Unreadable, Usage, parse, read_choice, read_reply, share
from spyhop.schema import Message

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GUESS = 50
USED = Usage(7, 0, 3, 0)
ASKED = Request(
    id="r1",
    messages=[Message(role="system", content="Be kind."), Message(role="user", content="Why?")],
    sample_index=2,
    options=["A", "B"],
)


def sent(
    kind: str = "generate",
    sampling: Sampling | None = None,
    asked: Request = ASKED,
    extra: dict | None = None,
    omit: tuple[str, ...] = (),
    **changes: object,
) -> dict:
    call = ApiCall(kind, asked, sampling or Sampling(), "m", **changes)
    return json.loads(DIALECTS["openai"].body(call, extra or {}, omit))


def answer(*choices: object, **more: object) -> bytes:
    return json.dumps({"choices": list(choices), **more}).encode()


def said(text: object = "yes", index: int = 0, **message: object) -> dict[str, object]:
    turn = {"role": "assistant", "content": text, **message}
    return {"index": index, "message": turn, "finish_reason": "stop"}


def got(choice: dict[str, object], **more: object) -> Reply:
    """The reply that one choice makes, as it is read back from the journal."""
    choices, usage = parse(answer(choice, **more), 1, GUESS)
    text = read_reply(ASKED, choices[0], usage, 0.5).model_dump_json()
    return Reply.model_validate_json(text)


# ---------------------------------------------------------------- bodies


def test_the_body_of_a_prompt():
    sampling = Sampling(max_new_tokens=9, temperature=0.5, top_p=0.9, seed=40)
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
    assert sent(sampling=sampling) == {
        "model": "m",
        "messages": turns,
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 42,
    }


def test_what_is_asked_for_stands_in_the_body():
    assert sent(num_samples=3)["n"] == 3
    assert sent(sampling=Sampling(log_probability=True))["logprobs"] is True
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    shape = sent(sampling=Sampling(json_schema=schema))["response_format"]
    assert shape["type"] == "json_schema" and shape["json_schema"]["schema"] == schema
    assert shape["json_schema"]["name"] and shape["json_schema"]["strict"] is True
    renamed = sent(tokens_field="max_completion_tokens")
    assert renamed["max_completion_tokens"] == 512 and "max_tokens" not in renamed


def test_a_choice_asks_for_likely_tokens():
    found = sent("choose", tokens_field="max_completion_tokens")
    assert (found["logprobs"], found["top_logprobs"], found["temperature"]) == (True, 20, 0.0)
    assert 1 <= found["max_completion_tokens"] <= 8 and "seed" not in found


def test_a_choice_goes_on_with_a_response_that_is_begun():
    asked = Request(id="1", messages=[Message(role="user", content="x")], continuation="So: ")
    found = sent("choose", asked=asked)
    assert found["messages"][-1] == {"role": "assistant", "content": "So:"}
    assert found["continue_final_message"] is True and found["add_generation_prompt"] is False
    assert not {"continue_final_message", "add_generation_prompt"} & sent("choose").keys()


def test_extra_fields_win_and_omitted_ones_stay_out():
    found = sent(extra={"reasoning_effort": "low", "top_p": 0.1}, omit=("seed", "temperature", "x"))
    assert found["reasoning_effort"] == "low" and found["top_p"] == 0.1
    assert not {"seed", "temperature", "x"} & found.keys()


def test_an_unset_temperature_sends_no_sampling_fields():
    found = sent(sampling=Sampling(temperature="unset", top_p=0.5, seed=3, stop=("END",)))
    assert not {"seed", "temperature", "top_p"} & found.keys() and found["stop"] == ["END"]
    assert "stop" not in sent(sampling=Sampling())


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_arrives_whole(text):
    asked = Request(id="1", messages=[Message(role="user", content=text)])
    assert sent(asked=asked)["messages"][0]["content"] == text


# ---------------------------------------------------------------- answers


def test_a_plain_answer():
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert got(said("yes", reasoning_content="hm"), usage=usage) == Reply(
        id="r1", text="yes", finish_reason="stop", prompt_tokens=12, cached_tokens=4,
        response_tokens=8, reasoning_tokens=5, reasoning="hm", usd=0.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b"<html>502</html>",
        b"\xff\xfe",
        b'{"choices": null}',
        b'{"choices": {}}',
        b'{"choices": "no"}',
        b'{"choices": []}',
        b'{"choices": [null, 7, []]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": "hi"}]}',
        b'{"error": {"message": "rate limit"}}',
        b'{"choices": [{"message": {"content": "cut off',
    ],
)
def test_what_is_no_answer(raw):
    with pytest.raises(ValueError):
        parse(raw, 1, GUESS)


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.text is not None])
def test_faults_of_the_server_are_no_answers(name):
    with pytest.raises(ValueError):
        parse(FAULTS[name].text, 1, GUESS)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", ""),
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "image"}, None, {"text": 7}, {"text": "c"}], "c"),
        ("  kept as it is \n", "  kept as it is \n"),
        ("\x00\u2028\U0001f600", "\x00\u2028\U0001f600"),
    ],
)
def test_content(content, text):
    assert (got(said(content)).text, got(said(content)).finish_reason) == (text, "stop")


@pytest.mark.parametrize("content", [7, {"text": "no"}])
def test_content_that_is_no_text_is_no_answer(content):
    with pytest.raises(Unreadable, match="is not text"):
        got(said(content))


def test_a_message_without_content():
    assert got({"message": {}, "finish_reason": "stop"}).ending == "empty"
    assert got({"message": {"role": "assistant"}, "finish_reason": 7}).ending == "cut"


@pytest.mark.parametrize(
    ("stated", "ending"),
    [
        *((word, "whole") for word in ("stop", "STOP", "eos", "end_turn", "FINISH_REASON_STOP")),
        *((word, "cut") for word in ("length", "max_tokens", "MAX_TOKENS", "model_length")),
        *((word, "cut") for word in ("content_filter", "SAFETY", "content_filter: HATE", "SPII")),
        *((word, "cut") for word in (None, ["length"], {}, 7, "done", "OTHER", "tool_calls")),
    ],
)
def test_finish_reasons(stated, ending):
    found = got({**said(), "finish_reason": stated})
    assert found.ending == ending
    assert found.finish_reason == ("null" if stated is None else str(stated))


@pytest.mark.parametrize("word", ["error", "abort", "insufficient_system_resource", "cancelled"])
def test_a_choice_that_broke_off_is_a_failure_that_may_be_billed(word):
    raw = answer({**said("Half of"), "finish_reason": word})
    with pytest.raises(Unreadable) as error:
        parse(raw, 1, GUESS)
    failure = error.value.failure
    assert (failure.kind, failure.is_maybe_billed) == ("overloaded", True)
    assert repr(word) in failure.message


def test_a_refusal_is_told_and_kept():
    found = got(said(None, refusal="I cannot help with that."))
    assert (found.text, found.ending) == ("I cannot help with that.", "refused")
    assert got(said([{"type": "refusal", "refusal": "No."}])).ending == "refused"
    assert got(said("yes", refusal=None)).ending == "whole"
    assert got(said("yes", refusal="")).text == "yes"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_has_its_own_place(field):
    assert got(said("yes", **{field: "because"})).reasoning == "because"
    assert got(said("yes", **{field: None})).reasoning == ""
    assert got(said("yes", **{field: {"odd": 1}})).reasoning == ""


@pytest.mark.parametrize(
    ("usage", "prompt", "response"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 3}, 12, 3),
        ({"prompt_tokens": "12", "completion_tokens": "3"}, 12, 3),
        ({"prompt_tokens": 12.0, "completion_tokens": 3.0}, 12, 3),
        (None, 50, 5),
        ("no", 50, 5),
        ([], 50, 5),
        ({}, 50, 5),
        ({"prompt_tokens": 0, "completion_tokens": 0}, 50, 5),
        ({"prompt_tokens": -4, "completion_tokens": -1}, 50, 5),
        ({"prompt_tokens": None, "completion_tokens": "many"}, 50, 5),
        ({"prompt_tokens": [], "completion_tokens": {}}, 50, 5),
        ({"prompt_tokens": 12}, 12, 5),
        ({"prompt_tokens": 10**12, "completion_tokens": 10**12}, 50, 5),
        ({"prompt_tokens": "9" * 5000, "completion_tokens": 1e300}, 50, 5),
    ],
)
def test_usage_as_told_or_guessed(usage, prompt, response):
    found = got(said("x" * 20), usage=usage)
    assert (found.prompt_tokens, found.response_tokens) == (prompt, response)


def test_reasoning_counts_where_usage_is_silent():
    _, usage = parse(answer(said("yes!", reasoning_content="hm, " * 20)), 1, 7)
    assert usage.response_tokens == 21


@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE00", r"\ud83d\ud83d"])
def test_half_a_character_is_no_reason_to_pay_again(half):
    whole = r"\ud83d\ude00"
    raw = answer(said("hi HALF WHOLE")).replace(b"HALF", half.encode())
    (choice,), _ = parse(raw.replace(b"WHOLE", whole.encode()), 1, 7)
    marks = "\ufffd" * half.count("u")
    assert choice["message"]["content"] == f"hi {marks} \U0001f600"
    assert got(choice).text.encode()  # it can be written


def test_half_a_character_in_what_is_no_answer():
    for raw in [rb'{"a": "\ud83d', b"[" * 100_000 + rb'"\ud83d"', b'"\\ud83d\xff"']:
        with pytest.raises(ValueError):
            parse(raw, 1, 7)


def test_details_of_usage_never_exceed_the_whole():
    details = {"prompt_tokens_details": {"cached_tokens": 99}, "completion_tokens_details": "x"}
    found = got(said(), usage={"prompt_tokens": 12, "completion_tokens": 3, **details})
    assert (found.cached_tokens, found.reasoning_tokens) == (12, 0)
    odd = {"completion_tokens_details": {"reasoning_tokens": "9"}, "prompt_tokens_details": None}
    found = got(said(), usage={"prompt_tokens": 12, "completion_tokens": 3, **odd})
    assert (found.cached_tokens, found.reasoning_tokens) == (0, 3)


def test_samples_come_in_order_and_may_be_fewer_or_more():
    mixed = [said("c", 2), said("a", 0), said("b", 1)]
    assert [c["message"]["content"] for c in parse(answer(*mixed), 3, GUESS)[0]] == [
        "a",
        "b",
        "c",
    ]
    unnumbered = [{"message": {"content": text}} for text in "ab"]
    assert [c["message"]["content"] for c in parse(answer(*unnumbered), 3, GUESS)[0]] == ["a", "b"]
    assert len(parse(answer(*mixed), 2, GUESS)[0]) == 2
    broken = [said("a", 0), {"index": 1, "message": None}, said("c", 2)]
    assert len(parse(answer(*broken), 3, GUESS)[0]) == 2


@given(st.tuples(*[st.integers(0, 1000)] * 4), st.integers(1, 9))
def test_usage_is_shared_without_loss(numbers, num):
    parts = share(Usage(*numbers), num)
    assert len(parts) == num
    assert tuple(map(sum, zip(*parts, strict=True)))[:4] == numbers
    assert all(value >= 0 for part in parts for value in part)


# ---------------------------------------------------------------- probabilities


def place(token: str, *, logprob: float = -0.1, top: dict[str, float] | None = None) -> dict:
    likely = [{"token": t, "logprob": value} for t, value in (top or {}).items()]
    return {"token": token, "logprob": logprob, "top_logprobs": likely}


def weighed_from(logprobs: object, text: str = "", options: tuple[str, ...] = ("A", "B")) -> Choice:
    asked = ASKED.model_copy(update={"options": list(options)})
    found = {**said(text), "logprobs": logprobs}
    choice = read_choice(asked, found, USED, 0.25)
    return Choice.model_validate_json(choice.model_dump_json())


def test_probabilities_are_read_where_the_options_stand():
    top = {"A": math.log(0.6), " B": math.log(0.2), "(A": math.log(0.1), "C": math.log(0.1)}
    found = weighed_from({"content": [place("The", top={"The": -0.1}), place("A", top=top)]})
    assert found.probabilities == pytest.approx([0.7 / 0.9, 0.2 / 0.9])
    assert not found.is_parsed and (found.prompt_tokens, found.usd) == (7, 0.25)


def test_the_place_with_the_most_mass_on_options_counts():
    weak = {"A": math.log(0.02), "I": math.log(0.9)}
    strong = {"A": math.log(0.1), "B": math.log(0.9)}
    found = weighed_from({"content": [place("I", top=weak), place("B", top=strong)]})
    assert found.probabilities == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize(("rest", "is_parsed"), [(0.49, False), (0.51, True)])
def test_options_that_are_left_over_of_something_else_are_not_weighed(rest, is_parsed):
    top = {"The": math.log(rest), "A": math.log(1 - rest)}
    found = weighed_from({"content": [place("The", top=top)]}, "The answer is (B)")
    assert found.probabilities == ([0.0, 1.0] if is_parsed else [1.0, 0.0])
    assert found.is_parsed is is_parsed


def test_a_token_without_others_beside_it():
    assert weighed_from({"content": [place("B")]}).probabilities == [0.0, 1.0]


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}, "no", 7, []])
def test_without_probabilities_the_text_is_read(logprobs):
    found = weighed_from(logprobs, "The answer is (B).")
    assert found.probabilities == [0.0, 1.0] and found.is_parsed


def test_without_an_option_there_is_nothing():
    found = weighed_from(None, "I do not know.")
    assert found.probabilities == [] and found.is_parsed and found.error is None


ODD_LOGPROBS = [
    {"content": 7},
    {"content": "A"},
    {"content": [None, 7, "A", []]},
    {"content": [{"token": "A", "logprob": None}]},
    {"content": [{"token": "A", "logprob": "-1"}]},
    {"content": [{"token": None, "logprob": -1}]},
    {"content": [{"token": "A", "logprob": -1, "top_logprobs": 5}]},
    {"content": [{"token": "A", "logprob": -1, "top_logprobs": [7, None]}]},
    {"content": [{"token": "A", "logprob": -1, "top_logprobs": {"A": -1}}]},
    {"content": [{"token": "A", "logprob": 1000.0}]},
    {"content": [{"token": "A", "logprob": math.inf}]},
    {"content": [{"token": "A", "logprob": -math.inf}]},
    {"content": [{"token": "A", "logprob": math.nan}]},
    {"content": {"token": "A"}},
]


@pytest.mark.parametrize("logprobs", ODD_LOGPROBS)
def test_odd_probabilities_break_nothing(logprobs):
    found = weighed_from(logprobs, "Answer: A")
    assert found.probabilities == [] or sum(found.probabilities) == pytest.approx(1.0)
    again = got({**said("Answer: A"), "logprobs": logprobs})
    assert again.text == "Answer: A"


def test_the_log_probability_of_a_response():
    both = {"content": [place("a", logprob=-0.5), place("b", logprob=-1.5)]}
    assert got({**said(), "logprobs": both}).log_probability == pytest.approx(-2.0)
    half = {"content": [place("a", logprob=-0.5), {"token": "b"}]}
    assert got({**said(), "logprobs": half}).log_probability is None
    assert got(said()).log_probability is None


NAMES = [
    "choices", "message", "content", "text", "refusal", "reasoning", "logprobs", "token",
    "logprob", "top_logprobs", "usage", "index", "prompt_tokens", "completion_tokens",
    "prompt_tokens_details", "completion_tokens_details", "cached_tokens", "reasoning_tokens",
    "finish_reason", "error", "code", "type",
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "A", "stop", "length", "-5", "1e999", "x" * 400]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=120)
@given(JSON, JSON, JSON, JSON)
def test_whatever_the_json_it_is_an_answer_or_a_value_error(content, logprobs, usage, index):
    choice = {"message": {"content": content, "refusal": index}, "logprobs": {"content": logprobs},
              "index": index, "finish_reason": usage}  # fmt: skip
    raw = answer(choice, {"message": logprobs}, choice, usage=usage)
    try:
        choices, used = parse(raw, 3, GUESS)
    except ValueError:
        return
    assert all(value >= 0 for value in used)
    for found in choices:
        Reply.model_validate_json(read_reply(ASKED, found, used, 0.0).model_dump_json())
        Choice.model_validate_json(read_choice(ASKED, found, used, 0.0).model_dump_json())


@settings(deadline=None, max_examples=60)
@given(JSON)
def test_whatever_the_json_it_is_parsed_or_a_value_error(value):
    raw = json.dumps(value).encode()
    with suppress(ValueError):
        parse(raw, 2, GUESS)
    assert read_failure(500, {}, raw, NOW).kind == "overloaded"


# ---------------------------------------------------------------- failures


def error(code: str | None = None, message: str = "no", **more: object) -> bytes:
    return json.dumps({"error": {"message": message, "code": code, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "raw", "kind"),
    [
        (429, error(), "throttled"),
        (429, b"<html>slow down</html>", "throttled"),
        (429, error("insufficient_quota"), "fatal"),
        (429, error(None, type="insufficient_quota"), "fatal"),
        (408, b"", "overloaded"),
        (409, b"", "overloaded"),
        (500, b"", "overloaded"),
        (502, b"<html>", "overloaded"),
        (503, b"", "overloaded"),
        (504, b"", "overloaded"),
        (529, error("overloaded_error"), "overloaded"),
        (520, b"", "overloaded"),
        (400, error("invalid"), "rejected"),
        (400, error("context_length_exceeded"), "rejected"),
        (413, b"<html>", "rejected"),
        (422, b'{"detail": "bad"}', "rejected"),
        (400, error("content_filter"), "refused"),
        (400, json.dumps(FAULTS["400-filter"].error).encode(), "refused"),
        (401, error("invalid_api_key"), "fatal"),
        (403, error("forbidden"), "fatal"),
        (404, error("model_not_found"), "fatal"),
        (301, b"", "page"),
        (204, b"", "malformed"),
    ],
)
def test_kinds_of_failures(status, raw, kind):
    found = read_failure(status, {}, raw, NOW)
    assert found.kind == kind and found.status in (status, NO_CREDIT)
    assert str(status) in found.message and len(found.message) < 400


def test_all_statuses_mean_something():
    for status in [*range(201, 300), *range(300, 600)]:
        assert read_failure(status, {}, b"", NOW).kind


def test_an_overrun_is_told_from_a_lone_error():
    overrun = {
        status for status in range(300, 600) if read_failure(status, {}, b"", NOW).is_overrun
    }
    assert {429, 503, 529} <= overrun and 500 not in overrun and 400 not in overrun


def test_what_may_have_been_billed():
    billed = {
        status for status in range(300, 600) if read_failure(status, {}, b"", NOW).is_maybe_billed
    }
    assert {408, 504, 524} <= billed and not {400, 401, 404, 422, 429} & billed
    assert not {500, 502, 503, 529} & billed


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "200", "retry-after": "9"}, 0.2),
        ({"retry-after": "Fri, 02 Jan 2026 03:04:15 GMT"}, 10.0),
        ({"retry-after": "Friday, 02-Jan-26 03:04:15 GMT"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
        ({}, None),
    ],
)
def test_when_to_come_again(headers, seconds):
    assert read_failure(429, headers, b"", NOW).retry_after_s == seconds
    assert read_failure(500, headers, b"", NOW).retry_after_s == seconds
    kind = "overloaded" if seconds is None else "throttled"
    assert read_failure(503, headers, b"", NOW).kind == kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"limit": "5", "remaining": "0", "reset": "20s"}, 20.0),
        ({"limit": "5", "remaining": "3", "reset": "20s"}, None),
        ({"limit": "5", "remaining": "0", "reset": "1790000000"}, 61.0),
        ({"limit": "5", "remaining": "0", "reset": "soon"}, None),
    ],
)
def test_a_limit_with_nothing_left_says_when_to_come_again(headers, seconds):
    told = {f"x-ratelimit-{name}-requests": value for name, value in headers.items()}
    assert read_failure(429, told, b"", NOW).retry_after_s == seconds
    assert read_failure(429, told | {"retry-after": "7"}, b"", NOW).retry_after_s == 7
    assert read_failure(503, told, b"", NOW).kind == "overloaded"


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_a_header_says(after, reset):
    headers = {"retry-after": after, "retry-after-ms": reset, "x-ratelimit-limit-requests": "5",
               "x-ratelimit-remaining-requests": "0",
               "x-ratelimit-reset-requests": reset}  # fmt: skip
    wait = read_failure(429, headers, b"", NOW).retry_after_s
    assert wait is None or (wait >= 0 and math.isfinite(wait))
    for limit, left, seconds in remaining(headers).values():
        assert (limit, left) == (5, 0) and seconds >= 0


@pytest.mark.parametrize(
    ("shown", "seconds"),
    [
        ("6m0s", 360),
        ("1.5s", 1.5),
        ("20ms", 0.02),
        ("1h2m3s", 3723),
        ("12", 12),
        ("0s", 0),
        (" 7s ", 7),
    ],
)
def test_what_is_left_of_limits(shown, seconds):
    headers = {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": shown,
        "x-ratelimit-limit-tokens": "10000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1s",
    }
    assert remaining(headers) == {"requests": (100, 3, seconds), "tokens": (10000, 0, 1)}


@pytest.mark.parametrize("shown", ["", "soon", "5 minutes", "2026-01-02T25:04:05Z", "-3s", "1x"])
def test_a_limit_that_cannot_be_read_is_left_out(shown):
    told = {"limit": "100", "remaining": "3", "reset": shown}
    assert remaining({f"x-ratelimit-{k}-requests": v for k, v in told.items()}) == {}
    odd = told | {"remaining": "few", "reset": "1s"}
    assert remaining({f"x-ratelimit-{k}-requests": v for k, v in odd.items()}) == {}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'{"error": {"message": "bad model"}}', "bad model"),
        (b'{"error": "bad model"}', "bad model"),
        (b'{"detail": "bad model"}', "bad model"),
        (b'{"message": "bad model"}', "bad model"),
        (b"bad model", "bad model"),
        (b'"bad model"', "bad model"),
        (b'[{"error": "bad model"}]', "bad model"),
    ],
)
def test_what_the_server_said_is_kept_whatever_its_form(raw, text):
    assert text in read_failure(400, {}, raw, NOW).message
