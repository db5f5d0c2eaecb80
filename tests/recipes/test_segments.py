import gzip
import json
from pathlib import Path

import pytest

from corpus.pages import article, warc, write_articles
from spyhop.recipe import resolve, run
from spyhop.recipe.plan import plan
from spyhop.recipes.inputs import Suite
from spyhop.recipes.segments import SegmentsConfig, expand, segments
from spyhop.report.html import RESULTS
from spyhop.schema import InputError, Segment
from spyhop.stage import Runtime


def test_pages_to_clean_segments_with_a_report(tmp_path: Path):
    question = "Which of the two loaves that stand on the table was baked before the other one was?"
    task = {"name": "web_of_lies", "examples": [{"input": question, "target": "Yes"}]}
    (tmp_path / "bbh").mkdir()
    (tmp_path / "bbh/web_of_lies.json").write_text(json.dumps(task))
    pages = [
        ("http://a.example/1", article().encode()),
        ("http://b.example/1", article("The same again").encode()),
        ("http://c.example/1", article().replace("Weigh the flour first", question).encode()),
        ("http://c.example/2", b"<p>short"),
    ]
    (tmp_path / "x.warc.gz").write_bytes(warc(pages))
    suite = Suite(suite="bbh", path=tmp_path / "bbh", tasks=("web_of_lies",))
    config = SegmentsConfig(inputs=(tmp_path / "x.warc.gz",), suites=(suite,))
    made = run(resolve(segments(config), tmp_path / "out"), Runtime())
    assert [row.url for row in made["clean"].rows(Segment)] == ["http://a.example/1"]
    figures = json.loads((made["report"].path / RESULTS).read_text())
    assert figures["funnel"] == [
        ["pages", 4], ["pages with text", 4], ["sections", 4], ["segments", 3], ["distinct", 2],
        ["clean", 1],
    ]  # fmt: skip
    assert figures["dropped"] == {"too_short": 1, "exact_duplicate": 1, "contaminated/bbh": 1}
    assert figures["domains"] == {"a.example": 1} and figures["languages"] == {"en": 1}
    html = (made["report"].path / "report.html").read_text()
    for text in ("From pages to segments", "exact_duplicate", "http://c.example/1", "Sourdough"):
        assert text in html
    assert "<script" not in html


def test_an_address_that_is_none_is_counted_as_such(tmp_path: Path):
    (tmp_path / "x.warc.gz").write_bytes(warc([("http://[::1/x", article().encode())]))
    config = SegmentsConfig(inputs=(tmp_path / "x.warc.gz",))
    made = run(resolve(segments(config), tmp_path / "out"), Runtime())
    figures = json.loads((made["report"].path / RESULTS).read_text())
    assert figures["domains"] == {"(invalid)": 1}


def test_a_page_cannot_put_markup_into_the_report(tmp_path: Path):
    write_articles(tmp_path / "in", 1)
    page = article("<b>Bread</b> &lt;script&gt;alert(1)&lt;/script&gt; and more of it")
    (tmp_path / "in/0000.html").write_text(page)
    config = SegmentsConfig(inputs=(tmp_path / "in",))
    made = run(resolve(segments(config), tmp_path / "out"), Runtime())
    html = (made["report"].path / "report.html").read_text()
    assert "&lt;script&gt;alert" in html and "<script" not in html


@pytest.mark.parametrize("name", ["x.paths", "x.paths.gz"])
def test_a_list_of_archives_names_files_beside_it(tmp_path: Path, name: str):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/1.warc.gz").write_bytes(b"")
    text = b"data/1.warc.gz\n\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert expand(tmp_path / name) == [tmp_path / "data/1.warc.gz"]
    (tmp_path / "data/1.warc.gz").unlink()
    with pytest.raises(InputError, match=r"1 of its 1 files are not here, such as .*1\.warc\.gz"):
        expand(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        expand(tmp_path / name)


def test_a_plan_tells_rows_and_seconds_from_the_bytes(tmp_path: Path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/a.html").write_bytes(b"x" * 600_000)
    (tmp_path / "b.warc.gz").write_bytes(b"x" * 600_000)
    alone, both = (
        plan(resolve(segments(SegmentsConfig(inputs=inputs)), tmp_path / "out"))
        for inputs in ((tmp_path / "pages",), (tmp_path / "pages", tmp_path / "b.warc.gz"))
    )
    assert alone[0].estimate.rows > 0 and alone[0].estimate.seconds > 0
    assert both[0].estimate.rows == 6 * alone[0].estimate.rows  # a packed one holds more
    assert both[1].estimate.rows == both[0].estimate.rows
