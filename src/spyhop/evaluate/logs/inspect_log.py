"""Logs of inspect: `.eval` archives, with samples whole or in chunks, and `.json` files.

Archives are read in memory and within limits; nothing is unpacked to disk. Zstandard members are
read through Arrow: Python's zipfile does not know them.

Source: inspect-ai 0.3.285, log schema version 2.
"""

import re
import struct
import zlib
from collections.abc import Collection, Iterator
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import pyarrow as pa
from pydantic_core import from_json

from spyhop.evaluate.logs.formats import PASSAGES, TOPICS, Fields, LogRow, digest, first_text
from spyhop.schema import InputError
from spyhop.store.files import field

JSON_BYTES, MEMBER_BYTES = 512 << 20, 128 << 20
"""Sizes up to which a `.json` log, which has to be read whole, and a member are read."""
RATIO, FREE_BYTES = 500, 256 << 20
"""An archive may unpack to this multiple of its size, and to `FREE_BYTES` in any case."""
_ZSTD = 93
"""Number of the compression method in the zip format."""
_SAMPLE = re.compile(r"samples/(?:[^/]+_epoch_\d+)(?:\.json|/sample\.json)")
_JSON = re.compile(rb'\s*{\s*"version"\s*:.*"eval"\s*:\s*{', re.DOTALL)
_ATTACHED = "attachment://"
_SCORES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


def is_inspect(path: Path) -> bool:
    """Whether a file is a log of inspect, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(4096)
    is_json = path.suffix == ".json" and _JSON.match(start)
    return path.suffix == ".eval" or start.startswith(b"PK\3\4") or bool(is_json)


def header(path: Path) -> dict[str, Any]:
    """Return task, model and the like of a log: its `eval` object."""
    if path.suffix == ".json":
        found = _json_log(path)
    else:
        infos = _members(path)
        name = next((n for n in ("header.json", "_journal/start.json") if n in infos), None)
        if name is None:
            raise InputError(f"{path}: not a log of inspect: neither header.json nor a journal")
        found = _object(_read_member(path, infos[name]), f"{path}: {name}")
    spec: dict[str, Any] = field(found, "eval", str(path), dict)
    return spec


def samples(
    path: Path, wanted: Collection[int] | None = None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield number, place and fields of each sample, or of the wanted ones."""
    if path.suffix == ".json":
        for number, sample in enumerate(field(_json_log(path), "samples", str(path), list)):
            if wanted is None or number in wanted:
                yield number, f"{path}: sample {number + 1}", sample
        return
    infos = _members(path)
    for number, name in enumerate(filter(_SAMPLE.fullmatch, infos)):
        if wanted is not None and number not in wanted:
            continue
        where, folder = f"{path}: {name}", name.removesuffix("sample.json")
        sample = _object(_read_member(path, infos[name]), where)
        if folder != name:  # in chunks, of which the first ones have the prompt
            for part in ("metadata", "messages/0", "attachments/0"):
                if info := infos.get(f"{folder}{part}.json"):
                    sample[part.partition("/")[0]] = from_json(_read_member(path, info))
        yield number, where, sample


