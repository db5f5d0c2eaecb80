"""Read segments from files, to backtranslate texts of any origin."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spyhop.schema import Config, InputError, Segment
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact, row_id
from spyhop.store.files import field, table_files
from spyhop.store.rows import read_rows


class ReadSegmentsConfig(Config):
    """Files to read."""

    language: str = "en"
    """Language of rows without a `language`."""


@stage(version=1, writes=Segment, plan=lambda config, folder: sum_estimates([folder]))
def read_segments(
    ctx: Context, config: ReadSegmentsConfig, *, folder: Artifact
) -> Iterator[Segment]:
    """Read segments: rows with a `text` and any other columns of a segment.

    JSONL, CSV and Parquet are read, and folders of artifacts. A row without an id gets the hash of
    its text as id. Dropped: `empty`, `repeated` (the same id).
    """
    seen: set[str] = set()
    for path in table_files(folder.path, "*"):
        for where, row in ctx.track(read_rows(path), "reading"):
            segment = _segment(config, row, where, path)
            if not segment.text.strip() or segment.id in seen:
                ctx.drop(segment, "repeated" if segment.text.strip() else "empty")
                continue
            seen.add(segment.id)
            yield segment


def _segment(config: ReadSegmentsConfig, row: Any, where: str, path: Path) -> Segment:  # noqa: ANN401
    if not isinstance(row, dict):
        raise InputError(f"{where}: {row!r:.60} is not a row")
    text = field(row, "text", where)
    known = {
        "id": row_id("segment", text),
        "url": "",
        "headings": [],
        "start": 0,
        "end": len(text),
        "language": config.language,
        "page_digest": "",
        "origin": f"{path.name}{where.removeprefix(str(path))}",
    }
    known |= {name: value for name, value in row.items() if name in Segment.model_fields and value}
    known |= {"text": text}
    try:
        return Segment.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {name} = {first['input']!r:.60}: {first['msg']}") from None
