"""Vote, label, compare and chat in a real browser, by keys, with a killed server."""

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import judged
import server as toy_server
from asking import KEY_ENV, SHORT, service
from server import KEY, Server, told
from spyhop.augment import answer
from spyhop.augment.answer import AnswerConfig
from spyhop.evaluate.votes import read_votes
from spyhop.models import ModelUse, Remote
from spyhop.schema import Message, Prompt
from spyhop.studio.people import people_rows

pytestmark = pytest.mark.browser
expect.set_options(timeout=30_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


def _given(page: Page, num: int) -> None:
    expect(page.locator("#where")).to_contain_text(f"Ann: {num} of 8 votes given")


def _saved(page: Page, path: Path, num: int) -> None:
    """Wait until the file has that many rows; the browser sends them in the background."""
    for _ in range(300):
        if len(people_rows(path)) == num:
            return
        page.wait_for_timeout(100)
    raise AssertionError(people_rows(path))


def test_votes_by_keys_in_two_tabs_outlive_a_killed_server(root: Path):
    first, second = judged.scores(root, num=8)
    with judged.studio(root) as studio, judged.chromium() as page:
        page.goto(f"{studio.url}/vote/store/{first.name}/{second.name}")
        judged.check(page)
        page.keyboard.press("1")  # nobody has said who votes
        page.get_by_label("Your name or initials").fill("Ann")
        page.keyboard.press("Enter")
        _given(page, 0)
        for key, num in (("1", 1), ("2", 2), ("u", 1), ("0", 2), ("1", 3)):
            page.keyboard.press(key)
            _given(page, num)
        assert page.evaluate("document.activeElement.id") == "asked"
        judged.check(page)
        other = page.context.new_page()
        other.goto(page.url)
        _given(other, 3)
        other.keyboard.press("2")
        _given(page, 4)
        assert page.locator("#question").inner_text() == other.locator("#question").inner_text()
        (path,) = (root / "people").glob("votes-*.jsonl")
        _saved(page, path, 4)
        studio.kill()
        page.keyboard.press("1")
        page.keyboard.press("2")
        expect(page.locator("#note")).to_contain_text(
            re.compile("[23] votes wait in this browser")  # 3 where one was not confirmed yet
        )
        _given(page, 6)
        assert len(people_rows(path)) == 4
        studio.start()
        expect(page.locator("#note")).to_contain_text("all votes are saved")
        assert len(people_rows(path)) == 6
        page.keyboard.press("0")
        page.keyboard.press("0")
        expect(page.get_by_role("heading", name="All done, thank you")).to_be_visible()
        _saved(page, path, 8)
        page.get_by_text("Result so far").click()
        expect(page.locator("#result")).to_contain_text("8 votes of 1 people on 8 pairs")
        judged.check(page)
        assert "1" not in page.title() and other.title() == page.title()
    votes = read_votes([path])
    assert len(votes.verdicts) == 8 and {row.order for row in votes.verdicts} <= {"ab", "ba"}
    assert sum(row.winner == "tie" for row in votes.verdicts) == 3


def test_labels_by_keys_outlive_a_killed_server(root: Path):
    made, path = judged.pairs(root), root / "people" / "labels.jsonl"
    with judged.studio(root) as studio, judged.chromium() as page:
        page.goto(f"{studio.url}/label")
        judged.check(page)
        page.get_by_role("link", name=made.name).click()
        expect(page.locator(".tag").first).to_have_text("two ratings differ")
        page.keyboard.press("k")  # a label belongs to a person
        assert not path.exists()
        page.get_by_label("Your name or initials").fill("Ann")
        page.get_by_label("Why").fill("two steps are missing")
        page.get_by_role("heading", level=1).click()
        page.keyboard.press("2")
        page.keyboard.press("d")
        expect(page.locator("#where")).to_contain_text("Ann: 1 labelled, 5 of 6")
        (row,) = people_rows(path)
        assert (row["good"], row["score"], row["why"]) == (False, 2, "two steps are missing")
        judged.check(page)
        page.keyboard.press("u")
        expect(page.locator("#where")).to_contain_text("Ann: 0 labelled")
        assert people_rows(path) == []
        studio.kill()
        page.get_by_label("Why").fill("good")
        page.get_by_role("heading", level=1).click()
        page.keyboard.press("k")
        expect(page.locator("#problem")).to_contain_text("Not saved")
        studio.start()
        page.keyboard.press("k")
        expect(page.locator("#where")).to_contain_text("Ann: 1 labelled")
        assert page.locator("#problem").inner_text() == ""
        assert [each["why"] for each in people_rows(path)] == ["good"]


def test_two_models_side_by_side(root: Path):
    first, second = judged.scores(root, num=8)
    judged.verdicts(root, ["i2", "i5"])
    with judged.studio(root) as studio, judged.chromium() as page:
        page.goto(f"{studio.url}/compare")
        judged.check(page)
        page.get_by_label("First model").select_option(first.name)
        page.get_by_label("Second model").select_option(second.name)
        page.get_by_role("button", name="Compare").click()
        expect(page).to_have_url(re.compile(f"/compare/store/{first.name}/{second.name}"))
        judged.check(page)
        page.get_by_label("Show").select_option(label="only ours is right")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.get_by_role("article")).to_have_count(2)
        expect(page.locator("mark.answer").first).to_be_visible()
        judged.check(page)


