import gzip
import json
import zlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.pages import STEPS, article, warc, write_articles
from spyhop.corpus import read as reading
from spyhop.corpus.read import ArchivePage, ReadConfig, parts_of, read
from spyhop.corpus.work import converted
from spyhop.store import Source

MAX = 1_000_000


def _pages(*roots: Path, config: ReadConfig | None = None) -> list[ArchivePage]:
    return [p for part in parts_of(roots) for p in read(part, config or ReadConfig(), MAX)]


def _outcomes(*roots: Path) -> Counter[str]:
    return Counter(page.reason or ("html" if page.is_html else "text") for page in _pages(*roots))


def test_html_and_text_files_in_the_order_of_their_names(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/two.html.gz").write_bytes(gzip.compress(b"<p>2"))
    (tmp_path / "a.htm").write_bytes(b"<p>1")
    (tmp_path / "c.md").write_bytes(b"# 3")
    (tmp_path / ".hidden.html").write_bytes(b"<p>4")
    (tmp_path / "d.html.gz").write_bytes(b"\x1f\x8b\x08nothing")
    (tmp_path / "z.exe").write_bytes(b"MZ")
    assert [(page.url, page.data, page.is_html, page.reason) for page in _pages(tmp_path)] == [
        ("", b"", True, "unknown_file"), ("a.htm", b"<p>1", True, ""),
        ("b/two.html.gz", b"<p>2", True, ""), ("c.md", b"# 3", False, ""),
        ("d.html.gz", b"", True, "broken_file"),
    ]  # fmt: skip


def test_pages_of_several_inputs_tell_theirs_apart(tmp_path: Path):
    for folder in ("x/a", "y/a", "b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "index.html").write_bytes(b"<p>1")
        (tmp_path / folder / "r.jsonl").write_text('{"text": "t"}\n')
    roots = [tmp_path / name for name in ("x/a", "y/a", "b", "x/a/r.jsonl", "b/r.jsonl")]
    assert [page.origin for page in _pages(*roots)] == [
        "a/r.jsonl:0", "a/index.html", "a~2/r.jsonl:0", "a~2/index.html",
        "b/r.jsonl:0", "b/index.html", "r.jsonl:0", "r.jsonl~2:0",
    ]  # fmt: skip
    assert [page.origin for page in _pages(tmp_path / "b")] == ["r.jsonl:0", "index.html"]


def test_rows_of_json_lines(tmp_path: Path):
    rows = [{"url": "u1", "html": "<p>x"}, {"text": "plain"}, [1], {"url": "u2"}]
    lines = [json.dumps(row).encode() for row in rows] + [b"{", b"", b"[" * 100_000]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "y.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    plain, packed = _pages(tmp_path / "x.jsonl"), _pages(tmp_path / "y.jsonl.gz")
    assert [(p.url, p.data, p.is_html, p.reason) for p in plain] == [
        ("u1", b"<p>x", True, ""), ("", b"plain", False, ""), ("", b"", True, "broken_row"),
        ("u2", b"", True, "broken_row"),
        ("", b"", True, "broken_row"), ("", b"", True, "broken_row"),
    ]  # fmt: skip
    assert [page.data for page in packed] == [page.data for page in plain]


def test_half_a_character_is_written_out_in_an_address_and_replaced_in_a_page(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"url": "u\ud800", "html": "<p>\ud800"}) + "\n")
    assert [(page.url, page.data) for page in _pages(tmp_path)] == [(r"u\ud800", b"<p>?")]


def test_a_line_is_read_once_wherever_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(1, 60)))
    for size in (10, 64, 65, 66, 1000):
        monkeypatch.setattr(reading, "PART_BYTES", size)
        assert [len(page.data) for page in _pages(path)] == list(range(1, 60))


def test_a_line_without_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"text": "y" * 5000}) + "\n" + json.dumps({"text": "x"}) + "\n")
    monkeypatch.setattr(reading, "MAX_ROW_BYTES", 1000)
    found = _pages(path)
    assert [(page.data, page.reason) for page in found] == [(b"", "too_many_bytes"), (b"x", "")]


