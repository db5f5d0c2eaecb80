import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from corpus.pages import MONSTERS, article, slow_page, warc, write_articles
from spyhop.corpus import pool as pooling
from spyhop.corpus.pool import PAGES, Pool, chunks_of, is_done, read_chunk
from spyhop.corpus.read import ArchivePage, parts_of
from spyhop.corpus.work import ExtractConfig, SegmentConfig, segments_of
from spyhop.schema import ArtifactError

SLOW = slow_page(190_000)
"""About five seconds."""


def _run(folder: Path, *roots: Path, workers: int = 1, config: SegmentConfig | None = None):
    folder.mkdir(exist_ok=True)
    parts = parts_of(roots)
    list(Pool(dict(enumerate(parts)), config or SegmentConfig(), folder, workers).run())
    assert all(is_done(folder, number) for number in range(len(parts)))
    return _outcomes(folder, len(parts))


def _outcomes(folder: Path, num_parts: int) -> list[tuple[str, dict]]:
    chunks = [path for n in range(num_parts) for path in chunks_of(folder, n)]
    found = [each for path in chunks for each in read_chunk(path)]
    return [(reason, json.loads(row)) for reason, row in found if reason != PAGES]


@pytest.mark.parametrize("name", MONSTERS)
def test_a_monster_ends_as_counted_reasons_at_once(name: str):
    started = time.process_time()
    found = list(segments_of(ArchivePage("u", "o", MONSTERS[name]), SegmentConfig()))
    assert found and all(each.reason for each in found)
    assert time.process_time() - started < 3


LARGE_BYTES = 100 << 20


@pytest.mark.slow
@pytest.mark.parametrize("piece", [b"word ", b"<div><p>word</p></div>", b"<div>", b"a<br>"])
@pytest.mark.parametrize("is_capped", [True, False])
def test_a_page_of_100_mb_is_a_counted_reason(tmp_path: Path, piece: bytes, is_capped: bool):
    """Also where the cap on bytes is lifted; another cap ends it then."""
    write_articles(tmp_path / "in", 2)
    with (tmp_path / "in/0000-large.html").open("wb") as stream:
        stream.write(b"<h1>Large</h1><p>")
        for _ in range(100):
            stream.write(piece * (LARGE_BYTES // 100 // len(piece)))
    config = SegmentConfig(page_s=20.0)
    if not is_capped:
        config = SegmentConfig(page_s=20.0, extract=ExtractConfig(max_bytes=2 * LARGE_BYTES))
    started = time.monotonic()
    found = _run(tmp_path / "out", tmp_path / "in", config=config)
    assert time.monotonic() - started < (15 if is_capped else 75)
    assert sum(reason == "" for reason, _ in found) == 2
    reasons = {reason for reason, row in found if row["origin"] == "0000-large.html"}
    assert reasons and "" not in reasons
    assert (reasons == {"page/too_many_bytes"}) == is_capped


def test_two_workers_make_what_one_makes(tmp_path: Path):
    for n in range(4):
        write_articles(tmp_path / f"in{n}", 5)
    roots = [tmp_path / f"in{n}" for n in range(4)]
    one, two = (_run(tmp_path / f"out{n}", *roots, workers=n) for n in (1, 2))
    assert one == two and Counter(reason for reason, _ in one)[""] == 20


def test_a_page_that_takes_too_long_is_given_up_and_the_rest_is_not(tmp_path: Path):
    pages = [(f"http://a.example/{n}", article(f"Page {n}").encode()) for n in range(5)]
    pages.insert(2, ("http://slow.example", SLOW))
    (tmp_path / "x.warc.gz").write_bytes(warc(pages))
    started = time.monotonic()
    found = _run(tmp_path / "out", tmp_path / "x.warc.gz", config=SegmentConfig(page_s=1.5))
    assert time.monotonic() - started < 40
    assert [row["url"] for reason, row in found if reason == "page/time_cap"] == [
        "http://slow.example"
    ]
    assert sum(reason == "" for reason, _ in found) == 5


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path: Path):
    write_articles(tmp_path / "in", 30)
    for n in range(3):
        (tmp_path / f"in/0010-{n}.html").write_bytes(slow_page(10_000))
    calm = _run(tmp_path / "calm", tmp_path / "in")
    (tmp_path / "out").mkdir()
    pool = Pool(dict(enumerate(parts_of([tmp_path / "in"]))), SegmentConfig(), tmp_path / "out", 1)
    deaths = []

    def harm() -> None:
        end = time.monotonic() + 20
        while len(deaths) < 2 and time.monotonic() < end:
            for child in psutil.Process().children():
                with suppress(psutil.Error):  # it may end meanwhile
                    if (
                        "spyhop.corpus.pool" in " ".join(child.cmdline())
                        and child.cpu_times().user > 0.5
                    ):
                        child.kill()
                        deaths.append(child.pid)
            time.sleep(0.02)

    killer = threading.Thread(target=harm)
    killer.start()
    list(pool.run())
    killer.join()
    assert len(deaths) >= 1
    assert _outcomes(tmp_path / "out", 1) == calm


def test_a_page_that_kills_its_worker_each_time_is_given_up(tmp_path: Path):
    write_articles(tmp_path / "in", 3)
    (tmp_path / "in/0001.html").write_bytes(b"<p>" + b"word " * 300_000)
    config = SegmentConfig(page_memory_mb=1024)
    found = _run(tmp_path / "out", tmp_path / "in", config=config)
    assert sum(reason == "" for reason, _ in found) == 2
    assert {row["origin"] for reason, row in found if reason} >= {"0001.html"}


def test_finished_chunks_are_not_made_again(tmp_path: Path):
    write_articles(tmp_path / "in", 6)
    first = _run(tmp_path / "out", tmp_path / "in")
    (chunk,) = chunks_of(tmp_path / "out", 0)
    before = chunk.stat().st_mtime_ns
    assert _run(tmp_path / "out", tmp_path / "in") == first
    (tmp_path / "out/000000.done").unlink()
    assert _run(tmp_path / "out", tmp_path / "in") == first
    assert chunk.stat().st_mtime_ns == before


def test_workers_that_cannot_live_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_articles(tmp_path / "in", 1)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ArtifactError, match="died 3 times between pages"):
        _run(tmp_path / "out", tmp_path / "in")


