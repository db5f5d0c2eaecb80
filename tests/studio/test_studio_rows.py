"""Rows in the studio: pages, filters, order and counts are those of a plain list."""

import json
import random
import re
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from stores import artifact, client, run

from spyhop.studio.tables import Engine, RowQuery, Table, position

KINDS = ["red", "green", None, "blue"]


def _rows(num: int) -> list[dict]:
    rng = random.Random(7)
    return [
        {
            "id": f"{n:04x}", "kind": KINDS[rng.randrange(4)], "num": rng.randrange(9),
            "rating": {"score": rng.choice([None, 1.0, 2.5, 4.0, float("nan")])},
            "text": f"row {n} {rng.choice(['Apple', 'pear', 'plum'])}",
        }
        for n in range(num)
    ]  # fmt: skip


ROWS = _rows(137)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    store = tmp_path_factory.mktemp("store")
    made = artifact(store, "a.rows", ROWS, part_rows=30)
    return Table(Engine([store]), made)


def _kept(query: RowQuery) -> list[dict]:
    """Return what a query should find, by plain Python."""

    def fits(row: dict) -> bool:
        kinds, (low, high) = query.facets.get("kind"), query.ranges.get("num", (0, 99))
        return (
            (not kinds or row["kind"] in kinds)
            and low <= row["num"] < high
            and query.text.lower() in f"{row['id']}\n{row['kind']}\n{row['text']}".lower()
        )

    found = [row for row in ROWS if fits(row)]
    if query.sort:
        has = [row for row in found if row[query.sort] is not None]
        has.sort(key=lambda row: row[query.sort], reverse=query.is_descending)
        if query.is_descending:  # equal ones stay in the order of the files
            has = sorted(found, key=lambda row: 0)
            has = [row for row in has if row[query.sort] is not None]
            values = sorted({row[query.sort] for row in has}, reverse=True)
            has = [row for value in values for row in has if row[query.sort] == value]
        found = has + [row for row in found if row[query.sort] is None]
    return found


kinds = st.lists(st.sampled_from(KINDS), min_size=1, max_size=2).map(lambda k: {"kind": k})
ranges = st.tuples(st.integers(0, 4), st.integers(5, 9)).map(lambda r: {"num": r})
queries = st.builds(
    RowQuery,
    facets=st.just({}) | kinds,
    ranges=st.just({}) | ranges,
    text=st.sampled_from(["", "PLUM", "row 1", "(", "nothing"]),
    sort=st.sampled_from(["", "kind", "num", "text"]),
    is_descending=st.booleans(),
)


@settings(max_examples=12)
@given(queries, st.integers(1, 40))
def test_pages_forth_and_back_are_the_rows_that_a_list_has(
    table: Table, query: RowQuery, size: int
):
    if query.text == "nothing":
        assert table.page(query) == []
    wanted, found, at = [row["id"] for row in _kept(query)], [], None
    pages = []
    while rows := table.page(query, at, limit=size):
        pages.append(rows)
        found += [row["id"] for row in rows]
        at = position(rows[-1][" at"])
        if len(pages) == 3:
            break
    assert found == wanted[: len(found)] and (len(pages) == 3 or found == wanted)
    for before, rows in pairwise(pages):
        back = table.page(query, position(rows[0][" at"]), is_back=True, limit=size)
        assert [row["id"] for row in back] == [row["id"] for row in before]


@settings(max_examples=12)
@given(queries)
def test_counts_are_those_of_a_list_and_ignore_the_columns_own_filter(
    table: Table, query: RowQuery
):
    counts = table.counts(query, table.bins())
    assert counts[""][0]["n"] == len(_kept(query)) if counts[""] else _kept(query) == []
    kinds = _kept(replace(query, facets={}))
    assert {c["value"]: c["n"] for c in counts["kind"]} == {
        kind: sum(row["kind"] == kind for row in kinds) for kind in {row["kind"] for row in kinds}
    }
    nums = _kept(replace(query, ranges={}))
    assert sum(each["n"] for each in counts["num"]) == len(nums)


def test_a_field_of_a_record_is_a_column_and_values_that_are_no_numbers_are_in_no_bin(table: Table):
    bins = table.bins()
    assert bins["rating.score"].low == 1 and "num" in bins
    found = table.counts(RowQuery(), bins)["rating.score"]
    known = sum(row["rating"]["score"] in (1.0, 2.5, 4.0) for row in ROWS)
    assert sum(each["n"] for each in found if each["value"] is not None) == known


