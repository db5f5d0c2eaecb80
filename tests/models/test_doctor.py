import re
from pathlib import Path
from typing import Any

import pytest

import providers
from asking import opened
from providers import Provider
from server import KEY, Limits, Server, each, in_order
from spyhop.models import Reply, Request, Sampling, Service, read_teacher
from spyhop.models.capabilities import lacks
from spyhop.models.doctor import CapabilityCheck, doctor
from spyhop.models.endpoint import Remote
from spyhop.models.teacher import Teacher
from spyhop.schema import ModelError, prompt_turns


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)


def _found(
    root: Path, url: str, more: str = "", top: str = "", *, is_quick: bool = True
) -> dict[str, CapabilityCheck]:
    """Return the findings by their last word."""
    path = root / "teacher.toml"
    key = "" if "key_env" in more else 'key_env = "TOY_KEY"\n'
    path.write_text(f'model = "teacher"\n{top}\n[[endpoints]]\nurl = "{url}"\n{key}{more}')
    found = list(doctor(read_teacher(path), root / "store", is_quick=is_quick))
    assert not any(KEY in each.text or "\n" in each.text for each in found)
    return {finding.name.split(" ")[-1]: finding for finding in found}


def _bad(found: dict[str, CapabilityCheck]) -> list[str]:
    return [name for name, finding in found.items() if not finding.ok]


def test_a_healthy_endpoint(tmp_path: Path):
    with Server() as server:
        found = _found(tmp_path, server.url)
        (entry,) = server.entries()
    assert (entry.output_reserved, entry.is_billed) == (16, True)
    names = "versions disk key connection answer limits usage top_p seed log-probabilities"
    assert list(found) == [*names.split(), "temperature", "cost"] and not _bad(found)
    assert found["key"].text == "TOY_KEY is set"
    assert found["answer"].text == "200, finish_reason stop"
    assert found["cost"].text.startswith("1 requests, ")
    assert found["log-probabilities"].text == "given"
    assert found["usage"].text.startswith("given: ")
    assert "aiohttp 3" in found["versions"].text and "GB free at" in found["disk"].text


def test_every_endpoint_is_asked_once(tmp_path: Path):
    with Server() as one, Server() as other:
        more = f'[[endpoints]]\nurl = "{other.url}"\nkey_env = "TOY_KEY"\n'
        _found(tmp_path, one.url, more)
        azure = 'api = "azure"\nmodel = "teacher"\nkey_env = "TOY_KEY"\n'
        found = _found(tmp_path, other.azure_url, azure)
        assert (len(one.entries()), len(other.entries())) == (1, 2)
    assert not _bad(found)


@pytest.mark.parametrize(
    ("declared", "is_ok", "text"),
    [
        ("", True, "requests 50 by the server.*; declare requests_per_min"),
        ("requests_per_min = 50", True, "requests 50 declared, 50 by the server"),
        ("requests_per_min = 80", False, "80 declared, 50 by the server; lower requests_per_min"),
    ],
)
def test_limits_are_compared(tmp_path: Path, declared: str, is_ok: bool, text: str):

    with Server(limits=Limits(requests=50), tells_limits=True) as server:
        found = _found(tmp_path, server.url, declared)["limits"]
    assert found.ok == is_ok and re.search(text, found.text), found


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("401", "set the environment variable TOY_KEY to a key that is valid"),
        ("401-echo", "set the environment variable TOY_KEY to a key that is valid"),
        ("403", "variable TOY_KEY"),
        ("404", r"check url and model ('teacher')"),
        ("quota", "the account has no credit"),
        ("429", "try again in a minute"),
        ("500-empty", "500; is the url right"),
        ("502", "502 <html>"),
        ("400", "400 Invalid value for 'temperature'; list rejected fields in omit"),
        ("reset", "the connection broke"),
        ("close", "the connection broke"),
        ("hang", "no reply within 0.2 s"),
        ("html", "invalid reply"),
        ("json", "invalid reply"),
        ("no-choices", "invalid reply"),
        ("cut", "the connection broke"),
    ],
)
def test_what_is_amiss_is_one_line(tmp_path: Path, fault: str, text: str):
    with Server(plan=each([fault] * 2)) as server:
        found = _found(tmp_path, server.url, "timeout_s = 0.2")
    assert _bad(found) == ["answer"]
    assert text in found["answer"].text, found["answer"].text