def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = pa.table({"URL": [f"u{n}" for n in range(50)], "text": ["t"] * 50, "more": [1] * 50})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=20)
    whole = _pages(tmp_path)
    monkeypatch.setattr(reading, "PART_BYTES", 1)
    assert len(parts_of([tmp_path])) == 3
    assert _pages(tmp_path) == whole and [page.url for page in whole] == [
        f"u{n}" for n in range(50)
    ]
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    assert _outcomes(tmp_path) == {"broken_file": 1}


def test_warc_records(tmp_path: Path):
    good = [("http://a.example/1", article().encode()), ("http://a.example/2", b"<p>x")]
    data = warc(good) + warc([("u", b"gone")], status="404 Not Found")
    data += warc([("u", b"\x89")], kind="image/png")
    (tmp_path / "x.warc.gz").write_bytes(data)
    pages = _pages(tmp_path)
    assert [(page.url, page.reason) for page in pages] == [
        ("http://a.example/1", ""), ("http://a.example/2", ""), ("u", "no_page"), ("u", "not_text"),
    ]  # fmt: skip
    assert pages[0].data.decode() == article()
    assert len({page.origin for page in pages}) == 4


def test_a_payload_beyond_the_cap_is_not_held_in_memory(tmp_path: Path):
    (tmp_path / "x.warc.gz").write_bytes(warc([("u", b"<p>" + b"x" * 20_000_000)]))
    (page,) = _pages(tmp_path)
    assert len(page.data) == MAX + 1


def _packed(data: bytes, old: bytes, new: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data).replace(old, new))


HARMS = {
    "cut": lambda data: data[: len(data) // 2],
    "bad member": lambda data: data[:300] + b"\x00" * 40 + data[340:],
    "garbage": lambda data: b"garbage" * 100,
    "bad gzip": lambda data: b"\x1f\x8b" + b"\xff" * 500,
    "empty": lambda data: b"",
    "too long": lambda data: _packed(data, b"Content-Length: ", b"Content-Length: 9"),
    "negative": lambda data: _packed(data, b"Content-Length: ", b"Content-Length: -"),
    "no http": lambda data: _packed(data, b"HTTP/1.1 200 OK", b"\x00\xff\x00"),
    "no end": lambda data: _packed(data, b"\r\n\r\n", b"\r\n"),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
@pytest.mark.parametrize("name", ["x.warc.gz", "x.warc"])
def test_a_damaged_archive_ends_as_reasons(tmp_path: Path, harm, name: str):
    data = warc([(f"http://a.example/{n}", article(f"Page {n}").encode()) for n in range(5)])
    (tmp_path / name).write_bytes(harm(data))
    pages = _pages(tmp_path)
    assert 1 <= len(pages) <= 200
    assert all(page.reason for page in pages if not page.data)


def test_the_broken_archives_of_others(data_dir: Path):
    found = _outcomes(data_dir / "warc_warcio/data")
    assert found == {
        "html": 9,
        "text": 2,
        "not_text": 4,
        "no_page": 1,
        "revisit": 4,
        "arc_archive": 4,
    }


@pytest.mark.parametrize("name", ["x.arc", "x.ARC.gz", "x.arc.1.gz", "x.wacz", "x.mhtml", "x.mht"])
def test_archives_of_other_formats_are_refused_by_name(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"filedesc://x 0.0.0.0 20080101000000 text/plain 0")
    (page,) = _pages(tmp_path)
    assert page.reason in {"arc_archive", "wacz_archive", "mhtml_archive"}
    assert page.reason[:3] in name.lower()


PAGE = article().encode()


def _record(body: bytes, headers: str) -> bytes:
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{headers}\r\n".encode() + body
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/x\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n")


def _chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (gzip.compress(PAGE), "Content-Encoding: gzip\r\n", ""),
        (PAGE, "Content-Encoding: gzip\r\n", ""),
        (PAGE, "Content-Encoding: br\r\n", ""),
        (PAGE, "Content-Encoding: x-made-up\r\n", ""),
        (PAGE, "Content-Encoding: UTF-8\r\n", ""),
        (zlib.compress(PAGE), "Content-Encoding: deflate\r\n", ""),
        (zlib.compress(PAGE)[2:-4], "Content-Encoding: deflate\r\n", ""),
        (_chunked(PAGE), "Transfer-Encoding: chunked\r\n", ""),
        (PAGE, "Transfer-Encoding: chunked\r\n", ""),
        (_chunked(gzip.compress(PAGE)),
         "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n", ""),
        (b"\x07\x01" * 500, "Content-Encoding: gzip\r\n", "broken_record"),
        (b"\x07\x01" * 500, "Content-Encoding: x-made-up\r\n", "broken_record"),
    ],
)  # fmt: skip
def test_a_lying_encoding_costs_at_most_its_record(
    tmp_path: Path, body: bytes, headers: str, reason: str
):
    good = warc([("http://a.example/1", PAGE)])
    (tmp_path / "x.warc.gz").write_bytes(good + _record(body, headers) + good)
    pages = _pages(tmp_path)
    assert [page.reason for page in pages] == ["", reason, ""]
    assert pages[0].data == pages[2].data == PAGE and pages[1].data == (b"" if reason else PAGE)