def inspect_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a sample. C, P, I and N are 1, 0.5, 0 and 0, as inspect's accuracy counts them."""
    attached, metadata = row.get("attachments") or {}, row.get("metadata") or {}
    question, target = _text(row.get("input"), attached), row.get("target") or ""
    gold = ", ".join(map(str, target)) if isinstance(target, list) else str(target)
    values: dict[str, float | None] = {}
    answers = []
    for scorer, score in (row.get("scores") or {}).items():
        value = score.get("value")
        answers += [score["answer"]] if score.get("answer") is not None else []
        each = {f"{scorer}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {}
        for name, single in (each or {scorer: value}).items():
            if not isinstance(single, list):
                values[name] = _value(single, f"{where}: {name}")
    return LogRow(
        task=task,
        item=digest(question, *map(str, row.get("choices") or ()), gold),
        values=values,
        sample=int(row.get("epoch") or 1),
        prompt=_prompt(row.get("messages") or [], attached),
        question=question,
        response=_text((row.get("output") or {}).get("completion"), attached),
        answer=str(answers[0]) if answers else None,
        gold=gold,
        topic=first_text(metadata, TOPICS),
        passage=digest(first_text(metadata, PASSAGES)),
    )


def _members(path: Path) -> dict[str, ZipInfo]:
    """Return the members of an archive by name; refuse one that no log tool writes."""
    try:
        with ZipFile(path) as archive:
            infos = archive.infolist()
    except (BadZipFile, OSError, ValueError, struct.error) as error:
        raise InputError(f"{path}: not a whole zip archive ({error!s:.80})") from None
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in info.filename.partition("/")[0]:
            raise InputError(f"{path}: a member with the path {info.filename!r:.80}")
    size, unpacked = path.stat().st_size, sum(info.file_size for info in infos)
    if sum(info.compress_size for info in infos) > size:
        raise InputError(f"{path}: members overlap; no log tool writes such an archive")
    if unpacked > max(FREE_BYTES, RATIO * size):
        sizes = f"{size / 1e6:,.1f} MB that unpack to {unpacked / 1e6:,.0f} MB"
        raise InputError(f"{path}: {sizes}; refused as a zip bomb")
    return {info.filename: info for info in infos}


def _read_member(path: Path, info: ZipInfo) -> bytes:
    where = f"{path}: {info.filename}"
    if info.file_size > MEMBER_BYTES:
        sizes = f"{info.file_size / 1e6:,.0f} MB; at most {MEMBER_BYTES / 1e6:,.0f} MB are read"
        raise InputError(f"{where}: unpacks to {sizes}")
    if info.flag_bits & 1 or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED, _ZSTD):
        raise InputError(f"{where}: encrypted, or packed by method {info.compress_type}")
    try:
        with path.open("rb") as file:
            file.seek(info.header_offset + 26)
            file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
            packed = file.read(info.compress_size)
        if info.compress_type == _ZSTD:
            with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
                packed = bytes(stream.read(info.file_size + 1))
        elif info.compress_type == ZIP_DEFLATED:
            packed = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, info.file_size + 1)
    except (OSError, zlib.error, struct.error) as error:
        raise InputError(f"{where}: damaged ({error!s:.80})") from None
    if len(packed) != info.file_size or zlib.crc32(packed) != info.CRC:
        raise InputError(f"{where}: damaged (its size or checksum differs)")
    return packed


def _json_log(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > JSON_BYTES:
        limit = f"at most {JSON_BYTES / 1e6:,.0f} MB of JSON are read"
        raise InputError(f"{path}: {size / 1e6:,.0f} MB; {limit}; convert the log to .eval")
    return _object(path.read_bytes(), str(path))


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        found = from_json(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error!s:.80})") from None
    if not isinstance(found, dict):
        raise InputError(f"{where}: not a JSON object")
    return found


def _value(value: Any, where: str) -> float | None:  # noqa: ANN401 (plain data)
    """Return a score as a number; inspect marks samples without a score by null or NaN."""
    if isinstance(value, str):
        value = _SCORES.get(value if len(value) == 1 else value.lower(), value)
    try:
        found = None if value is None else float(value)
    except (TypeError, ValueError):
        raise InputError(f"{where} = {value!r:.60} is not a score") from None
    return found if found is not None and isfinite(found) else None


def _text(content: Any, attached: Any) -> str:  # noqa: ANN401 (plain data)
    """Return the text of an input, of messages or of a message's parts, attachments resolved."""
    if isinstance(content, list):
        parts = [
            part.get("content", part.get("text")) for part in content if isinstance(part, dict)
        ]
        return "\n".join(_text(part, attached) for part in parts)
    if not isinstance(content, str) or not content.startswith(_ATTACHED):
        return content if isinstance(content, str) else ""
    name = content.removeprefix(_ATTACHED)
    known = dict(enumerate(attached)) if isinstance(attached, list) else attached
    return str(known.get(int(name) if isinstance(attached, list) else name, content))


def _prompt(messages: list[Any], attached: Any) -> str:  # noqa: ANN401 (plain data)
    """Return the digest of the turns before the model's first one."""
    turns: list[str] = []
    for turn in messages:
        if turn.get("source") == "generate" or turn.get("model"):
            break
        turns += [str(turn.get("role")), _text(turn.get("content"), attached)]
    return digest(*turns)
