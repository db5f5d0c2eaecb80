"""Pairs divided and exchanged: a held-out part, queries made of pairs, pairs made of queries."""

from collections.abc import Iterator, Mapping
from heapq import nsmallest
from itertools import chain, islice

from pydantic import Field

from spyhop.collect import pair_id
from spyhop.schema import Config, InputError, Item, Pair, Query
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, number_of
from spyhop.text.overlap import Contamination, ContaminationConfig, ItemIndex

BATCH_ROWS = 1024


class PartConfig(Config):
    """Which of two parts is taken."""

    held_out_one_of: int = Field(0, ge=0)
    """The held-out part is one of so many instructions, by their hash; 0 holds none out."""
    is_held_out: bool = False
    """Take the held-out part, or the rest."""
    num_rows: int | None = Field(None, gt=0)
    """Exactly so many of the part, lowest hashes first; None takes all."""
    seed: int = 0
    """Of the draw; what is held out does not depend on it."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Where items are given: pairs that hold one are in neither part."""


class Contaminated(Pair):
    """A pair that is left out because it holds an evaluation item, for the dropped rows."""

    item: str
    words: str
    """The run of words that both have."""


class QueriesConfig(Config):
    """What the queries are called."""

    collection: str = "web"
    task: str = "backtranslated"


class PairsConfig(Config):
    """Nothing to set."""


def plan_part(
    config: PartConfig, pairs: Mapping[str, Estimate], items: Mapping[str, Estimate] | None = None
) -> Estimate:
    """The part's share of the rows."""
    rows = sum_estimates(pairs.values())
    share = rows.rows // config.held_out_one_of if config.held_out_one_of else 0
    num = share if config.is_held_out else rows.rows - share
    return Estimate(rows=min(num, config.num_rows or num), row_tokens=rows.row_tokens)


@stage(version=1, writes=Pair, plan=plan_part)
def part(
    ctx: Context,
    config: PartConfig,
    *,
    pairs: Mapping[str, Artifact],
    items: Mapping[str, Artifact] | None = None,
) -> Iterator[Pair]:
    """Yield one of two parts that have no instruction in common, in order.

    Which part a pair is in depends on its instruction alone, so equal instructions with different
    responses stay together, and no draw from the rest ever holds a held-out one. Pairs that share
    a run of words with an evaluation item are dropped (`contaminated`). Some 100 bytes a row in
    memory where `num_rows` is set.

    Raises:
        InputError: If the part holds fewer than `num_rows` pairs.
    """
    found = chain.from_iterable(each.rows(Item) for each in (items or {}).values())
    index = ItemIndex(((item.id, item.question) for item in found), config.contamination)
    drawn = _drawn(config, pairs, index)
    for row, hit in _checked(config, pairs, index):
        if hit is not None:
            held = {"item": hit.item, "words": hit.words}
            ctx.drop(Contaminated(**row.model_dump(), **held), "contaminated")
        elif drawn is None or row.id in drawn:
            ctx.count(f"collection/{row.collection}")
            yield row


@stage(version=1, writes=Query, plan=lambda config, pairs: sum_estimates(pairs.values()))
def as_queries(
    ctx: Context, config: QueriesConfig, *, pairs: Mapping[str, Artifact]
) -> Iterator[Query]:
    """Yield the instructions as queries; the responses are not their gold answers.

    A query's id is its pair's, so that the response can be found again.
    """
    for row in _rows(pairs):
        yield Query(
            id=row.id,
            collection=config.collection,
            task=config.task,
            query=row.instruction,
            target="",
            origin=row.origin,
            licence=row.licence,
        )


@stage(version=1, writes=Pair, plan=lambda config, queries: sum_estimates(queries.values()))
def as_pairs(
    ctx: Context, config: PairsConfig, *, queries: Mapping[str, Artifact]
) -> Iterator[Pair]:
    """Yield queries with their bare gold answers as pairs, such as raw FLAN; others are dropped."""
    seen: set[str] = set()
    for artifact in queries.values():
        for row in ctx.track(artifact.rows(Query), "writing", total=artifact.num_rows):
            name = pair_id(row.query, row.target)
            if not row.target.strip() or name in seen:
                ctx.drop(row, "repeated" if name in seen else "no_target")
                continue
            seen.add(name)
            yield Pair(
                id=name,
                instruction=row.query,
                response=row.target,
                tag="seed",
                collection=row.collection,
                origin=row.origin,
                licence=row.licence,
            )


def _drawn(config: PartConfig, pairs: Mapping[str, Artifact], index: ItemIndex) -> set[str] | None:
    if config.num_rows is None:
        return None
    clean = (row.id for row, hit in _checked(config, pairs, index) if hit is None)
    places = {name: number_of(f"{config.seed}/{name}") for name in clean}
    if len(places) < config.num_rows:
        raise InputError(f"{len(places)} pairs are there, {config.num_rows} are asked for")
    return set(nsmallest(config.num_rows, places, key=places.__getitem__))


def _checked(
    config: PartConfig, pairs: Mapping[str, Artifact], index: ItemIndex
) -> Iterator[tuple[Pair, Contamination | None]]:
    """Yield the pairs of the part, with the item that each holds, if it holds one."""
    rows = (row for row in _rows(pairs) if _is_in(config, row))
    while batch := list(islice(rows, BATCH_ROWS)):
        texts = [f"{row.instruction}\n{row.response}" for row in batch]
        yield from zip(batch, index.find(texts), strict=True)


def _is_in(config: PartConfig, row: Pair) -> bool:
    every = config.held_out_one_of
    is_held_out = bool(every) and number_of(f"held out/{row.instruction}") % every == 0
    return is_held_out == config.is_held_out


def _rows(pairs: Mapping[str, Artifact]) -> Iterator[Pair]:
    for artifact in pairs.values():
        yield from artifact.rows(Pair)
