"""A small store with two models' scores, rated pairs and a judge's verdicts; a studio over it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright
from pydantic import BaseModel

import toys
from fake import FakeModel
from pairing import rated
from spyhop.evaluate.measure import MeasureConfig, measure
from spyhop.schema import Item, Verdict
from spyhop.store import Artifact
from spyhop.store.artifact import load

HOSTILE = "<script>document.title=1</script><img src=x onerror=alert(1)> \u202e </textarea>"


def kept(root: Path, stage: str, rows: Sequence[BaseModel]) -> Artifact:
    """Write rows as a finished artifact of a store."""
    made = toys.rows_artifact(root / "new", rows)
    record = made.record.model_copy(update={"stage": stage, "created": "2026-11-26T10:00:00"})
    path = made.path.rename(root / f"{stage}-{record.key}")
    (path / "record.json").write_text(record.model_dump_json())
    found = load(path)
    assert found is not None
    return found


def scores(root: Path, num: int = 4) -> tuple[Artifact, Artifact]:
    """The scores of two models: `ours` is right on even items, `theirs` on the first half."""
    items = [
        Item(id=f"i{n}", task="sum", suite="toy", question=f"What is {n} + {n}? {HOSTILE}",
             target=str(2 * n)) for n in range(num)
    ]  # fmt: skip
    asked = {"toy": kept(root, "toy.rows", items)}
    told = {
        "ours": [2 * n if n % 2 == 0 else 99 for n in range(num)],
        "theirs": [2 * n if n < num / 2 else 98 for n in range(num)],
    }
    first, second = (
        measure.run(
            root, MeasureConfig(), origins={"model": {"": f"{name} (/secret/{name})"}}, items=asked,
            model=FakeModel([f"By {name} {HOSTILE}, the answer is {x}." for x in said], name=name),
        )  # type: ignore[arg-type]
        for name, said in told.items()
    )  # fmt: skip
    return first, second


def verdicts(root: Path, ids: Sequence[str]) -> Artifact:
    rows = [
        Verdict(id=f"v{n}", item_id=n, judge="strict", a="ours", b="theirs", order="ba", winner="b",
                reason=f"Because {n} is neat. {HOSTILE}") for n in ids
    ]  # fmt: skip
    return kept(root, "evaluate.judge", rows)


def pairs(root: Path, num: int = 6) -> Artifact:
    """Rated pairs: the last one twice with other scores, the one before without a score."""
    rows: list[Any] = [rated(n, 1 + n % 5, second_score=1 + n % 5) for n in range(num - 2)]
    rows += [rated(num - 2, None), rated(num - 1, 5, second_score=1, reason=f"Fine. {HOSTILE}")]
    return kept(root, "curate.rate", rows)


class Studio:
    """A studio in a process of its own, which may be killed and started again."""

    def __init__(self, store: Path, *options: str) -> None:
        self._command = [sys.executable, "-m", "spyhop", "studio", str(store), *options]
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*self._command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout is not None
        self.port = int(re.search(r":(\d+)/", self._process.stdout.readline())[1])  # type: ignore[index]

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def studio(store: Path, *options: str) -> Iterator[Studio]:
    found = Studio(store, *options)
    try:
        yield found
    finally:
        found.kill()


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """A page of a real browser; refused scripts, exceptions and dialogs fail the test."""
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_context().new_page()
        page.context.on("console", lambda message: _note(wrong, message.type, message.text))
        page.context.on("weberror", lambda error: wrong.append(str(error.error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        yield page
        browser.close()
    assert not wrong, wrong


def _note(wrong: list[str], kind: str, text: str) -> None:
    expected = ("ERR_CONNECTION", "status of 4", "htmx:", "Code 422")  # of a killed server
    if kind == "error" and not any(each in text for each in expected):
        wrong.append(text)


def check(page: Page) -> None:
    """Nothing for axe to find, light and dark, and no sideways scrolling at three widths."""
    for width, scheme in ((360, "light"), (768, "dark"), (1280, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width != 360:
            found = Axe().run(page).response["violations"]
            shown = [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found]
            assert shown == []