@pytest.mark.parametrize(
    ("fault", "name", "is_ok", "text"),
    [
        ("no-logprobs", "log-probabilities", True, "not given"),
        ("no-usage", "usage", True, "not given; tokens and dollars are estimated"),
        ("length", "answer", True, "finish_reason length"),
        ("null", "answer", True, "finish_reason"),
    ],
)
def test_what_a_server_cannot_is_told(
    tmp_path: Path, fault: str, name: str, is_ok: bool, text: str
):
    with Server(plan=in_order([fault])) as server:
        found = _found(tmp_path, server.url)[name]
    assert found.ok == is_ok and text in found.text, found


def test_usage_is_needed_where_a_budget_rests_on_it(tmp_path: Path):
    with Server(plan=in_order(["no-usage"])) as server:
        priced = "usd_per_million_prompt = 1.0"
        assert _bad(_found(tmp_path, server.url, priced, "budget_usd = 1.0")) == ["usage"]


@pytest.mark.parametrize(
    ("more", "is_ok"),
    [("usd_per_million_response = 3.0", True), ("usd_per_million_response = 0", True), ("", False)],
)
def test_an_endpoint_that_a_budget_does_not_count_is_told(tmp_path: Path, more: str, is_ok: bool):
    with Server() as server:
        spare = f'\n[[endpoints]]\nurl = "{server.url}"\nkey_env = "TOY_KEY"\n{more}'
        priced = "usd_per_million_prompt = 1.0"
        found = _found(tmp_path, server.url, priced + spare, "budget_usd = 1.0")
    assert found["price"].ok is is_ok  # of the last endpoint
    assert ("does not count" in found["price"].text) is ("3.0" not in more)


def test_log_probabilities_may_be_refused_or_left_out(tmp_path: Path):
    with Server() as server:
        answered = server.service._chat

        def chat(deployment: Any, headers: Any, body: bytes, *rest: Any) -> Any:
            unknown = body.replace(b'"logprobs":', b'"logprobs of old":')
            return answered(deployment, headers, unknown, *rest)

        server.service._chat = chat  # type: ignore[method-assign]
        found = _found(tmp_path, server.url)
        assert len(server.entries()) == 2
        found_omitted = _found(tmp_path, server.url, top='omit = ["logprobs"]')
    assert not _bad(found) and found["log-probabilities"].text.startswith("refused (400")
    assert found_omitted["log-probabilities"].text == "not sent (omit)"


# ---------------------------------------------------------------- capabilities


def _proved(root: Path, server: Provider, more: str = "", top: str = "") -> dict[str, Any]:
    """Whether each capability was found, and the findings."""
    key = f'api = "{server.api}"\nkey_env = "TOY_KEY"\n'
    found = _found(root, server.url, key + more, top, is_quick=False)
    return {name: each.has for name, each in found.items()} | {"found": found}


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", providers.KEY)


def _lacks(root: Path, top: str = "") -> dict[str, str]:
    teacher = read_teacher(root / "teacher.toml")
    assert teacher.service is not None and isinstance(teacher.config, Remote)
    return lacks(root / "store", teacher.config.model, teacher.service.endpoints[0])


def test_the_limits_that_anthropic_states_are_compared(tmp_path: Path, native: None):
    stated = {f"anthropic-ratelimit-{name}-{what}": value
              for name, limit in (("requests", "50"), ("input-tokens", "30000"))
              for what, value in (("limit", limit), ("remaining", "9"),
                                  ("reset", "2026-01-02T03:04:15Z"))}  # fmt: skip
    declared = "requests_per_min = 50\nprompt_tokens_per_min = 40000"
    with Provider("anthropic", headers=stated) as server:
        found = _proved(tmp_path, server, declared)["found"]["limits"]
    assert not found.ok and "lower prompt_tokens_per_min to the server's" in found.text
    assert "requests 50 declared, 50 by the server" in found.text


