"""Compare, vote, label, chat and a reply's history: what the server reads, writes and refuses."""

import json
import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import judged
import server as toy_server
from asking import KEY_ENV, SHORT, requests, service
from server import KEY, Server
from spyhop.augment import answer
from spyhop.augment.answer import AnswerConfig
from spyhop.curate import GateConfig, LabelsConfig, gate, read_labels
from spyhop.evaluate.votes import read_votes
from spyhop.models import ModelUse, Remote
from spyhop.schema import Finding, InputError, Label, Pair, Prompt
from spyhop.store import Source
from spyhop.studio.app import create_app
from spyhop.studio.people import people_rows, put

HERE = "http://127.0.0.1:8777"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def client(root: Path) -> TestClient:
    return TestClient(create_app([root]), base_url=HERE, headers={"origin": HERE})


def _vote(item: str, rater: str, winner: str | None = "a", **changes: object) -> str:
    row = {"id": "x", "item_id": item, "judge": rater, "a": "ours", "b": "theirs", "order": "ab",
           "winner": winner, **changes}  # fmt: skip
    return json.dumps(row)


def test_rows_of_two_writers_are_all_there(tmp_path: Path):
    path = tmp_path / "people" / "rows.jsonl"

    def write(name: str) -> None:
        for n in range(25):
            put(path, {"id": f"{name}{n}", "text": "é" * 2000})

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert {row["id"] for row in people_rows(path)} == {f"{c}{n}" for c in "abc" for n in range(25)}
    assert len(people_rows(path)) == 75


