"""One reader for every format; the fuzz compares it with `datasets`, another implementation."""

import bz2
import csv
import gzip
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spyhop.schema import InputError
from spyhop.store.rows import read_rows, row_files

FUZZ_S = float(os.environ.get("SPYHOP_FUZZ_S", "25"))
ROWS = [{"id": n, "text": f"caf\u00e9 {n}\n\U0001f433", "list": [{"a": str(n)}]} for n in range(9)]
FLAT = [{"id": str(n), "text": f'say "{n}", caf\u00e9\nand more'} for n in range(9)]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [row for file in row_files(path) for _, row in read_rows(file)]


def _write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def _pack(path: Path) -> list[Path]:
    raw, packed = path.read_bytes(), []
    for suffix, pack in (
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".zst", lambda text: pa.compress(text, "zstd", asbytes=True)),
    ):
        packed.append(path.with_name(path.name + suffix))
        packed[-1].write_bytes(pack(raw))
    return [path, *packed]


def test_every_format_gives_the_same_rows(tmp_path: Path):
    text = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    (tmp_path / "lines.jsonl").write_text(text)
    (tmp_path / "plain.json").write_text(json.dumps(ROWS))
    (tmp_path / "pretty.json").write_text("\ufeff" + json.dumps(ROWS, indent=1))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "table.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    (tmp_path / "saved" / "README.md").write_text("no rows")
    for name in ("lines.jsonl", "plain.json", "pretty.json"):
        for path in _pack(tmp_path / name):
            assert _rows(path) == ROWS, path.name
    assert _rows(tmp_path / "table.parquet") == _rows(tmp_path / "saved") == ROWS
    for name, delimiter in (("t.csv", ","), ("t.tsv", "\t")):
        _write_csv(tmp_path / name, FLAT, delimiter)
        for path in _pack(tmp_path / name):
            assert _rows(path) == FLAT, path.name