def test_a_chat_with_two_models_goes_on_after_failures(
    root: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(KEY_ENV, KEY)
    server = Server()
    server.start()
    teacher = tmp_path / "served.toml"
    teacher.write_text(
        f'model = "teacher"\n[[endpoints]]\nurl = "{server.url}"\nkey_env = "{KEY_ENV}"\n'
    )
    local = Path(shutil.copytree(tiny_folder, tmp_path / "local"))
    shape = (local / "config.json").read_text()
    longer = re.sub(r'("max_position_embeddings": )\d+', r"\g<1>4096", shape)
    (local / "config.json").write_text(longer)
    options = ["--model", str(teacher), "--model", str(local)]
    with judged.studio(root, *options) as studio, judged.chromium() as page:
        page.goto(f"{studio.url}/chat?first=model/served&second=model/local")
        page.get_by_label("System message of").select_option(index=2)
        expect(page.locator("#system")).not_to_be_empty()
        page.locator("#system").fill("Be short.")
        page.get_by_label("Most new tokens").fill("8")
        _say(page, f"Hello {judged.HOSTILE}", replies=2)
        judged.check(page)
        server.stop()
        _say(page, "Are you there?", replies=3)
        expect(page.locator(".reply .wrong")).to_contain_text("cannot be reached")
        server.start()
        page.get_by_role("button", name="Ask again").click()
        _replied(page, 4)
        first = f"Hello {judged.HOSTILE}"
        said = [{"role": "system", "content": "Be short."}, {"role": "user", "content": first}]
        said += [{"role": "assistant", "content": told(said)},
                 {"role": "user", "content": "Are you there?"}]  # fmt: skip
        shown = [page.locator(f"[name={n}]").input_value() for n in ("asked-0", "said-0-0")]
        assert shown == [said[1]["content"], said[2]["content"]]
        assert told(said) in page.locator(".reply").nth(2).inner_text()
        studio.kill()
        page.locator("#text").fill("And now?")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#problem")).to_contain_text("keeps the conversation")
        studio.start()
        page.get_by_role("button", name="Send").click()
        _replied(page, 6)
        said += [{"role": "assistant", "content": told(said)},
                 {"role": "user", "content": "And now?"}]  # fmt: skip
        assert told(said) in page.locator(".reply").nth(4).inner_text()
        judged.check(page)
        assert KEY not in page.content()
    server.stop()


def test_the_history_of_a_reply_opens_from_its_row(root: Path, monkeypatch: pytest.MonkeyPatch):
    asked = [Prompt(id="p0", query_id="q", collection="c", task="t", system_id="s",
                    messages=[Message(role="user", content=f"Why? {judged.HOSTILE}")])]  # fmt: skip
    prompts = judged.kept(root, "toy.rows", asked)
    monkeypatch.setenv(KEY_ENV, KEY)
    with Server(plan=toy_server.each(["500"])) as server:
        use = ModelUse(Remote(model="teacher"), service=service(server.url))
        made = answer.run(root, AnswerConfig(sampling=SHORT), prompts=prompts, teacher=use)
    with judged.studio(root) as studio, judged.chromium() as page:
        page.goto(f"{studio.url}/rows/store/{made.name}/row?id=p0")
        page.get_by_role("link", name="History of the reply").click()
        expect(page.get_by_text("its hash is the key above")).to_be_visible()
        expect(page.get_by_role("row", name="Attempts 2")).to_be_visible()
        judged.check(page)
        assert KEY not in page.content()
        page.goto(f"{studio.url}/mask/store/{made.name}?at=0.0")
        expect(page.get_by_text("No model of this store has a tokenizer")).to_be_visible()
        judged.check(page)


def _say(page: Page, text: str, replies: int) -> None:
    page.locator("#text").fill(text)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    _replied(page, replies)


def _replied(page: Page, num: int) -> None:
    done = page.locator(".reply > * > :not([aria-busy]) > .note")
    expect(done).to_have_count(num, timeout=120_000)