def test_a_row_replaces_its_like_and_a_cut_line_is_dropped(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    for value in (1, 2):
        put(path, {"id": "a", "value": value})
    put(path, {"id": "b", "value": 3})
    with path.open("a") as file:
        file.write('{"id": "c", "val')
    assert [row["value"] for row in people_rows(path)] == [2, 3]
    put(path, {"id": "d", "value": 4})
    assert path.read_text().count("\n") == 3 and "c" not in {r["id"] for r in people_rows(path)}
    put(path, {"id": "b"}, is_removed=True)
    assert [row["id"] for row in people_rows(path)] == ["a", "d"]
    path.write_text('{"id": "a"}\nno JSON\n{"id": "b"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl: line 2"):
        people_rows(path)


def test_votes_become_verdicts_that_the_next_command_reads(client: TestClient, root: Path):
    first, second = judged.scores(root)
    url = f"/vote/store/{first.name}/{second.name}"
    page = client.get(url)
    assert page.status_code == 200 and "<img" not in page.text and "/secret" not in page.text
    for item, rater, winner in (
        ("i0", "ann", "a"), ("i1", "ann", "b"), ("i0", "bob", "tie"), ("i1", "bob", "b"),
        ("i1", "ann", "a"), ("i0", "bob", None),
    ):  # fmt: skip
        assert client.post(f"{url}/votes", content=_vote(item, rater, winner)).status_code == 204
    (path,) = (root / "people").glob("votes-ours-theirs-*.jsonl")
    votes = read_votes([path])
    assert {(v.item_id, v.judge, v.winner) for v in votes.verdicts} == {
        ("i0", "ann", "a"), ("i1", "ann", "a"), ("i1", "bob", "b"),
    }  # fmt: skip
    assert [row["item_id"] for row in client.get(f"{url}/votes?rater=ann").json()] == ["i0", "i1"]
    assert "Votes on" in client.get(f"{url}/result").text


def test_what_is_no_vote_on_these_pairs_is_refused(client: TestClient, root: Path):
    first, second = judged.scores(root)
    url = f"/vote/store/{first.name}/{second.name}/votes"
    for body, status in (
        ("no JSON", 400), ("[]", 400), (_vote("i0", "ann", "c"), 400), (_vote("other", "ann"), 422),
        (_vote("i0", ""), 422), (_vote("i0", "a" * 81), 422), (_vote("i0", "ann", a="x"), 422),
        (_vote("i0", "ann", suite="screening", a="better", b="worse"), 422),
    ):  # fmt: skip
        assert client.post(url, content=body).status_code == status, body
    assert not list((root / "people").glob("*.jsonl"))


def test_people_who_fail_the_screening_are_not_counted(client: TestClient, root: Path):
    first, second = judged.scores(root)
    url = f"/vote/store/{first.name}/{second.name}"
    (root / "people").mkdir()
    screen = {"question": "2 + 2?", "better": "4", "worse": "5"}
    (root / "people" / "screening.jsonl").write_text(json.dumps(screen))
    page = client.get(url).text
    (item,) = [p for p in json.loads(page.split('id="data">')[1].split("</script>")[0])["pairs"]
               if p["suite"]]  # fmt: skip
    client.post(f"{url}/votes", content=_vote("i0", "ann"))
    names = {"suite": "screening", "a": "better", "b": "worse"}
    wrong = _vote(item["id"], "ann", "b", **names)
    assert client.post(f"{url}/votes", content=wrong).status_code == 204
    assert "0 of 1 screening items right, not counted" in client.get(f"{url}/result").text


def test_two_models_are_compared_with_reasons_and_marks(client: TestClient, root: Path):
    first, second = judged.scores(root)
    judged.verdicts(root, ["i1", "i2"])
    url = f"/compare/store/{first.name}/{second.name}"
    page = client.get(url).text
    assert "ours and theirs" in page and "4 common items" in page and "<img src" not in page
    assert '<mark class="differs answer">99</mark>' in page and "Because i2 is neat" in page
    assert "What is 2 + 2?" in page and "What is 0 + 0?" not in page
    only_first = client.get(f"{url}?side=first").text
    assert "What is 2 + 2?" in only_first and "What is 1 + 1?" not in only_first
    assert "No such row" in client.get(f"{url}?task=other").text
    chosen = {"store": "store", "first": first.name, "second": second.name}
    assert client.get("/compare", params=chosen, follow_redirects=False).headers["location"] == url
    same = client.get("/compare", params={**chosen, "second": first.name})
    assert same.status_code == 422 and "same responses" in same.text


def test_labels_are_read_by_the_gate_of_the_next_run(client: TestClient, root: Path):
    made = judged.pairs(root)
    url, rows = f"/label/store/{made.name}", [row.id for row in made.rows(Pair)]
    first = client.get(url).text
    assert "two ratings differ" in first and "<img src" not in first
    htmx = {"hx-request": "true"}
    for rater in ("ann", "bob"):
        for place, row_id in enumerate(rows):
            keep = "drop" if place % 2 or (rater, place) == ("bob", 0) else "keep"
            given = {"id": row_id, "rater": rater, "keep": keep, "score": "4", "why": "é"}
            assert client.post(url, data=given, headers=htmx).status_code == 200
    client.post(url, data={"id": row_id, "rater": "bob", "undo": "1"}, headers=htmx)
    path = root / "people" / "labels.jsonl"
    assert len(people_rows(path)) == 11 and people_rows(path)[0]["instruction"]
    labels = read_labels.run(root, LabelsConfig(), folder=Source(path).open(root), pairs=made)
    found = {row.id: row.is_good for row in labels.rows(Label)}
    assert list(found.values()) == [False, True, False, True, False]
    assert labels.record.counts["disputed"] == 1
    checked = gate.run(root, GateConfig(min_repeated=0), rated=made, labels=labels)
    assert {row.id: row for row in checked.rows(Finding)}["recall"].num_rows == 2


def test_labels_of_two_models_answers_to_one_question_are_both_kept(client: TestClient, root: Path):
    first, second = judged.scores(root)
    made = judged.pairs(root)
    for artifact, keep in ((first, "keep"), (second, "drop"), (first, "drop")):
        given = {"id": "i1", "rater": "ann", "keep": keep}
        url = f"/label/store/{artifact.name}"
        assert client.post(url, data=given, headers={"hx-request": "true"}).status_code == 200
    path = root / "people" / "labels.jsonl"
    assert {(row["artifact"], row["good"]) for row in people_rows(path)} == {
        (first.name, False), (second.name, False)
    }  # fmt: skip
    pair = next(made.rows(Pair))
    client.post(f"/label/store/{made.name}", data={"id": pair.id, "rater": "ann", "keep": "keep"})
    labels = read_labels.run(root, LabelsConfig(), folder=Source(path).open(root), pairs=made)
    assert labels.record.counts["foreign"] == 2 and labels.record.counts["good"] == 1


def test_a_label_that_is_none_is_refused_beside_the_form(client: TestClient, root: Path):
    made = judged.pairs(root)
    row_id = next(made.rows(Pair)).id
    for given, message in (
        ({"keep": "keep", "rater": ""}, "write your name"),
        ({"rater": "ann"}, "choose keep or drop"),
        ({"rater": "ann", "keep": "maybe"}, "choose keep or drop"),
        ({"rater": "ann", "score": "6"}, "choose keep or drop"),
        ({"rater": "ann", "keep": "keep", "id": "other"}, "has no row other"),
    ):
        reply = client.post(f"/label/store/{made.name}", data={"id": row_id, **given})
        assert reply.status_code == 422 and message in reply.text
        assert reply.headers["hx-retarget"] == "#problem" and not (root / "people").exists()


def test_a_replys_history_has_what_was_sent_and_what_failed_and_no_key(
    client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = [Prompt(id=f"p{n}", query_id="q", collection="c", task="t", system_id="s",
                    messages=each.messages) for n, each in enumerate(requests(3))]  # fmt: skip
    prompts = judged.kept(root, "toy.rows", asked)
    monkeypatch.setenv(KEY_ENV, KEY)
    with Server(plan=toy_server.each(["500"])) as server:
        use = ModelUse(
            Remote(model="teacher"), service=service(server.url, usd_per_million_response=2.0)
        )
        made = answer.run(root, AnswerConfig(sampling=SHORT), prompts=prompts, teacher=use)
    pages = [client.get(f"/reply/store/{made.name}/p{n}").text for n in range(3)]
    for page, prompt in zip(pages, asked, strict=True):
        assert "its hash is the key above" in page and server.url in page and "$0.0" in page
        assert prompt.messages[-1].content in page and KEY not in page
        assert "<td>1</td>" in page.split("Failed attempts")[1] and ">2</td>" in page
    assert client.get(f"/reply/store/{made.name}/other").status_code == 404
    plain = client.get(f"/reply/store/{prompts.name}/p0").text
    assert "No model wrote this row" in plain


def test_empty_pages_say_what_to_do(client: TestClient):
    for path, text in (("compare", "spyhop eval"), ("vote", "spyhop eval"),
                       ("label", "spyhop quickstart"), ("chat", "--model")):  # fmt: skip
        page = client.get(f"/{path}")
        assert page.status_code == 200 and text in page.text
