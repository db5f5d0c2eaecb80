"""Rows of each tool's logs: spyhop's scores, lm-eval, AlpacaEval, arena-hard and inspect.

Inspect writes `.eval` archives, with samples whole or in chunks, and `.json` files. Archives are
read in memory and within limits; nothing is unpacked to disk. Zstandard members are read through
Arrow: Python's zipfile does not know them.

Sources: lm-eval 0.4.13 (`log_samples`), AlpacaEval 0.6 (`annotations.json`), arena-hard-auto 0.1
and 2.0 (`model_judgment`), inspect-ai 0.3.285 (log schema version 2), as those tools write them.
"""

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, takewhile
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import pyarrow as pa
from pydantic_core import from_json

from spyhop.schema import InputError
from spyhop.store.files import field

TOPICS = ("topic", "subject", "category", "subcategory", "subfield", "domain", "dataset", "cluster")
PASSAGES = ("passage", "context", "article", "paragraph", "story")
QUESTIONS = ("question", "query", "goal", "problem", "instruction", "input", "prompt", "sentence")
"""Names of fields under which data sets have the topic, the shared passage and the question."""
_LM_EVAL = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
    "doc_hash", "prompt_hash", "target_hash",
}  # fmt: skip
_POINTS = {
    "A>>B": 1.0, "A>B": 1.0, "B<A": 1.0, "B<<A": 1.0, "A=B": 0.5, "B=A": 0.5, "A<B": 0.0,
    "A<<B": 0.0, "B>A": 0.0, "B>>A": 0.0,
}  # fmt: skip
"""Points of the answer read first, by an arena-hard label."""
_JUDGED = re.compile(
    r"<\|User Prompt\|>\n?(.*?)\s*<\|The Start of Assistant A's Answer\|>"
    r"(?:.*?Start of Assistant B's Answer\|>\s*(.*?)\s*<\|The End of Assistant B)?",
    re.S,
)
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


@dataclass(slots=True)
class LogRow:
    """A scored answer, whichever tool wrote it."""

    task: str
    """Empty where neither the row nor the file's name says it."""
    item: str
    """What identifies the item's content; the same item of another log has the same."""
    values: Mapping[str, float | None]
    """Score by metric, the tool's first one first; None where a call or a verdict failed."""
    sample: int = 0
    prompt: str = ""
    """Digest of what the model was sent; empty where the log does not have it."""
    question: str = ""
    response: str = ""
    answer: str | None = None
    """The answer found in the response; None where there is no answer."""
    gold: str = ""
    topic: str = ""
    passage: str = ""
    """Id or digest of the text that several items share."""


Fields = Mapping[str, Any]
Parse = Callable[[Fields, str, str], LogRow]
"""A row from its fields, its place for messages, and the task that its file is named after."""


def digest(*texts: str) -> str:
    """Return a short digest of texts, whose boundaries count; empty if all are empty."""
    whole = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(whole).hexdigest()[:32] if any(texts) else ""


def first_text(fields: Fields, names: tuple[str, ...]) -> str:
    """Return the first of these fields that is a text, else an empty one."""
    return next((fields[name] for name in names if isinstance(fields.get(name), str)), "")


def _number(value: object, name: str, where: str) -> float:
    if not isinstance(value, int | float) or not isfinite(value):
        raise InputError(f"{where}: {name} = {value!r:.60} is not a finite number")
    return float(value)


def spyhop_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a row of `scores-NAME.jsonl`, or of an artifact of scores."""
    suite, name = field(row, "suite", where), field(row, "task", where)
    scores = {field(row, "metric", where): row.get("value"), **(row.get("metrics") or {})}
    is_failed = row.get("ending") == "failed"
    question = row.get("question") or ""
    return LogRow(
        task=name if name == suite else f"{suite} {name}",
        item=row.get("item_digest") or field(row, "id", where),
        values={k: None if is_failed else _number(v, k, where) for k, v in scores.items()},
        sample=row.get("sample_index") or 0, prompt=row.get("prompt_digest") or digest(question),
        question=question, response=field(row, "response", where), answer=row.get("extracted"),
        gold=str(row.get("target", "")), topic=row.get("topic") or "",
        passage=row.get("passage") or "",
    )  # fmt: skip


def lm_eval_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a row of `samples_TASK_DATE.jsonl`, one for each document and filter."""
    doc, responses = field(row, "doc", where, dict), field(row, "resps", where, list)
    calls = field(row, "arguments", where, (dict, list))
    sent = [_texts(call) for call in (calls.values() if isinstance(calls, dict) else calls)]
    options = [option.strip() for _, option in sent]
    names = row.get("metrics") or [key for key in row if key not in _LM_EVAL]
    mark = "" if (chosen := row.get("filter", "none")) == "none" else f",{chosen}"
    scores = {name: row[name] for name in names if isinstance(row.get(name), int | float)}
    if not scores:
        raise InputError(f"{where}: no metric is a number; it has {', '.join(names) or 'none'}")
    response, found, gold = _inner(responses), _inner(row.get("filtered_resps")), row.get("target")
    is_choice = isinstance(response, list) and isinstance(_inner(response), list)
    if is_choice:
        sums = [float(_inner(each)) for each in row["filtered_resps"]]
        found = options[sums.index(max(sums))] if len(sums) == len(options) else None
        is_number = str(gold).isdecimal() and int(str(gold)) < len(options)
        response, gold = "", options[int(str(gold))] if is_number else gold
    return LogRow(
        task=task, item=row.get("doc_hash") or digest(json.dumps(doc, sort_keys=True)),
        values={f"{name}{mark}": _number(value, name, where) for name, value in scores.items()},
        prompt=row.get("prompt_hash") or digest(*(prompt for prompt, _ in sent)),
        question=first_text(doc, QUESTIONS) or (sent[0][0] if sent else ""),
        answer=None if found in (None, "[invalid]") else str(_inner(found)),
        response=str(_inner(response)), gold=str(gold), topic=first_text(doc, TOPICS),
        passage=digest(first_text(doc, PASSAGES)),
    )  # fmt: skip