def test_workers_die_with_their_run(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/slow.html").write_bytes(SLOW)
    (tmp_path / "out").mkdir()
    code = (
        "from pathlib import Path; from spyhop.corpus.pool import Pool\n"
        "from spyhop.corpus.read import parts_of; from spyhop.corpus.work import SegmentConfig\n"
        f"list(Pool(dict(enumerate(parts_of([Path({str(tmp_path / 'in')!r})]))), SegmentConfig(), "
        f"Path({str(tmp_path / 'out')!r}), 1).run())"
    )
    run = subprocess.Popen([sys.executable, "-c", code])
    children: list[psutil.Process] = []
    end = time.monotonic() + 30
    while time.monotonic() < end and not any(c.cpu_times().user > 1 for c in children):
        children = psutil.Process(run.pid).children()
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert children and not alive


def test_a_page_that_makes_our_code_fail_is_a_reason(monkeypatch, capfd):
    def fail(page: ArchivePage, config: SegmentConfig):
        raise ValueError("ours")

    monkeypatch.setattr(pooling, "segments_of", fail)
    ((reason, _),) = pooling._lines(ArchivePage("u", "o", b"x"), SegmentConfig())
    assert reason == "page/error" and "ours" in capfd.readouterr().err


def test_addresses_and_names_that_are_no_text_are_written_out(tmp_path: Path):
    (tmp_path / "in").mkdir()
    row = {"url": "http://x/\ud800", "html": article(note="\ud800")}
    (tmp_path / "in/a.jsonl").write_text(json.dumps(row) + "\n")
    for name in (b"b\xff.html", b"b\xfe.html"):
        (tmp_path / "in" / os.fsdecode(name)).write_text(article())
    (tmp_path / "in" / os.fsdecode(b"c\xff.warc")).write_bytes(b"garbage")
    found = _run(tmp_path / "out", tmp_path / "in")
    assert {row["url"] for reason, row in found if not reason} == {
        r"http://x/\ud800", r"b\udcff.html", r"b\udcfe.html"
    }  # fmt: skip
    assert r"c\udcff.warc" in {row["origin"] for _, row in found}


def test_a_page_given_up_that_kills_again_ends_the_run(tmp_path: Path):
    (tmp_path / "x.html").write_text("<p>")
    (part,) = parts_of([tmp_path / "x.html"])
    job = pooling.PartItem(0, part, SegmentConfig(), tmp_path)
    step = pooling.WorkItemUpdate("working", 0)
    job = pooling._after(job, step, "crash", pooling.MAX_DEATHS)
    assert job.given_up == {0: "crash"}
    for reason in ("crash", "time_cap"):
        with pytest.raises(ArtifactError, match=r"x\.html: its workers died 4 times over a page"):
            pooling._after(job, step, reason, 4)
