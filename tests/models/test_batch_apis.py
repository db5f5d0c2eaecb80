"""Batch APIs: the same rows as live, each request paid once, whatever comes back or is killed."""

import json
import random
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asking import KEY_ENV, SHORT, SPAWN, ask, committed, left_state, opened, requests, rows
from batch_server import KEY, BatchServer, half_lost, serve
from command import Command
from server import Server
from spyhop.models import Service
from spyhop.models.batch_apis import BatchApi, MistralFiles, batch_api
from spyhop.models.batch_jobs import open_batches
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.journal import Journal
from spyhop.models.service import Endpoint
from spyhop.schema import ArtifactError, Message, ModelError, Unfinished
from spyhop.stage import Calls

APIS = ["openai", "mistral", "anthropic", "gemini"]
PRICES = {"usd_per_million_prompt": 2.0, "usd_per_million_response": 10.0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    hurry(monkeypatch.setattr)


def hurry(change: Any) -> None:
    for name, seconds in {"FIRST_POLL_S": 0.01, "LONGEST_POLL_S": 0.05, "SETTLE_S": 0.1}.items():
        change(f"spyhop.models.batch_client.{name}", seconds)


def batches(server: Any, **fields: Any) -> Service:
    api = server.api if server.api != "mistral" else "openai"
    at_all = fields.pop("at_all", {})
    endpoint = {"url": server.url, "api": api, "key_env": KEY_ENV, "batch": True} | PRICES | fields
    return Service.model_validate({"endpoints": [endpoint], **at_all})


@pytest.mark.parametrize("api", APIS)
def test_every_request_has_one_reply_and_is_paid_once(
    tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch
):
    as_form(monkeypatch, api)
    with BatchServer(api, fate=half_lost) as server:
        found = ask(tmp_path, batches(server), requests(300))
    assert [reply.text for reply in found] == [f"re: number {n}" for n in range(300)]
    assert set(server.paid.values()) == {1}
    assert len(server.jobs) > 1
    state = left_state(tmp_path)
    assert state.spent_usd == pytest.approx(300 * 0.5 * (10 * 2e-6 + 5 * 10e-6))
    assert state.bound_usd == state.spent_usd
    assert not list((tmp_path / ".journal").glob("*.batches/*"))


def test_the_shared_part_of_prompts_is_marked_for_the_cache_in_batches_too(tmp_path: Path):
    shared = Message(role="system", content="One of the rules.\n" * 300)
    asked = [each.model_copy(update={"messages": [shared, *each.messages]}) for each in requests(3)]
    with BatchServer("anthropic") as server:
        ask(tmp_path, batches(server), asked)
    marked = [body["system"][0].get("cache_control") for body in server.bodies.values()]
    assert marked == [{"type": "ephemeral"}] * 3


def as_form(monkeypatch: pytest.MonkeyPatch, api: str) -> None:
    if api == "mistral":
        monkeypatch.setattr("spyhop.models.batch_jobs.batch_api", MistralFiles)


def test_rows_are_the_same_live_and_by_batch_and_a_second_run_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def plain(replies: list[Any]) -> list[dict[str, Any]]:
        return [
            reply.model_dump(exclude={"usd", "prompt_tokens", "response_tokens"})
            for reply in replies
        ]

    with BatchServer("openai") as server:
        by_batch = ask(tmp_path / "batch", batches(server), requests(20))
        ask(tmp_path / "batch", batches(server), requests(20))
        assert len(server.jobs) == 1
    monkeypatch.setenv(KEY_ENV, "sk-test-0123456789")
    with Server(answer=lambda call: "re: " + call.body["messages"][-1]["content"]) as server:
        live_service = Service.model_validate(
            {"endpoints": [{"url": server.url, "key_env": KEY_ENV}]}
        )
        live = ask(tmp_path / "live", live_service, requests(20))
        again = ask(tmp_path / "batch", live_service, requests(20))
        assert len(server.billed()) == 20
    assert plain(by_batch) == plain(live)
    assert plain(again) == plain(live)
    keys = "SELECT key FROM replies ORDER BY key"
    assert rows(tmp_path / "batch", keys) == rows(tmp_path / "live", keys)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("call", ["upload", "create", "look", "results"])
def test_a_call_that_is_cut_off_after_its_effect_pays_nothing_twice(
    tmp_path: Path, api: str, call: str, monkeypatch: pytest.MonkeyPatch
):
    as_form(monkeypatch, api)
    with BatchServer(api, breaks={call: 2}) as server:
        found = ask(tmp_path, batches(server), requests(10))
    assert len(found) == 10
    assert all(reply.error is None for reply in found)
    assert set(server.paid.values()) == {1}


def test_an_unknown_start_waits_until_the_list_can_be_read(tmp_path: Path):
    with BatchServer("openai", breaks={"create": 1, "list": 4}) as server:
        assert len(ask(tmp_path, batches(server), requests(5))) == 5
    assert len(server.jobs) == 1


@pytest.mark.parametrize("first", [{"data": []}, {}, {"data": None}, "late"])
def test_a_batch_is_sent_again_only_if_the_list_surely_has_none(tmp_path: Path, first: Any):
    """A list may show a new batch late, and a proxy may answer something else."""
    with BatchServer("openai", breaks={"create": 1}, lists=(first,)) as server:
        assert len(ask(tmp_path, batches(server), requests(5))) == 5
    assert set(server.paid.values()) == {1}


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_batch_that_is_listed_too_late_is_reported_as_perhaps_paid_twice(
    tmp_path: Path, api: str
):
    nowhere = {"data": [], "has_more": False}
    with BatchServer(api, breaks={"create": 1}, lists=(nowhere, nowhere)) as server:
        assert len(ask(tmp_path, batches(server), requests(5))) == 5
    assert set(server.paid.values()) == {2}
    state = left_state(tmp_path)
    assert state.num_maybe_twice == 5
    assert state.unsettled_usd == state.maybe_billed_usd > 0


def test_a_providers_clock_may_be_behind(tmp_path: Path):
    behind = datetime.fromtimestamp(time.time() - 300, UTC).isoformat()
    with BatchServer("anthropic", breaks={"create": 1}, created=behind) as server:
        ask(tmp_path, batches(server), requests(5))
    assert set(server.paid.values()) == {1}


def test_requests_that_fail_for_their_own_reason_are_data(tmp_path: Path):
    def fate(key: str, turn: int) -> str:
        return "400" if int(key, 16) % 2 else "ok"

    with BatchServer("anthropic", fate=fate) as server:
        found = ask(tmp_path, batches(server), requests(40))
    failed = [reply for reply in found if reply.error]
    assert 0 < len(failed) < 40
    assert all("fate 400" in reply.error for reply in failed)
    assert set(server.sent.values()) == {1}


def test_what_never_comes_is_left_for_the_next_run(tmp_path: Path):
    with BatchServer("openai", fate=lambda key, turn: "expired") as server:
        where = batches(server, at_all={"max_attempts": 2})
        with pytest.raises(Unfinished, match="5 requests have no reply yet"):
            ask(tmp_path, where, requests(5))
    assert set(server.sent.values()) == {2}
    assert left_state(tmp_path).bound_usd == 0


def test_a_batch_is_split_at_nine_tenths_of_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(BatchApi, "most_requests", 10)
    with BatchServer("openai", most_requests=9) as server:
        ask(tmp_path / "a", batches(server), requests(30))
    assert sorted(job["num"] for job in server.jobs.values()) == [3, 9, 9, 9]
    monkeypatch.setattr(BatchApi, "most_bytes", 2_000)
    with BatchServer("openai") as server:
        ask(tmp_path / "b", batches(server), requests(30))
    assert max(len(file) for file in server.files.values()) <= 1_800
    with BatchServer("openai", looks=3) as server:
        ask(tmp_path / "c", batches(server, batch_tokens=100), requests(30))
    assert len(server.jobs) > 4


def test_dollars_are_reserved_at_submission_and_a_budget_stops(tmp_path: Path):
    with BatchServer("openai", looks=10_000) as server:
        where = batches(server, at_all={"budget_usd": 1.0})
        seen = []
        with opened(tmp_path, where) as (model, _):
            waits = threading.Thread(target=lambda: _quiet(model))
            waits.start()
            end = time.monotonic() + 10
            while not (model._client and model._client.state.reserved_usd):  # type: ignore[attr-defined]
                assert time.monotonic() < end
                time.sleep(0.01)
            seen.append(model._client.state.reserved_usd)  # type: ignore[attr-defined]
        waits.join()
        assert seen[0] >= 5 * 0.5 * 40 * 10e-6
    with BatchServer("openai") as server:
        where = batches(server, at_all={"budget_usd": 1e-6})
        with pytest.raises(Unfinished, match="budget_usd = 1e-06 has no room"):
            ask(tmp_path / "poor", where, requests(5))
        assert not server.jobs


def test_a_run_that_stops_fetches_its_batch_the_next_time(tmp_path: Path, cli: Command):
    with BatchServer("openai", looks=10_000) as server:
        _leave_a_batch(tmp_path, server)
        assert "0 of 5" in cli("batches", "--out", tmp_path).stdout
        live = Service.model_validate({"endpoints": [{"url": server.url, "key_env": KEY_ENV}]})
        with pytest.raises(ModelError, match="5 requests are in batches"):
            ask(tmp_path, live, requests(5))
        server.looks = 0
        assert len(ask(tmp_path, batches(server), requests(5))) == 5
        assert len(server.jobs) == 1


def _quiet(model: Any) -> None:
    with pytest.raises(Unfinished):
        list(model.generate(requests(5), SHORT))


def test_the_command_fetches_and_cancels_without_the_recipe(tmp_path: Path, cli: Command):
    with BatchServer("gemini", looks=10_000) as server:
        _leave_a_batch(tmp_path, server)
        (path,) = (tmp_path / ".journal").glob("*.sqlite")
        journal = Journal(tmp_path, path.stem)
        (batch,) = open_batches(journal)
        journal.close()
        wrong = cli("batches", "--out", tmp_path, "--cancel", "spyhop-0")
        assert wrong.code == 2
        assert "no open batch is named 'spyhop-0'" in wrong.stderr
        assert "cancelled" in cli("batches", "--out", tmp_path, "--cancel", batch.tag).stdout
        assert "5 replies fetched" in cli("batches", "--out", tmp_path, "--fetch").stdout
        assert len(committed(tmp_path)) == 5
        assert "no batch is open" in cli("batches", "--out", tmp_path).stdout


@pytest.mark.parametrize("lost", ["batch", "requests"])
def test_a_batch_that_cannot_be_read_any_more_can_be_given_up(
    tmp_path: Path, cli: Command, lost: str
):
    with BatchServer("openai", looks=10_000) as server:
        _leave_a_batch(tmp_path, server)
        (file,) = (tmp_path / ".journal").glob("*.batches/*.jsonl")
        if lost == "batch":
            server.jobs.clear()
        else:
            file.unlink()
        with pytest.raises((ArtifactError, ModelError)):
            ask(tmp_path, batches(server), requests(5))
        assert cli("batches", "--out", tmp_path, "--cancel", file.stem).code == 0
        server.looks = 0
        assert len(ask(tmp_path, batches(server), requests(5))) == 5


def test_a_start_that_was_not_confirmed_is_never_forgotten_by_the_command(
    tmp_path: Path, cli: Command
):
    with BatchServer("openai", looks=0, breaks={"create": 1, "list": 10_000}) as server:
        _leave_a_batch(tmp_path, server)
        assert "broke" in cli("batches", "--out", tmp_path, "--fetch").stdout
        server.breaks["list"], server.lists = 0, [{"data": []}]
        assert "not confirmed" in cli("batches", "--out", tmp_path, "--fetch").stdout
        assert len(ask(tmp_path, batches(server), requests(5))) == 5
        assert len(server.jobs) == 1


def _leave_a_batch(root: Path, server: BatchServer) -> None:
    """Stop a run that has sent five requests."""
    with opened(root, batches(server)) as (model, _):
        waits = threading.Thread(target=lambda: _quiet(model))
        waits.start()
        while not server.jobs:
            time.sleep(0.01)
        time.sleep(0.1)
    waits.join()


def test_another_program_answers_files_in_a_folder(tmp_path: Path):
    folder = tmp_path / "spool"

    def answer() -> None:
        while not list(folder.glob("spyhop-*.jsonl")):
            time.sleep(0.01)
        (file,) = folder.glob("spyhop-*.jsonl")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert lines[0]["url"] == "/v1/chat/completions"
        out = [
            {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": {
                "choices": [{"message": {"content": line["body"]["messages"][0]["content"]}}]}}}
            for line in lines
        ]  # fmt: skip
        aside = file.with_suffix(".part")
        aside.write_text("".join(json.dumps(row) + "\n" for row in out))
        aside.rename(file.with_suffix(".results.jsonl"))

    threading.Thread(target=answer, daemon=True).start()
    endpoint = {"url": "http://localhost/v1", "batch": True, "batch_folder": str(folder)}
    found = ask(tmp_path, Service.model_validate({"endpoints": [endpoint]}), requests(5))
    assert [reply.text for reply in found] == [f"number {n}" for n in range(5)]


