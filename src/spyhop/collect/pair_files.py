"""Pairs from files and to files, so that one step can be run on its own."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import to_json

from spyhop.collect.reading import origin_of
from spyhop.collect.seeds import pair_id
from spyhop.collect.shapes import Shape, first_exchange
from spyhop.schema import Config, InputError, Pair
from spyhop.stage import FOLDER, Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.store.rows import read_rows, row_files

PAIRS = "pairs.jsonl"


class GivenPairsConfig(Config):
    """Files to read, and values for rows that lack them."""

    shape: Shape | None = None
    """Shape of the rows. Default: each row's own, by its keys."""
    tag: Literal["seed", "web"] = "web"
    """Origin of the pairs, which selects the tag in their prompts: human-written seeds or web
    text."""
    collection: str = "given"
    """Collection name that rows get."""
    licence: str = ""
    """Licence that rows get."""
    own_ids: bool = True
    """Use the ids of the rows. A pair without an id is named by a hash of its texts."""


@stage(version=3, writes=Pair, plan=lambda config, folder: sum_estimates([folder]))
def read_pairs(ctx: Context, config: GivenPairsConfig, *, folder: Artifact) -> Iterator[Pair]:
    """Read pairs: rows of `instruction` and `response`, or the first exchange of any shape.

    Other columns of a pair (`id`, `tag`, `segment_id`, `rating`, ...) are read if present. Dropped:
    `empty` (either text), `repeated` (the same two texts), and conversations that do not begin with
    the text of a user and that of an assistant (`no_exchange`, `not_text`, `tool_calls`).

    Raises:
        InputError: Naming the file, the line and what is wrong with it; or two pairs of one id.
    """
    seen: set[str] = set()
    ids: set[str] = set()
    for path in row_files(folder.path):
        for where, row in ctx.track(read_rows(path), "reading"):
            *texts, reason = first_exchange(row, where, config.shape)
            pair = _pair(config, row, texts, where, origin_of(path, where))
            name = pair_id(*texts)
            is_empty = not all(text.strip() for text in texts)
            if reason or is_empty or name in seen:
                ctx.drop(pair, reason or ("empty" if is_empty else "repeated"))
                continue
            if pair.id in ids:
                raise InputError(
                    f"{where}: another pair has the id {pair.id!r:.60}, too; make them differ, or "
                    "set own_ids = false (of given pairs) to name pairs by their texts"
                )
            seen.add(name)
            ids.add(pair.id)
            yield pair


def _pair(
    config: GivenPairsConfig, row: dict[str, Any], texts: list[str], where: str, origin: str
) -> Pair:
    own = row.get("id") if config.own_ids else None
    is_own = isinstance(own, str | int) and str(own).strip()
    known = {name: value for name, value in row.items() if name in Pair.model_fields and value}
    known |= {"id": str(own) if is_own else pair_id(*texts)}
    given = {"tag": config.tag, "collection": config.collection, "licence": config.licence}
    instruction, response = texts
    try:
        return Pair.model_validate(
            {"origin": origin, **given, **known, "instruction": instruction, "response": response}
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {name} = {first['input']!r:.60}: {first['msg']}") from None


class LinesConfig(Config):
    """Name of the file."""

    file: str


@stage(version=1, writes=FOLDER, plan=lambda config, rows: Estimate(seconds=1))
def write_lines(ctx: Context, config: LinesConfig, *, rows: Artifact) -> None:
    """Write rows as JSON lines, for tools that read no Parquet; `read_pairs` reads pairs back."""
    with (ctx.out / config.file).open("wb") as stream:
        for batch in ctx.track(rows.batches(), "writing", unit="batches"):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                stream.write(to_json(row) + b"\n")
    ctx.count("rows", rows.num_rows)
