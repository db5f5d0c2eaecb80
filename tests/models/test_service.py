"""What a service is, what calls cost there and how long they take."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from spyhop.models import Endpoint, Service, read_teacher
from spyhop.schema import RecipeError
from spyhop.stage import Calls

TWO_WEEKS_MIN, THREE_WEEKS_MIN = 14 * 24 * 60, 21 * 24 * 60
TA = {"requests_per_min": 300, "tokens_per_min": 120_000}
TEACHER = {"requests_per_min": 18, "tokens_per_min": 10_000}


def endpoint(**fields: object) -> Endpoint:
    return Endpoint.model_validate({"url": "https://host/v1", **fields})


def calls(num: int, *, prompt: int = 500, response: int = 258, most: int | None = None) -> Calls:
    """758 tokens a call, unless told otherwise."""
    return Calls(
        requests=num,
        prompt_tokens=num * prompt,
        response_tokens=num * response,
        most_response_tokens=num * (most or response),
    )


@pytest.mark.parametrize(
    ("quota", "num", "minutes", "tokens", "requests", "needed"),
    [
        (TA, 5_090_000, TWO_WEEKS_MIN, 1.59, 0.84, 2),
        (TEACHER, 1_000_000, THREE_WEEKS_MIN, 2.51, 1.84, 3),
    ],
)
def test_the_papers_collection(quota, num, minutes, tokens, requests, needed):
    one = endpoint(**quota)
    loads = {name: load / minutes for name, load in one.loads_min(calls(num)).items()}
    assert loads == {
        "tokens": pytest.approx(tokens, abs=0.006),
        "requests": pytest.approx(requests, abs=0.006),
    }
    several = Service(endpoints=(one,) * needed)
    for service in (Service(endpoints=(one,)), several):
        within = service.plan(calls(num)).endpoints_within(minutes / 60)
        assert within == pytest.approx(tokens, abs=0.006)
        assert math.ceil(within) == needed
    assert several.plan(calls(num)).hours <= minutes / 60
    assert Service(endpoints=(one,) * (needed - 1)).plan(calls(num)).hours > minutes / 60
    assert several.plan(calls(num)).binds == "tokens"


def test_the_slowest_limit_binds():
    small = calls(1_000, prompt=10, response=5)
    found = Service(endpoints=(endpoint(**TA),)).plan(small)
    assert (found.binds, found.hours) == ("requests", pytest.approx(1_000 / 300 / 60))
    apart = endpoint(prompt_tokens_per_min=100_000, response_tokens_per_min=10_000)
    found = Service(endpoints=(apart,)).plan(calls(100))
    assert (found.binds, found.hours) == ("response tokens", pytest.approx(2.58 / 60))


def test_what_is_reserved_counts_where_the_provider_counts_so():
    some = calls(100, response=100, most=900)
    kept, given = (endpoint(tokens_per_min=1_000, counts=c) for c in ("reserved", "used"))
    assert kept.loads_min(some)["tokens"] == pytest.approx(140.0)
    assert given.loads_min(some)["tokens"] == pytest.approx(60.0)


def test_unequal_endpoints_share_by_their_speed():
    fast, slow = endpoint(requests_per_min=300), endpoint(requests_per_min=100)
    found = Service(endpoints=(slow, fast)).plan(calls(4_000))
    assert found.hours == pytest.approx(10 / 60)
    assert found.hours < Service(endpoints=(fast,)).plan(calls(4_000)).hours


def test_without_a_declared_limit_nobody_knows_the_time():
    found = Service(endpoints=(endpoint(),)).plan(calls(10))
    assert (found.hours, found.binds) == (0, "")
    some = Service(endpoints=(endpoint(requests_per_min=1), endpoint())).plan(calls(10))
    assert (some.hours, some.binds) == (0, "")


def test_no_calls_take_no_time_and_no_money():
    priced = endpoint(usd_per_million_prompt=1, requests_per_min=1)
    found = Service(endpoints=(priced,)).plan(calls(0))
    assert (found.hours, found.usd, found.most_usd) == (pytest.approx(0), 0, 0)
    assert found.endpoints_within(1.0) == pytest.approx(0)


def test_prices():
    one = endpoint(usd_per_million_prompt=2, usd_per_million_cached=0.5, usd_per_million_response=8)
    assert one.usd(1_000_000, 0, 0) == pytest.approx(2.0)
    assert one.usd(1_000_000, 400_000, 0) == pytest.approx(0.6 * 2 + 0.4 * 0.5)
    assert one.usd(0, 0, 250_000) == pytest.approx(2.0)
    plain = endpoint(usd_per_million_prompt=2)
    assert plain.usd(1_000_000, 400_000, 7) == pytest.approx(2.0)
    free = endpoint(usd_per_million_prompt=2, usd_per_million_cached=0.0)
    assert free.usd(1_000_000, 1_000_000, 0) == 0


def test_the_plan_tells_what_is_expected_and_what_it_is_at_most():
    dear, cheap = (
        endpoint(usd_per_million_prompt=price, usd_per_million_response=price) for price in (4, 1)
    )
    some = calls(1_000, prompt=500, response=500, most=1_500)
    found = Service(endpoints=(dear, cheap)).plan(some)
    assert found.usd == pytest.approx(1.0)
    assert found.most_usd == pytest.approx(8.0)
    further = replace(some, further_prompt_tokens=250_000, further_response_tokens=500_000)
    more = Service(endpoints=(dear, cheap)).plan(further)
    assert (more.usd, more.hours, more.most_usd) == (found.usd, found.hours, pytest.approx(11.0))


@pytest.mark.parametrize(
    "url",
    [
        "https://user:sk-secret@host/v1",
        "https://sk-secret@host/v1",
        "https://host/v1?api-key=sk-secret",
        "ftp://host/v1",
        "host/v1",
        "http:///v1",
        "",
    ],
)
def test_a_url_with_a_key_or_none_at_all_is_refused_and_not_repeated(url):
    with pytest.raises(ValidationError) as error:
        endpoint(url=url)
    assert all("sk-secret" not in each["msg"] for each in error.value.errors())


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('key_env = "sk-secret-123"', r"key_env: write the name of the environment variable"),
        ('key_env = ["sk-secret-123"]', r"key_env: write the name of the environment variable"),
        ('url = "https://x/v1?api-key=sk-secret-123"', r"url: it must not contain a key or query"),
        ('url = "https://me:sk-secret-123@x/v1"', r"url: it must not contain a key or query"),
        ('url = "https://x/v1#sk-secret-123"', r"url: it must not contain a key or query"),
        ('url = "https://[sk-secret-123/v1"', r"url: write it as https://host/v1"),
        ('url = "sk-secret-123"', r"url: write it as https://host/v1"),
        ('api_key = "sk-secret-123"', r"api_key is not a setting"),
    ],
)
def test_a_secret_in_the_wrong_place_of_a_file_is_not_repeated(tmp_path: Path, line, text):
    path = tmp_path / "teacher.toml"
    url = "" if line.startswith("url") else 'url = "http://127.0.0.1/v1"\n'
    path.write_text(f'model = "teacher"\n[[endpoints]]\n{url}{line}\n')
    with pytest.raises(RecipeError, match=text) as error:
        read_teacher(path)
    assert "sk-secret" not in str(error.value) and "more)" not in str(error.value)


def test_a_url_ends_without_a_slash():
    assert endpoint(url="http://127.0.0.1:8000/v1/").url == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    "fields",
    [
        {"key_env": "sk-proj-123"},
        {"key_env": "MY KEY"},
        {"api_key": "x"},
        {"weight": -1},
        {"requests_per_min": 0},
        {"concurrency": 0},
        {"counts": "both"},
        {"usd_per_million_prompt": -1},
        {"timeout_s": 0},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(fields):
    with pytest.raises(ValidationError):
        endpoint(**fields)


def test_a_budget_needs_a_price():
    free, priced = endpoint(), endpoint(usd_per_million_response=1.0)
    with pytest.raises(ValidationError, match="budget_usd needs usd_per_million_prompt"):
        Service(endpoints=(free, endpoint(usd_per_million_prompt=0)), budget_usd=1.0)
    assert Service(endpoints=(free, priced), budget_usd=1.0).budget_usd == 1.0
    assert Service(endpoints=(free,)).budget_usd is None


def test_the_plan_takes_the_models_own_figures():
    one = endpoint(
        usd_per_million_prompt=4.0, usd_per_million_cached=1.0, usd_per_million_response=10.0,
        response_tokens_per_min=10_000, counts="used",
    )  # fmt: skip
    some = calls(1_000, prompt=1_000, response=150, most=2_000)
    plain = Service(endpoints=(one,)).plan(some)
    told = Service(endpoints=(one,), expected_response_tokens=900, expected_cached_frac=0.5)
    found = told.plan(some)
    assert (plain.usd, found.usd) == (pytest.approx(4 + 1.5), pytest.approx(2 + 0.5 + 9))
    assert found.most_usd == plain.most_usd == pytest.approx(4 + 20)
    assert found.hours == pytest.approx(6 * plain.hours)
    assert told.expected(some).response_tokens == 900_000
    more = Service(endpoints=(one,), expected_response_tokens=5_000)
    assert more.expected(some).response_tokens == some.most_response_tokens


def test_a_service_has_an_endpoint_and_a_budget_above_nothing():
    with pytest.raises(ValidationError):
        Service.model_validate({"endpoints": []})
    with pytest.raises(ValidationError):
        Service(endpoints=(endpoint(),), budget_usd=0)