def test_azure_names_the_deployment_in_each_body():
    endpoint = Endpoint(url="https://x.openai.azure.com", api="azure", model="dep", batch=True)
    line = batch_api(EndpointState(endpoint, "gpt")).line("k", {"model": "gpt", "messages": []})
    assert line["body"]["model"] == "dep"
    assert line["url"] == "/chat/completions"


def test_a_plan_shows_the_saving_and_the_hours():
    with_batch = {"url": "http://x/v1", "batch": True, **PRICES}
    calls = Calls(
        requests=100, prompt_tokens=10**6, response_tokens=10**6, most_response_tokens=10**6
    )
    plan = Service.model_validate({"endpoints": [with_batch]}).plan(calls)
    assert (plan.usd, plan.saved_usd, plan.binds) == (6.0, 6.0, "batch")
    assert plan.hours == 24
    with pytest.raises(ValueError, match="a single endpoint"):
        Service.model_validate({"endpoints": [with_batch, with_batch]})


def run_batches(root: str, url: str, api: str, num: int) -> None:
    """Ask in a process of its own, and write how many replies came."""
    import spyhop.models.batch_client as client

    hurry(lambda path, seconds: setattr(client, path.rpartition(".")[2], seconds))
    endpoint = {"url": url, "api": api, "key_env": KEY_ENV, "batch": True, **PRICES}
    found = ask(Path(root), Service.model_validate({"endpoints": [endpoint]}), requests(num))
    Path(root, "done").write_text(str(sum(reply.error is None for reply in found)))


@pytest.mark.slow
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_kills_at_any_moment_lose_nothing_and_pay_nothing_twice(
    tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(BatchApi, "most_requests", 400)
    ours, theirs = SPAWN.Pipe()
    server = SPAWN.Process(target=serve, args=(api, {"create": 3, "results": 3}, theirs))
    server.start()
    url, num, draw, kills = ours.recv(), 1_000, random.Random(7), 0
    while not (tmp_path / "done").exists():
        process = SPAWN.Process(target=run_batches, args=(str(tmp_path), url, api, num))
        process.start()
        process.join(draw.uniform(0.8, 2.0) if kills < 12 else 120)
        kills += process.is_alive()
        process.kill()
        process.join()
    ours.send("books")
    paid, _ = ours.recv()
    ours.send("end")
    server.join()
    assert kills >= 5
    assert (tmp_path / "done").read_text() == str(num)
    assert len(paid) == num
    assert set(paid.values()) == {1}
