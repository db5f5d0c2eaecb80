"""A folder of URLs: replicas that appear are used, those that die or leave are not."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from asking import KEY_ENV, SHORT, ask, opened, requests, until
from server import KEY, Server, _Response
from spyhop.models import Service
from spyhop.models.doctor import doctor
from spyhop.models.teacher import read_teacher
from spyhop.schema import ModelError, RecipeError, Unfinished
from spyhop.stage import Calls


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setattr("spyhop.models.replicas.CHECK_S", 0.02)


def folder_service(folder: Path, at_all: dict[str, Any] | None = None, **fields: Any) -> Service:
    endpoint = {"urls": folder, "key_env": KEY_ENV, **fields}
    return Service.model_validate({"endpoints": [endpoint], **(at_all or {})})


def register(folder: Path, **urls: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, url in urls.items():
        (folder / name).write_text(f"{url}\n")


def begun(root: Path, where: Service, num: int) -> tuple[threading.Thread, list[Any]]:
    """Ask in a thread; the list holds the replies, or the error, at its end."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.extend(ask(root, where, requests(num)))
        except Exception as error:  # noqa: BLE001 (a thread)
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def test_all_replicas_share_the_work_and_files_that_are_no_urls_are_skipped(tmp_path: Path):
    with Server(latency_s=0.01) as one, Server(latency_s=0.01) as other:
        register(tmp_path / "urls", a=one.url, b=other.url, again=one.url, **{".hidden": "x"})
        register(tmp_path / "urls", broken="not a url", empty="")
        where = folder_service(tmp_path / "urls", concurrency=4, requests_per_min=10_000)
        assert (
            where.plan(
                Calls(requests=1, prompt_tokens=1, response_tokens=1, most_response_tokens=1)
            ).num_endpoints
            == 2
        )
        found = ask(tmp_path, where, requests(200))
    assert all(reply.error is None for reply in found)
    shares = [sum(server.billed().values()) for server in (one, other)]
    assert sum(shares) == 200
    assert min(shares) > 50


def test_a_run_begins_before_its_first_replica_and_uses_each_that_appears(tmp_path: Path):
    folder = tmp_path / "urls"
    thread, found = begun(tmp_path, folder_service(folder, concurrency=2), 60)
    with Server(latency_s=0.02) as one, Server(latency_s=0.02) as other:
        time.sleep(0.1)
        register(folder, a=one.url)
        until(lambda: one.billed())
        register(folder, b=other.url)
        thread.join()
        assert other.billed()
    assert [reply.error for reply in found] == [None] * 60


def test_a_replica_that_dies_loses_no_request_and_is_used_again_when_it_is_back(tmp_path: Path):
    with Server(latency_s=0.02) as one, Server(latency_s=0.02) as other:
        register(tmp_path / "urls", a=one.url, b=other.url)
        thread, found = begun(tmp_path, folder_service(tmp_path / "urls", concurrency=4), 300)
        until(lambda: one.billed())
        one.stop()
        before = sum(one.billed().values())
        until(lambda: sum(other.billed().values()) > 60)
        one.start()
        thread.join()
        assert sum(one.billed().values()) > before
    assert [reply.error for reply in found] == [None] * 300


def test_a_replica_whose_file_is_removed_gets_no_new_request(tmp_path: Path):
    with Server(latency_s=0.01) as one, Server(latency_s=0.01) as other:
        register(tmp_path / "urls", a=one.url, b=other.url)
        thread, found = begun(tmp_path, folder_service(tmp_path / "urls", concurrency=2), 120)
        until(lambda: one.billed())
        (tmp_path / "urls" / "a").unlink()
        time.sleep(0.2)
        left = sum(one.billed().values())
        thread.join()
        assert sum(one.billed().values()) <= left + 2
        assert sum(one.billed().values()) + sum(other.billed().values()) == 120
    assert [reply.error for reply in found] == [None] * 120


def test_a_replica_that_answers_no_health_check_gets_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It accepts connections and says nothing, as a host does whose process is stopped."""
    monkeypatch.setattr("spyhop.models.transport.HEALTH_S", 0.05)
    with Server(latency_s=0.05) as one, socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        register(tmp_path / "urls", a=one.url, b=url)
        found = ask(tmp_path, folder_service(tmp_path / "urls", concurrency=2), requests(20))
    assert [reply.error for reply in found] == [None] * 20


def test_requests_at_a_replica_that_hangs_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("spyhop.models.endpoint_client.BEAT_S", 0.05)
    with Server(plan=lambda call: "hang") as one, Server() as other:
        register(tmp_path / "urls", a=one.url)
        thread, found = begun(tmp_path, folder_service(tmp_path / "urls", concurrency=2), 10)
        until(lambda: one.service.books.keys)
        register(tmp_path / "urls", b=other.url)
        monkeypatch.setattr(one.service, "handle", lambda *args: args[4](_Response(503, b"")))
        thread.join()
    assert [reply.error for reply in found] == [None] * 10


def test_without_a_replica_the_run_stops_after_its_patience(tmp_path: Path):
    register(tmp_path / "urls", a="http://127.0.0.1:9/v1")
    where = folder_service(tmp_path / "urls", {"patience_s": 0.3})
    with pytest.raises(Unfinished, match=r"no reply for .* \(.*urls: 0 of 1 replicas answer\)"):
        ask(tmp_path, where, requests(2))


def test_replicas_are_no_part_of_the_identity(tmp_path: Path):
    with Server() as one:
        register(tmp_path / "urls", a=one.url)
        with opened(tmp_path, folder_service(tmp_path / "urls")) as (model, _):
            identity = model.identity
            list(model.generate(requests(3), SHORT))
        fixed = Service.model_validate({"endpoints": [{"url": one.url, "key_env": KEY_ENV}]})
        with opened(tmp_path, fixed) as (model, _):
            assert model.identity == identity
            assert len(list(model.generate(requests(3), SHORT))) == 3
        assert set(one.billed().values()) == {1}


@pytest.mark.parametrize(
    "fields",
    ["", 'urls = "u"\nurl = "http://h/v1"', 'urls = "u"\nbatch = true'],
)
def test_an_endpoint_has_one_address(tmp_path: Path, fields: str):
    (tmp_path / "t.toml").write_text(f'model = "m"\n[[endpoints]]\n{fields}\n')
    with pytest.raises(RecipeError, match="url"):
        read_teacher(tmp_path / "t.toml")


def test_a_missing_key_is_told_before_anything_is_sent(tmp_path: Path, monkeypatch):
    monkeypatch.delenv(KEY_ENV)
    with pytest.raises(ModelError, match=KEY_ENV):
        ask(tmp_path, folder_service(tmp_path / "urls"), requests(1))


def test_doctor_looks_at_each_replica_and_proves_one(tmp_path: Path):
    (tmp_path / "t.toml").write_text(
        f'model = "teacher"\n[[endpoints]]\nurls = "urls"\nkey_env = "{KEY_ENV}"\n'
    )
    teacher = read_teacher(tmp_path / "t.toml")
    (check,) = [each for each in doctor(teacher, tmp_path) if "replicas" in each.name]
    assert not check.ok
    with Server() as one, Server() as other:
        register(tmp_path / "urls", a=one.url, b=other.url)
        checks = list(doctor(teacher, tmp_path))
        assert len(one.billed()) > 5
        assert sum(other.billed().values()) == 1
    assert sum(each.name.endswith(" answer") and each.ok for each in checks) == 2
