import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corpus.pages import article, warc, write_articles
from spyhop.corpus import SegmentConfig, decontaminate, deduplicate, segment
from spyhop.schema import InputError, Item, Segment
from spyhop.stage import Progress, Runtime
from spyhop.store import Artifact, Source
from spyhop.text.contamination import ContaminationConfig
from spyhop.text.overlap import NearConfig
from toys import rows_artifact


def _segments(
    root: Path, *inputs: Path, processes: int = 1, report=lambda progress: None
) -> Artifact:
    return segment.run(
        root,
        SegmentConfig(),
        runtime=Runtime(processes=processes),
        report=report,
        pages={str(path): Source(path).open(root) for path in inputs},
    )


def _row(number: int, text: str) -> Segment:
    return Segment(
        id=f"s{number}", url="u", headings=["h"], text=text, start=0, end=len(text), language="en",
        page_digest="d", origin="o",
    )  # fmt: skip


def test_pages_become_segments_with_where_they_come_from(tmp_path: Path):
    page = article(note="Write to jane@example.com.").encode()
    (tmp_path / "x.warc.gz").write_bytes(warc([("http://a.example/x", page), ("u", b"<p>x")]))
    made = _segments(tmp_path / "out", tmp_path / "x.warc.gz")
    (row,) = made.rows(Segment)
    assert (row.url, row.headings, row.language) == (
        "http://a.example/x",
        ["How to bake bread"],
        "en",
    )
    assert "[email]" in row.text and "jane" not in row.text and row.num_redacted == 1
    assert row.origin.startswith("x.warc.gz:") and len(row.page_digest) == 16
    assert made.record.counts == {"pages": 2, "redacted": 1, "sections": 2, "toxic": 0}
    assert made.record.dropped == {"too_short": 1}
    ((reason, _),) = made.dropped()
    assert reason == "too_short"


def test_personal_data_is_nowhere_in_headings_or_rejects(tmp_path: Path):
    mail = "bob.smith@corp.example"
    (tmp_path / "x.html").write_text(article(f"Ask {mail}", note=f"Ask {mail}."))
    (tmp_path / "y.html").write_text(f"<h1>Or ask {mail}</h1><p>Write to {mail} at once.</p>")
    made = _segments(tmp_path / "out", tmp_path / "x.html", tmp_path / "y.html")
    (row,) = made.rows(Segment)
    assert row.headings == ["Ask [email]"] and row.num_redacted == 2 and mail not in row.text
    ((reason, left_out),) = made.dropped()
    assert reason == "too_short" and mail not in left_out and '"Or ask [email]"' in left_out
    kept = segment.run(
        tmp_path / "raw",
        SegmentConfig(redact=False),
        pages={"one": Source(tmp_path / "x.html").open(tmp_path)},
    )
    (row,) = kept.rows(Segment)
    assert row.headings == [f"Ask {mail}"] and mail in row.text and row.num_redacted == 0


def test_processes_change_nothing_and_a_rerun_is_free(tmp_path: Path):
    for n in range(3):
        write_articles(tmp_path / f"in{n}", 3)
    inputs = [tmp_path / f"in{n}" for n in range(3)]
    one = _segments(tmp_path / "one", *inputs)
    two = _segments(tmp_path / "two", *inputs, processes=2)
    assert one.digest == two.digest and one.num_rows == 9
    assert _segments(tmp_path / "one", *inputs).path == one.path


def test_the_live_line_tells_speed_segments_and_reasons(tmp_path: Path):
    write_articles(tmp_path / "in", 3)
    (tmp_path / "in/no.exe").write_bytes(b"MZ")
    told: list[Progress] = []
    _segments(tmp_path / "out", tmp_path / "in", report=told.append)
    last = [each for each in told if each.doing == "segmenting"][-1]
    assert last.done == last.total and last.unit == "MB"
    assert "3 segments; dropped: page/unknown_file 1" in last.note and "pages/s" in last.note


def test_nothing_to_read_is_an_error(tmp_path: Path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="the folder holds no files"):
        _segments(tmp_path / "out", tmp_path / "in")