def test_an_anthropic_endpoint_is_proved_and_priced(tmp_path: Path, native: None):
    prices = "usd_per_million_prompt = 3.0\nusd_per_million_response = 15.0"
    with Provider("anthropic") as server:
        found = _proved(tmp_path, server, prices)
        assert len(server.calls) == 6
    names = ["temperature", "top_p", "schema", "prefill", "cache"]
    assert [name for name in names if found[name]] == names
    assert not any(found[name] for name in ("seed", "n", "log-probabilities", "thinking"))
    checks = found["found"]
    assert re.fullmatch(r"9 requests, at most \$0.1\d+ .*", checks["proofs"].text)
    assert re.fullmatch(r"6 requests, [\d,]+ prompt .* tokens, \$0.0\d+", checks["cost"].text)
    assert "of a repeated prompt" in checks["cache"].text
    assert _lacks(tmp_path)["seed"] == "the Messages API has none"
    assert "no thoughts" in _lacks(tmp_path)["thinking"]


@pytest.mark.parametrize(
    ("ignores", "lost"),
    [((), []), (("n", "schema", "prefill"), ["n", "schema", "prefill"]), (("seed",), [])],
)
def test_a_gemini_endpoint_is_proved(tmp_path: Path, native: None, ignores, lost: list[str]):
    with Provider("gemini", ignores=ignores, thinks=True) as server:
        found = _proved(tmp_path, server)
    names = ["temperature", "top_p", "seed", "log-probabilities", "n", "schema", "prefill", "cache"]
    assert [name for name in names if not found[name]] == lost
    assert "7 tokens counted, text not returned" in found["found"]["thinking"].text
    text = "accepted" if "seed" in ignores else "equal seeds gave equal"
    assert text in found["found"]["seed"].text


@pytest.mark.parametrize(
    ("api", "refused", "names"),
    [
        ("anthropic", {"temperature": "`temperature` is deprecated"}, ["temperature"]),
        ("anthropic", {"top_p": "`temperature` and `top_p` cannot both be specified"}, ["top_p"]),
        ("anthropic", {"prefill": "This model does not support assistant message prefill"},
         ["prefill"]),
        ("gemini", {"responseLogprobs": "Logprobs is not enabled for models/m"},
         ["log-probabilities"]),
        ("gemini", {"temperature": "temperature: no", "topP": "topP: no", "seed": "seed: no"},
         ["temperature", "top_p", "seed"]),
        ("gemini", {"candidateCount": "Multiple candidates is not enabled"}, ["n"]),
    ],
)  # fmt: skip
def test_refused_fields_are_found_and_stages_that_need_them_refused(
    tmp_path: Path, native: None, api: str, refused: dict[str, str], names: list[str]
):
    with Provider(api, refuses=refused) as server:
        found = _proved(tmp_path, server, "max_n = 2" if "n" in names else "")
        assert not _bad(found["found"])
        num = len(server.calls)
        teacher = read_teacher(tmp_path / "teacher.toml")
        assert isinstance(teacher.config, Remote) and teacher.service is not None
        sampling = Sampling(temperature=0.5, top_p=0.5, log_probability="log" in names[0])
        begun = "Once" if "prefill" in names else ""
        asked = [request("x", continuation=begun)]
        with pytest.raises(ModelError, match=rf"{names[0]}, which \S+ does not have \(doctor, "):
            _generate(tmp_path, teacher, asked, sampling)
        assert len(server.calls) == num  # nothing was sent
        config = teacher.config.model_copy(update={"omit": ("temperature", "top_p", "seed")})
        service = Service(endpoints=[teacher.service.endpoints[0].model_copy(update={"max_n": 1})])
        plain = Teacher(config, service=service)
        (reply,) = _generate(tmp_path, plain, [request("x")], Sampling(temperature=0.5, top_p=0.5))
        assert reply.ending == "whole"
    for name in names:
        assert found[name] is False, name


def request(text: str, **more: Any) -> Request:
    return Request(id="r", messages=prompt_turns(text), **more)


def _generate(root: Path, teacher: Teacher, asked: list[Request], how: Sampling) -> list[Reply]:
    assert isinstance(teacher.config, Remote) and teacher.service is not None
    with opened(root / "store", teacher.service, remote=teacher.config) as (model, _):
        return list(model.generate(asked, how))


