"""Logs of inspect: `.eval` archives, with samples whole or in chunks, and `.json` files.

Source: inspect-ai 0.3.285, log schema version 2.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from spyhop.evaluate.logs.archive import Archive
from spyhop.evaluate.logs.row import PASSAGES, TOPICS, LogRow, digest, first_text, need
from spyhop.schema import InputError

JSON_BYTES = 512 << 20
"""Size up to which a `.json` log is read; it has to be read whole."""
_SAMPLE = re.compile(r"samples/(?:[^/]+_epoch_\d+)(?:\.json|/sample\.json)")
_ATTACHED = "attachment://"
_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_ZIP = b"PK\x03\x04"


def is_inspect(path: Path) -> bool:
    """Whether a file is a log of inspect, by its ending or its first bytes."""
    if path.suffix == ".eval":
        return True
    with path.open("rb") as file:
        start = file.read(4096)
    return start.startswith(_ZIP) or (
        path.suffix == ".json" and start.lstrip().startswith(b"{") and b'"eval"' in start
    )


@cache
def header(path: Path) -> dict[str, Any]:
    """Return task, model and the like of a log: its `eval` object.

    Raises:
        InputError: If it is not a log.
    """
    if path.suffix == ".json":
        found = _json_log(path)
    else:
        with Archive(path) as archive:
            names = [n for n in ("header.json", "_journal/start.json") if n in archive.members]
            if not names:
                raise InputError(f"{path}: not a log of inspect: neither header.json nor a journal")
            found = _object(archive.read(names[0]), f"{path}: {names[0]}")
    spec: dict[str, Any] = need(found, "eval", dict, str(path))
    return spec


def samples(
    path: Path, wanted: Collection[int] | None = None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield number, place and fields of each sample, or of the wanted ones.

    Raises:
        InputError: If a sample cannot be read.
    """
    if path.suffix == ".json":
        found = need(_json_log(path), "samples", list, f"{path}: a log without its samples")
        for number, sample in enumerate(found):
            where = f"{path}: sample {number + 1}"
            if wanted is None or number in wanted:
                yield number, where, need({"sample": sample}, "sample", dict, where)
        return
    with Archive(path) as archive:
        for number, name in enumerate(filter(_SAMPLE.fullmatch, archive.members)):
            if wanted is None or number in wanted:
                yield number, f"{path}: {name}", _sample(archive, name)


def inspect_row(row: Mapping[str, Any], where: str, task: str) -> LogRow:
    """Read a sample. C, P, I and N are 1, 0.5, 0 and 0, as inspect's accuracy counts them."""
    attached = row.get("attachments") or {}
    question = _resolved(_text(row.get("input")), attached)
    target = row.get("target") or ""
    gold = ", ".join(map(str, target)) if isinstance(target, list) else str(target)
    metadata = row.get("metadata") or {}
    scores = row.get("scores") or {}
    values = {
        name: value
        for scorer, score in scores.items()
        for name, value in _values(scorer, score, where)
    }
    answers = [score.get("answer") for score in scores.values() if isinstance(score, dict)]
    output = row.get("output") or {}
    passage = first_text(metadata, PASSAGES)
    return LogRow(
        task=task,
        item=digest(question, *map(str, row.get("choices") or ()), gold),
        values=values,
        sample=int(row.get("epoch") or 1),
        prompt=_prompt(row.get("messages") or [], attached),
        question=question,
        response=_resolved(str(output.get("completion") or ""), attached),
        answer=next((str(answer) for answer in answers if answer is not None), None),
        gold=gold,
        topic=first_text(metadata, TOPICS),
        passage=digest(passage) if passage else "",
    )


def _json_log(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > JSON_BYTES:
        raise InputError(
            f"{path}: {size / 1e6:,.0f} MB; at most {JSON_BYTES / 1e6:,.0f} MB of JSON are read: "
            "convert it with `inspect log convert --to eval`"
        )
    return _object(path.read_bytes(), str(path))


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        found = from_json(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error!s:.80})") from None
    if not isinstance(found, dict):
        raise InputError(f"{where}: not a JSON object")
    return found


def _sample(archive: Archive, name: str) -> dict[str, Any]:
    """Return a sample; of one in chunks, the first chunks: prompts are at the beginning."""
    found = _object(archive.read(name), f"{archive.path}: {name}")
    folder = name.removesuffix("sample.json")
    if folder != name:
        parts = {"metadata": "metadata", "messages": "messages/0", "attachments": "attachments/0"}
        for key, part in parts.items():
            if (member := f"{folder}{part}.json") in archive.members:
                found[key] = from_json(archive.read(member))
    return found


def _values(scorer: str, score: Any, where: str) -> Iterator[tuple[str, float | None]]:  # noqa: ANN401
    """Yield the values of a score: one, or one for each key of an object; lists have no value."""
    value = need({scorer: score}, scorer, dict, where).get("value")
    if isinstance(value, dict):
        for key, each in value.items():
            yield f"{scorer}/{key}", _value(each, f"{where}: {scorer}/{key}")
    elif not isinstance(value, list):
        yield scorer, _value(value, f"{where}: {scorer}")


def _value(value: object, where: str) -> float | None:
    """Return a score as a number; inspect marks samples without a score by null or NaN."""
    if isinstance(value, str):
        known = _VALUES.get(value, _VALUES.get(value.lower()) if len(value) > 1 else None)
        if known is not None:
            return known
    try:
        found = None if value is None else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{where} = {value!r:.60} is not a score") from None
    return found if found is not None and isfinite(found) else None


def _text(content: Any) -> str:  # noqa: ANN401 (a text, messages, or parts of a message)
    """Return the text of an input, of messages or of a message's parts."""
    if isinstance(content, list):
        return "\n".join(
            _text(part.get("content", part.get("text", ""))) if isinstance(part, dict) else ""
            for part in content
        )
    return content if isinstance(content, str) else ""


def _resolved(text: str, attached: Mapping[str, str] | list[str]) -> str:
    """Return the attached text that a text refers to, else itself."""
    if not text.startswith(_ATTACHED):
        return text
    name = text.removeprefix(_ATTACHED)
    if isinstance(attached, list):
        return attached[int(name)] if name.isdecimal() and int(name) < len(attached) else text
    return attached.get(name, text)


def _prompt(messages: list[Any], attached: Mapping[str, str] | list[str]) -> str:
    """Return the digest of the turns before the model's first one."""
    turns: list[str] = []
    for turn in messages:
        if turn.get("source") == "generate" or turn.get("model"):
            break
        turns += [str(turn.get("role")), _resolved(_text(turn.get("content")), attached)]
    return digest(*turns) if turns else ""