@pytest.fixture
def site(tmp_path: Path) -> tuple[Path, TestClient]:
    store = tmp_path / "out"
    store.mkdir()
    return store, client(store)


def _turns(*pairs: tuple[str, str]) -> list[dict]:
    return [{"role": role, "content": text} for role, text in pairs]


def test_pages_show_rows_filters_dropped_rows_and_empty_states(site):
    store, get = site
    assert "spyhop run" in get.get("/rows").text
    empty = artifact(store, "a.empty", pa.table({"id": pa.array([], pa.string())}))
    assert "No rows" in get.get(f"/rows/out/{empty.name}").text
    made = artifact(
        store, "a.rows", ROWS, dropped=[("too_long", '{"id": "x"}'), ("empty", "[" * 9999)]
    )
    run(store, "trial", {"made": made})
    base = f"/rows/out/{made.name}"
    assert "made" in get.get("/rows").text and "too_long: 1" in get.get(base).text
    html = get.get(
        base, params={"is.kind": "red", "in.num": "2:4", "sort": "num", "desc": "1"}
    ).text
    wanted = [r["id"] for r in ROWS if r["kind"] == "red" and 2 <= r["num"] < 4]
    assert sorted(re.findall(r">([0-9a-f]{4})</a>", html)) == wanted
    assert "No row matches" in get.get(base, params={"is.kind": "pink"}).text
    assert "Dropped 2" in get.get(base).text
    dropped = get.get(base, params={"dropped": "1", "is.reason": "empty"}).text
    assert (
        "too_long</div>" not in dropped
        and get.get(f"{base}/row?at=0.1&dropped=1").status_code == 200
    )
    counts = get.get(f"{base}/counts").text
    assert "<b>137</b>" in counts and 'aria-label="Histogram of num"' in counts


def test_a_search_sends_hits_as_it_reads_part_by_part(site):
    store, get = site
    made = artifact(store, "a.rows", ROWS, part_rows=10)
    base = f"/rows/out/{made.name}"
    assert "Still searching" in get.get(f"{base}?q=row+13").text
    told = get.get(f"{base}/hits?q=row+13").text
    wanted = [row["id"] for row in ROWS if "row 13" in row["text"]]
    assert re.findall(r">([0-9a-f]{4})</a>", told) == wanted
    assert told.index("Still searching") < told.index("All of the rows are searched")
    many = get.get(f"{base}/hits?q=row").text
    assert len(re.findall(r">([0-9a-f]{4})</a>", many)) == 50 and "Search on" in many


HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=alert(1)>\x00\u202e{{7*7}}"


def test_hostile_rows_are_shown_as_text(site):
    store, get = site
    turns = [("system", HOSTILE), ("user", "[a](javascript:alert(1)) ![b](/x)")]
    table = f"| a |\n|-:|\n| {HOSTILE} |"
    deep = "> " * 5000 + "[" * 5000
    rows = [
        {"id": HOSTILE, "text": HOSTILE, "messages": _turns(*turns, ("assistant", table))},
        {"id": "huge", "text": "x" * 3_000_000, "messages": _turns(("user", "y" * 500_000))},
        {"id": "deep", "text": deep, "messages": _turns(("user", "*a " * 5000))},
    ]
    made = artifact(store, "a.rows", rows)
    base = f"/rows/out/{made.name}"
    for path in (
        base,
        *(f"{base}/row?at=0.{n}" for n in range(3)),
        f"{base}/counts",
        f"{base}/hits?q=script",
    ):
        reply = get.get(path)
        assert reply.status_code == 200 and len(reply.text) < 1_500_000, path
        own = re.sub(r'<script src="/static/[a-z.]+" defer></script>', "", reply.text)
        assert "<script" not in own and "<img" not in own and 'javascript:alert(1)"' not in own
        assert "style=" not in own and "\x00" not in own and "\u202e" not in own
    assert "{{7*7}}" in unescape(get.get(f"{base}/row?at=0.0").text)