def test_a_saved_data_set_of_several_splits_needs_a_name(tmp_path: Path):
    half = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": half, "test": half}).save_to_disk(tmp_path / "both")
    with pytest.raises(InputError, match="with the splits train, test; name the folder of one"):
        row_files(tmp_path / "both")
    assert _rows(tmp_path / "both" / "test") == ROWS
    datasets.DatasetDict({"train": half}).save_to_disk(tmp_path / "one")
    assert _rows(tmp_path / "one") == ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "the JSON array ends after row 0"),
        ("[{}", "the JSON array ends after row 1"),
        ("[{},]", "row 2: not JSON"),
        ("[{} {}]", r"row 2: not JSON \('\{' instead of , or \]"),
        ("[{}] x", r"row 2: not JSON \('x' instead of the end"),
        ("[1]", "row 1: 1 is not a row"),
        ("[null]", "row 1: null is not a row"),
        ('[{"a": "\\ud800"}]', r"row 1: not JSON \(\\ud800 is half of a character"),
        ('[{"a": ' + "[" * 100_000, r"row 1: not JSON \(nested too deeply"),
        ('[{"a": "caf\udce9"}]', "not UTF-8"),
        ('{\n"data": [{}]\n}', "one JSON object, not rows; it holds lists under data"),
        ("a,a\n1,2\n", "two columns have the same name"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / ("x.csv" if text.startswith("a,") else "x.json")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as error:
        list(read_rows(path))
    assert "\n" not in str(error.value) and len(str(error.value)) < 300 + len(str(path))


def test_a_large_array_is_read_in_flat_memory(tmp_path: Path):
    import tracemalloc

    path = tmp_path / "large.json"
    with path.open("w") as stream:
        stream.write("[" + ",".join(json.dumps({"text": "x" * 990}) for _ in range(20_000)) + "]")
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 8e6 < path.stat().st_size
    tracemalloc.stop()


def _text(draw: random.Random) -> str:
    pieces = ["a", " ", "\n", "\r\n", '"', "'", ",", "\t", "\\", "\u00e9", "\U0001f433", "\u2028",
              "\ufeff", "\x00", "{", "[", "]", "}", "NaN", "null", "\x7f", "\u200b"]  # fmt: skip
    return "".join(draw.choice(pieces) for _ in range(draw.randrange(12)))


def _value(draw: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: _text(draw),
        lambda: draw.choice([None, True, False, 0, -1, 2**62, 1.5, 1e-300]),
    ]
    if depth < 3:
        kinds.append(lambda: [_text(draw) for _ in range(draw.randrange(3))])
        kinds.append(
            lambda: {f"k{n}": _value(draw, depth + 1) for n in range(draw.randrange(1, 3))}
        )
    return draw.choice(kinds)()


@pytest.mark.slow
@pytest.mark.timeout(FUZZ_S * 2 + 200)
def test_fuzz_against_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where both read a file, both read the same rows; and what is no file is one line."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()
    seed = int(os.environ.get("SPYHOP_FUZZ_SEED", "0"))
    end, num = time.monotonic() + FUZZ_S, 0
    while time.monotonic() < end:
        draw = random.Random(f"{seed}/{num}")
        kind = draw.choice(["jsonl", "json", "csv", "parquet", "arrow"])
        keys = [f"c{n}" for n in range(draw.randrange(1, 4))]
        shape = {key: _value(draw) for key in keys}
        rows = [
            {key: _like(draw, shape[key]) if kind != "csv" else _text(draw) + "x" for key in keys}
            for _ in range(draw.randrange(1, 6))
        ]
        path = tmp_path / f"{num}.{kind}"
        _write(path, kind, rows, draw)
        ours = [row for file in row_files(path) for _, row in read_rows(file)]
        theirs = _theirs(path, kind, tmp_path / "cache")
        if theirs is not None:
            assert json.dumps(_plain(ours)) == json.dumps(_plain(theirs)), (seed, num, kind)
        harmed = bytearray(path.read_bytes()) if path.is_file() else bytearray()
        if harmed and kind != "csv":
            place = draw.randrange(len(harmed))
            harmed[place] ^= 1 << draw.randrange(8)
            path.write_bytes(harmed[: draw.choice([len(harmed), place + 1])])
            try:
                list(read_rows(path))
            except InputError as error:
                assert "\n" not in str(error)
        num += 1
    print(f"{num} files")  # noqa: T201


def _like(draw: random.Random, value: Any) -> Any:
    """Another value of the same type, as tables need it."""
    if isinstance(value, dict):
        return {key: _like(draw, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_text(draw) for _ in range(draw.randrange(3))]
    return _text(draw) if isinstance(value, str) else value


def _write(path: Path, kind: str, rows: list[dict[str, Any]], draw: random.Random) -> None:
    ascii_only = draw.random() < 0.5
    if kind == "jsonl":
        text = "".join(f"{json.dumps(row, ensure_ascii=ascii_only)}\n" for row in rows)
        path.write_bytes(text.encode())
    elif kind == "json":
        indent = draw.choice([None, 1])
        path.write_bytes(json.dumps(rows, ensure_ascii=ascii_only, indent=indent).encode())
    elif kind == "csv":
        _write_csv(path, rows)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(path)


def _theirs(path: Path, kind: str, cache: Path) -> list[dict[str, Any]] | None:
    try:
        if kind == "arrow":
            return datasets.load_from_disk(str(path)).to_list()
        name = "json" if kind.startswith("json") else kind
        options = {"dtype": str, "keep_default_na": False} if kind == "csv" else {}
        loaded = datasets.load_dataset(
            name, data_files=str(path), split="train", cache_dir=str(cache), **options
        )
        return list(loaded.to_list())
    except Exception:  # noqa: BLE001 (what `datasets` cannot read is no reference)
        return None


def _plain(value: Any) -> Any:
    """Without what Arrow adds: keys without a value."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in sorted(value.items()) if v is not None}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
