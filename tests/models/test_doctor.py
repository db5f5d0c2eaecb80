import re
from pathlib import Path
from typing import Any

import pytest

from server import KEY, Limits, Server, each, in_order
from spyhop.models import read_teacher
from spyhop.models.doctor import CapabilityCheck, doctor


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)


def _found(root: Path, url: str, more: str = "", top: str = "") -> dict[str, CapabilityCheck]:
    """Return the findings by their last word."""
    path = root / "teacher.toml"
    key = "" if "key_env" in more else 'key_env = "TOY_KEY"\n'
    path.write_text(f'model = "teacher"\n{top}\n[[endpoints]]\nurl = "{url}"\n{key}{more}')
    found = list(doctor(read_teacher(path), root / "store"))
    assert not any(KEY in each.text or "\n" in each.text for each in found)
    assert not (root / "store").exists()
    return {finding.name.split(" ")[-1]: finding for finding in found}


def _bad(found: dict[str, CapabilityCheck]) -> list[str]:
    return [name for name, finding in found.items() if not finding.ok]


def test_a_healthy_endpoint(tmp_path: Path):
    with Server() as server:
        found = _found(tmp_path, server.url)
        (entry,) = server.entries()
    assert (entry.output_reserved, entry.is_billed) == (1, True)
    names = "versions disk key connection answer limits log-probabilities usage"
    assert list(found) == names.split() and not _bad(found)
    assert found["key"].text == "TOY_KEY is set"
    assert found["answer"].text.startswith("200 in 0.")
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
        ("401", "set TOY_KEY to a key that is valid there"),
        ("401-echo", "set TOY_KEY to a key that is valid there"),
        ("403", "set TOY_KEY"),
        ("404", r"check url and model ('teacher')"),
        ("quota", "the account has no credit"),
        ("429", "try again in a minute"),
        ("500-empty", "500; try again"),
        ("502", "502 <html>"),
        ("400", "400 Invalid value for 'temperature'; list the rejected fields in omit"),
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
    assert found_omitted["log-probabilities"].text == "not requested (omit)"


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