def test_damaged_artifacts_are_pages_that_say_so(site):
    store, get = site
    good = artifact(store, "a.good", ROWS)
    flipped, cut, record = (
        artifact(store, f"a.{name}", ROWS) for name in ("flipped", "cut", "record")
    )
    part = flipped.path / "part-00000.parquet"
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 1
    part.write_bytes(raw)
    (cut.path / "part-00000.parquet").write_bytes(raw[:100])
    text = (record.path / "record.json").read_text()
    (record.path / "record.json").write_text(text.replace("a.record", "a.rec0rd"))
    for made in (flipped, cut, record):
        for path in ("", "/row?at=0.0", "/counts", "/check"):
            reply = get.get(f"/rows/out/{made.name}{path}")
            assert reply.status_code == 422 and "damaged" in reply.text, (made.name, path)
    listed = get.get("/rows").text
    assert "checksum" in listed and good.name in listed


def test_invalid_utf8_is_a_page_that_says_so(site):
    store, get = site
    offsets = pa.py_buffer((0).to_bytes(4, "little") + (4).to_bytes(4, "little"))
    bad = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"a\xff\xfeb"))
    made = artifact(store, "a.bytes", pa.table({"id": pa.array(["1"]), "text": bad}))
    reply = get.get(f"/rows/out/{made.name}")
    assert reply.status_code == 422 and "cannot be read" in reply.text


@pytest.mark.parametrize(
    "query", ["after=9.9;drop", "after=1", "in.num=a:b", "sort=nope", "is.nope=1", "in.num=1"]
)
def test_wrong_addresses_are_one_sentence(site, query: str):
    store, get = site
    made = artifact(store, "a.rows", ROWS)
    reply = get.get(f"/rows/out/{made.name}?{query}")
    assert reply.status_code == 422 and 'role="alert"' in reply.text


def test_a_column_may_have_any_name(site):
    store, get = site
    name = 'a"b; -- {rows} $files <i>'
    made = artifact(store, "a.names", [{"id": "1", name: "red"}, {"id": "2", name: "blue"}])
    reply = get.get(f"/rows/out/{made.name}", params={f"is.{name}": "red", "sort": name})
    assert reply.status_code == 200 and ">1</a>" in reply.text and ">2</a>" not in reply.text


def test_a_row_is_followed_from_its_query_to_scores_and_back(site):
    store, get = site
    query = {"id": "q1", "query": "How many whales?", "origin": "whales.jsonl: line 7"}
    queries = artifact(store, "collect.sample", [query, {**query, "id": "q2"}])
    prompt = {"id": "p1", "query_id": "q1", "system_id": "s"}
    pairs = [prompt, {**prompt, "id": "p2", "query_id": "q2"}]
    prompts = artifact(store, "collect.pair", pairs, {"queries": queries})
    reply = {"id": "p1", "query_id": "q1", "response": "Two."}
    answers = artifact(store, "augment.answer", [reply], {"prompts": prompts})
    verdict = {"id": "v", "item_id": "p1", "reason": "Right."}
    verdicts = artifact(store, "evaluate.judge", [verdict], {"answers": answers})
    run(store, "trial", {"queries": queries, "answers": answers})
    names = [each.name for each in (queries, prompts, answers, verdicts)]
    back = get.get(f"/follow/out/{verdicts.name}?at=0.0").text
    assert re.findall(r'class="step".*?/rows/out/([^"]+)"', back) == names
    assert "whales.jsonl: line 7" in back and "p2" not in back
    forth = get.get(f"/follow/out/{queries.name}?at=0.0").text
    assert re.findall(r'class="step".*?/rows/out/([^"]+)"', forth) == names
    other = get.get(f"/follow/out/{queries.name}?at=0.1").text
    assert answers.name not in other and prompts.name in other


@pytest.mark.parametrize("origin", ["", "tongues.jsonl"])
def test_a_row_that_states_no_line_is_found_in_the_file_that_its_step_read(site, origin: str):
    store, get = site
    texts = ["How heavy is a blue whale's tongue?", 'Wie schwer ist die "Zunge"?', "Why?"]
    file = store.parent / "tongues.jsonl"
    file.write_text("".join(f"{json.dumps({'input': text})}\n" for text in texts))
    rows = [{"id": f"i{n}", "question": f"Q: {t}", "origin": origin} for n, t in enumerate(texts)]
    folder = artifact(store, "toy.other", [{"id": "x"}])
    items = artifact(store, "evaluate.read_items", rows, {str(file): folder})
    pages = [get.get(f"/follow/out/{items.name}?at=0.{n}").text for n in range(3)]
    assert "tongues.jsonl:1" in pages[0] and "tongues.jsonl:2" in pages[1]
    assert "tongues.jsonl:" not in pages[2] and str(file) not in "".join(pages)  # "Why?" is short