def test_files_are_read_by_what_they_hold(tmp_path: Path):
    rows = [{"url": f"u{n}", "text": "t"} for n in range(3)]
    lines = "\n".join(map(json.dumps, rows)).encode()
    packed = {"a.jsonl.zst": "zstd", "b.json.gz": "gzip", "c.html.zst": "zstd"}
    for name, kind in packed.items():
        with pa.output_stream(tmp_path / name, compression=kind) as stream:
            stream.write(PAGE if "html" in name else lines)
    whole = {"d.json": json.dumps(rows), "e.json": json.dumps(rows[0], indent=2)}
    pages = {"f.php": PAGE, "g": PAGE, "h.php?id=3.5": PAGE, "i": b"Plain words.\n"}
    binaries = {
        "j.html": b"\x89PNG\r\n\x1a\n" + b"\x00" * 99,
        "k.htm": b"%PDF-1.7 x",
        "l": b"\x00\x01" * 99,
    }
    for name, data in (pages | binaries).items():
        (tmp_path / name).write_bytes(data)
    for name, text in whole.items():
        (tmp_path / name).write_text(text)
    found = Counter(
        (page.origin[0], page.reason or ("html" if page.is_html else "text"))
        for page in _pages(tmp_path)
    )
    assert found == {
        ("a", "text"): 3, ("b", "text"): 3, ("c", "html"): 1, ("d", "text"): 3, ("e", "text"): 1,
        ("f", "html"): 1, ("g", "html"): 1, ("h", "html"): 1, ("i", "text"): 1,
        ("j", "binary"): 1, ("k", "binary"): 1, ("l", "binary"): 1,
    }  # fmt: skip


def test_linked_folders_and_lost_files_are_counted(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x.html").write_bytes(PAGE)
    (tmp_path / "in/linked").symlink_to(tmp_path / "other")
    (tmp_path / "in/y.html").symlink_to(tmp_path / "other/x.html")
    (tmp_path / "in/z.html").symlink_to(tmp_path / "nowhere")
    assert _outcomes(tmp_path / "in") == {"linked_folder": 1, "html": 1, "unreadable_file": 1}


def test_text_that_a_crawler_wrote_out_gives_its_prose(tmp_path: Path, data_dir: Path):
    (page,) = _pages(data_dir / "warc_whirlwind/whirlwind.warc.wet.gz")
    assert page.is_converted and not page.is_html
    found = converted("Bread\nHome\nAll recipes\n" + "\n".join(STEPS) + "\nContact us")
    assert found.title == "Bread" and [block.text for block in found.blocks] == [
        step.strip() for step in STEPS
    ]


def test_one_unreadable_file_is_a_counted_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_articles(tmp_path / "in", 2)
    opened = Path.open

    def refuse(path: Path, *args, **options):
        if path.name == "0001.html":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    source = Source(tmp_path / "in").open(tmp_path)
    assert _outcomes(source.path) == {"html": 1, "broken_file": 1}