def _texts(call: object) -> tuple[str, str]:
    """Return prompt and continuation of a request; older versions log a list."""
    parts = list(call.values()) if isinstance(call, dict) else call
    texts = [part for part in parts if isinstance(part, str)] if isinstance(parts, list) else []
    return (*texts, "", "")[:2]  # type: ignore[return-value]


def _inner(value: Any) -> Any:  # noqa: ANN401 (plain data)
    """Return the first of a list, else the value."""
    return value[0] if isinstance(value, list) and value else value


def alpaca_row(row: Fields, where: str, task: str) -> LogRow:
    """Read an annotation of AlpacaEval: the points of `output_2` against `output_1`.

    `preference` is 1 or 2, or between them if it is a mean; a draw is coded 0 or 1.5.
    """
    instruction, points = field(row, "instruction", where), row.get("preference")
    if points is not None:
        points = _number(points, "preference", where)
        if points != 0 and not 1 <= points <= 2:
            raise InputError(f"{where}: preference = {points:g} is neither 0 nor from 1 to 2")
        points = points - 1 if points else 0.5
    return LogRow(
        task="alpaca_eval", item=digest(instruction), values={"win_rate": points},
        question=instruction, response=field(row, "output_2", where), answer=_side(points),
        topic=row.get("dataset") or "",
    )  # fmt: skip


def arena_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a judgment of arena-hard: the model's points over both orders.

    In the first game the model's answer is read second, in the second game first. A question with
    a missing game has no points. A>>B counts as A>B.
    """
    games = field(row, "games", where, list)
    labels = [game["score"].strip().upper() for game in games if game and game.get("score")]
    if unknown := set(labels) - _POINTS.keys():
        raise InputError(f"{where}: unknown label {unknown.pop()!r}")
    points = None
    if len(games) == len(labels) == 2:
        points = (1 - _POINTS[labels[0]] + _POINTS[labels[1]]) / 2
    sent = (games[0].get("user_prompt") or games[0].get("prompt")) if games and games[0] else ""
    if isinstance(sent, list):  # messages, since version 2.0
        sent = "\n".join(str(turn.get("content")) for turn in sent if isinstance(turn, dict))
    item = str(row.get("uid") or field(row, "question_id", where))
    found = _JUDGED.search(str(sent))
    return LogRow(
        task="arena_hard", item=item, values={"win_rate": points},
        question=found[1] if found else item, response=(found and found[2]) or "",
        answer=_side(points), topic=first_text(row, TOPICS),
    )  # fmt: skip


def _side(points: float | None) -> str | None:
    return None if points is None else "win" if points > 0.5 else "loss" if points < 0.5 else "draw"


FORMATS: dict[str, tuple[str, str, Parse]] = {
    "spyhop": ("metric", "response", spyhop_row),
    "lm-eval": ("doc", "resps", lm_eval_row),
    "AlpacaEval": ("instruction", "preference", alpaca_row),
    "arena-hard": ("games", "judge", arena_row),
}
"""By tool: two fields that tell its rows, and the reader of a row."""


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
    sent = takewhile(  # the turns before the model's first one
        lambda turn: turn.get("source") != "generate" and not turn.get("model"),
        row.get("messages") or [],
    )
    turns = [(str(turn.get("role")), _text(turn.get("content"), attached)) for turn in sent]
    return LogRow(
        task=task, item=digest(question, *map(str, row.get("choices") or ()), gold), values=values,
        sample=int(row.get("epoch") or 1), prompt=digest(*chain.from_iterable(turns)),
        question=question, response=_text((row.get("output") or {}).get("completion"), attached),
        answer=str(answers[0]) if answers else None, gold=gold, topic=first_text(metadata, TOPICS),
        passage=digest(first_text(metadata, PASSAGES)),
    )  # fmt: skip


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
