"""The studio in a real browser: a live run, rows, filters, search, a followed row, no findings."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import artifact, line, run

from browser import Tab, browser

SERVE = (
    "import sys; from pathlib import Path; from spyhop.studio.app import serve; "
    "serve([Path(sys.argv[1])], port=int(sys.argv[2]))"
)
HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"
START = line(kind="run_started", planned_s={"queries": 5, "answers": 9})


@contextlib.contextmanager
def _served(store: Path, port: int = 0) -> Iterator[str]:
    """Serve a store in a process that is killed at the end."""
    command = [sys.executable, "-c", SERVE, str(store), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def _event(**event) -> str:
    return line(time="2026-11-26T10:00:01+00:00", **event)


def _progress(done: int) -> str:
    more = {"text": "asking", "done": done, "total": 100, "unit": "rows"}
    return _event(kind="progress", step="answers", **more)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    queries = [{"id": f"q{n}", "query": f"query {n}", "origin": "a.jsonl"} for n in range(90)]
    made = artifact(folder, "collect.sample", queries, part_rows=20)
    turns = [
        ("system", "Explain."),
        ("user", HOSTILE),
        ("assistant", "| a |\n|-:|\n| 1 |\n\n```\nx\n```"),
    ]
    answers = [
        {
            "id": f"a{n}", "query_id": f"q{n}", "score": n % 5, "task": ["sum", "כפל"][n % 2],
            "messages": [{"role": role, "content": text} for role, text in turns],
        }
        for n in range(60)
    ]  # fmt: skip
    replies = artifact(folder, "augment.answer", answers, {"q": made}, dropped=[("empty", "{}")])
    listed = [{"name": "queries"}, {"name": "answers", "inputs": {"rows": ["queries"]}}]
    state = {"state": "running", "pid": os.getpid(), "listed": listed, "command": "spyhop run x"}
    trial = run(folder, "trial", {"queries": made, "answers": replies}, **state)
    (trial / "events.jsonl").write_text(START + _event(kind="step_started", step="answers"))
    return folder


def _write(store: Path, text: str) -> None:
    with (store / "runs" / "trial" / "events.jsonl").open("a") as stream:
        stream.write(text)


async def _clean(tab: Tab) -> None:
    """Nothing is wrong in either theme, nothing is too wide, and no script of a row has run."""
    for width, is_dark in ((768, False), (1280, False), (360, True)):
        await tab.size(width, is_dark=is_dark)
        assert await tab.run("document.documentElement.scrollWidth") <= width
        if width != 768:
            assert await tab.findings() == []
    assert await tab.run("document.title") != "hacked"
    assert tab.errors == []


async def _live(tab: Tab, base: str, store: Path) -> None:
    """A run's page follows it, also over the death of its server."""
    shown = "document.getElementById('{}').textContent.includes({})"
    await tab.open(f"{base}runs/out/trial")
    await tab.until(shown.format("step-1", "'running'"))
    await tab.run("document.getElementById('node-2').focus()")
    _write(store, _progress(40)[:25])
    _write(store, _progress(40)[25:])
    await tab.until(shown.format("step-1", "'40 / 100'"))
    assert await tab.run("document.activeElement.id") == "node-2"
    await _clean(tab)


async def _goes_on(tab: Tab, base: str, store: Path) -> None:
    shown = "document.getElementById('{}').textContent.includes({})"
    await tab.until("document.querySelector('.offline') !== null")
    _write(store, _event(kind="step_ended", step="answers", rows=60, seconds=5.0))
    _write(store, _event(kind="run_ended", state="done"))
    with _served(store, int(base.rstrip("/").rpartition(":")[2])):
        await tab.until(shown.format("figures", "'done'"))
        await tab.until("document.querySelector('.offline') === null")


async def _rows(tab: Tab, base: str, answers: str) -> None:
    await tab.size(1280)
    await tab.open(f"{base}rows")
    await _clean(tab)
    await tab.run(f"document.querySelector('a[href$=\"{answers}\"]').click()")
    await tab.until("document.querySelectorAll('#hits tr').length === 50")
    await tab.until("document.querySelectorAll('.facet').length >= 2")
    await _clean(tab)
    assert await tab.run("document.body.textContent.includes('same system message')")
    click = "new MouseEvent('click', {bubbles: true, cancelable: true})"
    await tab.run(f"document.querySelector('.histogram a').dispatchEvent({click})")
    await tab.until("document.querySelectorAll('#hits tr').length === 12")
    await tab.run("document.querySelector('#q').value = 'nothing'; document.forms[0].submit()")
    await tab.until("document.getElementById('searched')?.textContent.includes('0 rows')")
    await tab.until("document.getElementById('live').textContent.startsWith('0 rows')")
    await _clean(tab)
    await tab.open(f"{base}rows/out/{answers}/row?id=a7")
    await tab.until("document.querySelectorAll('.trail li').length === 2")
    await tab.until("document.body.textContent.includes('No model of this store')")
    await _clean(tab)
    await tab.run("document.querySelector('.trail li a').click()")
    await tab.until("location.pathname.includes('collect.sample')")


async def _whole(store: Path, folder: Path) -> None:
    answers = next(store.glob("augment.answer-*")).name
    async with browser(folder) as tab:
        with _served(store) as base:
            await tab.open(base)
            await tab.until("document.body.textContent.includes('trial')")
            await _clean(tab)
            await tab.open(f"{base}nothing")
            assert await tab.findings() == []
            tab.errors.clear()  # the 404 itself
            await _rows(tab, base, answers)
            await _live(tab, base, store)
        await _goes_on(tab, base, store)


@pytest.mark.browser
@pytest.mark.timeout(900)
def test_a_run_is_watched_and_rows_are_read_without_findings(store: Path, tmp_path: Path):
    asyncio.run(_whole(store, tmp_path))