def test_a_field_for_tokens_that_is_refused_is_named(tmp_path: Path):

    with Server() as server:
        answered = server.service._chat

        def chat(deployment: Any, headers: Any, body: bytes, *rest: Any) -> Any:
            if b'"max_tokens"' in body:
                body = body.replace(b'"max_tokens":', b'"max_completion_tokens instead":')
            return answered(deployment, headers, body, *rest)

        server.service._chat = chat  # type: ignore[method-assign]
        found = _found(tmp_path, server.url)
    assert _bad(found) == ["tokens_field"]
    assert 'set tokens_field = "max_completion_tokens"' in found["tokens_field"].text


def test_what_an_api_never_has_is_refused_before_doctor_ran(tmp_path: Path, native: None):
    (tmp_path / "store").mkdir()
    with Provider("anthropic") as server:
        path = tmp_path / "teacher.toml"
        path.write_text(
            f'model = "m"\n[[endpoints]]\nurl = "{server.url}"\napi = "anthropic"\n'
            'key_env = "TOY_KEY"'
        )
        teacher = read_teacher(path)
        shown = "the Messages API returns none"
        with pytest.raises(ModelError, match=rf"sampling.log_probability needs .*{shown}"):
            _generate(tmp_path, teacher, [request("x")], Sampling(log_probability=True))
        assert not server.calls
        assert _generate(tmp_path, teacher, [request("x")], Sampling(seed=3))[0].ending == "whole"


def test_damaged_proofs_are_no_proofs(tmp_path: Path, native: None):
    with Provider("gemini", ignores=("schema",)) as server:
        _proved(tmp_path, server)
    assert "schema" in _lacks(tmp_path)
    (proof,) = (tmp_path / "store" / ".seen").iterdir()
    for text in ("", "{", '{"schema": 3}', "[]"):
        proof.write_text(text)
        assert _lacks(tmp_path) == {}


def test_keys_are_looked_at_before_anything_is_sent(tmp_path: Path, monkeypatch):
    with Server() as server:
        monkeypatch.delenv("TOY_KEY")
        found = _found(tmp_path, server.url)
        assert (
            _bad(found) == ["key"] and "set the environment variable TOY_KEY" in found["key"].text
        )
        monkeypatch.setenv("TOY_KEY", "two words")
        assert _bad(_found(tmp_path, server.url)) == ["key"]
        assert not server.entries()
    with Server(key=None) as server:
        assert not _bad(_found(tmp_path, server.url, 'key_env = ""'))


def test_nobody_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    found = _found(tmp_path, "http://127.0.0.1:9/v1")
    assert _bad(found) == ["connection"]
    assert "127.0.0.1 does not answer on port 9 (Connection refused)" in found["connection"].text
    found = _found(tmp_path, "http://no-such-host.invalid/v1")
    assert "host 'no-such-host.invalid' not found" in found["connection"].text


def test_a_proxy_is_told_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    found = _found(tmp_path, "http://somewhere.invalid/v1")
    assert found["connection"].text == "through the proxy 127.0.0.1:9"
    assert not found["answer"].ok and "secret" not in str(found)


def test_a_small_disk(small_disk: Path, tmp_path: Path):
    (tmp_path / "teacher.toml").write_text('model = "x"\n[[endpoints]]\nurl = "http://127.0.0.1:9"')
    disk = list(doctor(read_teacher(tmp_path / "teacher.toml"), small_disk / "out"))[1]
    assert not disk.ok and "choose another folder with --out" in disk.text


def test_a_folder_of_weights(tiny_folder: Path, tmp_path: Path):
    found = {each.name: each for each in doctor(read_teacher(tiny_folder), tmp_path)}
    assert all(each.ok for each in found.values())
    assert "LlamaForCausalLM, stored as float32, run as float32, format" in found["model"].text
    assert found["weights"].text == "0.000 GB in 1 files"
    assert "tokens, with" in found["tokenizer"].text
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x").write_text("")
    found = {each.name: each for each in doctor(read_teacher(tmp_path / "empty"), tmp_path)}
    assert [name for name, each in found.items() if not each.ok] == [
        "tokenizer",
        "model",
        "weights",
    ]
    assert not any("\n" in each.text for each in found.values())