def test_repeats_are_left_out_and_name_what_stays(tmp_path: Path):
    words = [f"w{n}" for n in range(300)]
    near = [*words[:150], "other", *words[151:]]
    texts = [" ".join(words), "something else", " ".join(near), "Something, else!"]
    rows = rows_artifact(tmp_path / "in", [_row(n, text) for n, text in enumerate(texts)])
    made = deduplicate.run(tmp_path / "out", NearConfig(), segments=rows)
    assert [row.id for row in made.rows(Segment)] == ["s0", "s1"]
    assert made.record.dropped == {"exact_duplicate": 1, "near_duplicate": 1}
    assert ['"kept_row":0' in row for _, row in made.dropped()] == [True, False]


def test_what_holds_an_item_is_left_out(tmp_path: Path):
    question = "A farmer has seven pens with three hens in each of them, how many hens has he?"
    item = Item(id="i", task="t", suite="s", question=question, target="21")
    short = Item(id="j", task="t", suite="s", question="Is it?", target="yes")
    texts = [f"We ask: {question} It is simple.", "A farmer has many hens, and that is all."]
    rows = rows_artifact(tmp_path / "in", [_row(n, text) for n, text in enumerate(texts)])
    items = rows_artifact(tmp_path / "items", [item, short])
    made = decontaminate.run(
        tmp_path / "out", ContaminationConfig(), segments=rows, items={"one": items}
    )
    assert [row.id for row in made.rows(Segment)] == ["s1"]
    assert made.record.dropped == {"contaminated/s": 1}
    assert made.record.counts == {"items": 2, "items_found": 1, "items_unchecked": 1}
    ((_, dropped),) = made.dropped()
    assert '"item_id":"i"' in dropped and "seven pens" in dropped


def _command(out: Path, *inputs: Path) -> list[str]:
    names = ", ".join(f"{str(path)!r}: Source({str(path)!r}).open(root)" for path in inputs)
    code = (
        "from pathlib import Path; from spyhop.corpus import SegmentConfig, segment\n"
        "from spyhop.store import Source; import resource\n"
        f"root = Path({str(out)!r}); segment.run(root, SegmentConfig(), pages={{{names}}})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,"
        " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    return [sys.executable, "-c", code]


@pytest.mark.slow
def test_a_killed_run_goes_on_without_repeating_a_chunk(tmp_path: Path):
    write_articles(tmp_path / "in", 1500)
    whole = _segments(tmp_path / "calm", tmp_path / "in")
    run = subprocess.Popen(_command(tmp_path / "out", tmp_path / "in"))
    state = tmp_path / "out/.partial"
    end = time.monotonic() + 60
    while time.monotonic() < end and len(list(state.glob("*.parts-*/*.zst"))) < 3:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    time.sleep(0.2)
    before = {path: path.stat().st_mtime_ns for path in state.glob("*.parts-*/*.zst")}
    assert before and not list((tmp_path / "out").glob("corpus.segment-*"))
    seen: dict[Path, int] = {}

    def look(progress: Progress) -> None:
        if progress.doing == "segmenting":
            seen.update({path: path.stat().st_mtime_ns for path in state.glob("*.parts-*/*.zst")})

    again = _segments(tmp_path / "out", tmp_path / "in", report=look)
    assert {path: seen[path] for path in before} == before
    assert again.digest == whole.digest and again.num_rows == whole.num_rows == 1500


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path):
    peaks = []
    for num in (1_000, 8_000):
        path = tmp_path / f"{num}.warc.gz"
        page = article().encode()
        path.write_bytes(b"".join(warc([(f"http://a.example/{n}", page)]) for n in range(num)))
        done = subprocess.run(
            _command(tmp_path / f"out{num}", path), capture_output=True, text=True, check=True
        )
        peaks.append([int(each) / 1024 for each in done.stdout.split()])
    for small, large in zip(*peaks, strict=True):
        assert large < small + 25, peaks


@pytest.mark.slow
def test_real_pages_and_broken_archives_end_in_figures(data_dir: Path, tmp_path: Path):
    names = ("html_scipy_lectures", "warc_aut", "warc_warcio", "warc_whirlwind")
    made = _segments(tmp_path, *(data_dir / name for name in names), processes=2)
    assert made.record.counts["pages"] > 600 and made.num_rows > 250
    for row in made.rows(Segment):
        assert 600 <= row.end - row.start <= 3000 and row.language == "en"
        assert row.headings or "</" not in row.text
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1 << 20
