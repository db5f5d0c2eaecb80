"""Who is answered: this machine's browser on this page, and nobody else."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from spyhop.schema import InputError
from spyhop.studio.app import create_app, serve

HERE = "http://127.0.0.1:8777"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(create_app([tmp_path]), base_url=HERE)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:99", "[::1]:8777", "LOCALHOST"])
def test_loopback_names_are_answered(client: TestClient, host: str):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8777", "", "10.0.0.1", "a@b",
     "127.0.0.1@evil.example", "[::2]"],
)  # fmt: skip
def test_other_names_are_refused_though_they_lead_here(client: TestClient, host: str):
    reply = client.get("/", headers={"host": host})
    assert reply.status_code == 421 and "<" not in reply.text


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
        ("GET", {"sec-fetch-site": "same-origin"}, 200),
        ("POST", {}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "http://127.0.0.1:1"}, 403),
        ("POST", {"origin": HERE, "sec-fetch-site": "cross-site"}, 403),
        ("POST", {"origin": HERE}, 405),
        ("PUT", {"origin": "http://localhost:8777"}, 403),
    ],
)
def test_requests_of_other_sites_are_refused(
    client: TestClient, method: str, headers: dict[str, str], status: int
):
    assert client.request(method, "/", headers=headers, content=b"").status_code == status


def test_a_huge_body_is_refused_before_it_is_read(client: TestClient):
    headers = {"origin": HERE, "content-length": "99999999"}
    assert client.post("/", headers=headers, content=b"x").status_code == 413


def test_every_response_states_what_the_page_may_load(client: TestClient):
    for path in ("/", "/static/studio.css", "/nothing", "/runs/a/b", "/static/../app.py"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self'") and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_a_token_is_asked_for_once_and_does_not_stay_in_the_address(tmp_path: Path):
    client = TestClient(create_app([tmp_path], token="a secret"), base_url="http://box:80")
    assert client.get("/").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    first = client.get("/?token=a+secret&x=1", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/?x=1")
    assert "httponly" in first.headers["set-cookie"].lower()
    assert client.get("/").status_code == 200
    assert client.post("/", headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "box.local"])
def test_another_address_needs_a_token(tmp_path: Path, host: str):
    with pytest.raises(InputError, match="--token"):
        serve([tmp_path], host=host, port=0)


@pytest.mark.parametrize(
    "path",
    ["/rows/store/..%2f..%2fetc-0123456789abcdef", "/rows/nowhere/a.b-0123456789abcdef",
     "/rows/%2e%2e/a.b-0123456789abcdef", "/rows/s/a.b-0123456789abcdef%00"],
)  # fmt: skip
def test_only_ids_are_looked_up(client: TestClient, path: str):
    reply = client.get(path)
    assert reply.status_code == 404 and "<h1>Not found</h1>" in reply.text
