"""What a run will take, told before anything is spent."""

from dataclasses import dataclass

from spyhop.recipe.graph import Node, Source, Use
from spyhop.recipe.resolve import Resolved
from spyhop.stage import Estimate
from spyhop.store import Artifact

COUNTED_BYTES = 1 << 30
"""Text sources up to this size have their lines counted; larger ones are told by their bytes."""
LINE_BYTES = 300
TEXT_SUFFIXES = (".csv", ".json", ".jsonl", ".tsv", ".txt")


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One line of a plan."""

    node: Node
    is_made: bool
    estimate: Estimate


def plan(resolved: Resolved) -> list[PlannedNode]:
    """Return every node with what it will take; a node that is made costs nothing more."""
    estimates: dict[str, Estimate] = {}
    lines = []
    for node in resolved.recipe.nodes:
        made = resolved.made.get(node.name)
        estimate = _recorded(made) if made else _estimate(resolved, node, estimates)
        estimates[node.name] = estimate
        lines.append(PlannedNode(node, made is not None, estimate))
    return lines


def totals(lines: list[PlannedNode]) -> Estimate:
    """Return the sum over the nodes that still must run."""
    due = [line.estimate for line in lines if not line.is_made]
    return Estimate(
        rows=sum(each.rows for each in due),
        requests=sum(each.requests for each in due),
        tokens=sum(each.tokens for each in due),
        usd=sum(each.usd for each in due),
        seconds=sum(each.seconds for each in due),
    )


def _recorded(made: Artifact) -> Estimate:
    usage = made.record.usage
    return Estimate(
        rows=made.num_rows,
        requests=int(usage.get("requests", 0)),
        tokens=int(usage.get("prompt_tokens", 0) + usage.get("response_tokens", 0)),
        usd=usage.get("usd", 0.0),
        seconds=made.record.seconds,
    )


def _estimate(resolved: Resolved, node: Node, known: dict[str, Estimate]) -> Estimate:
    if node.stage.plan is None:
        return Estimate()
    inputs = {
        name: [_of(resolved, ref, known) for ref in value]
        if isinstance(value, list)
        else _of(resolved, value, known)
        for name, value in node.inputs.items()
    }
    return node.stage.plan(node.config, **inputs)


def _of(resolved: Resolved, ref: Node | Source | Use, known: dict[str, Estimate]) -> Estimate:
    if isinstance(ref, Node):
        return known[ref.name]
    if isinstance(ref, Use):
        return Estimate()
    return Estimate(rows=_num_lines(ref))


def _num_lines(source: Source) -> int:
    path = source.path
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    num_bytes = sum(file.stat().st_size for file in files)
    if num_bytes > COUNTED_BYTES:
        return num_bytes // LINE_BYTES
    num_lines = 0
    for file in (file for file in files if file.suffix in TEXT_SUFFIXES):
        with file.open("rb") as stream:
            num_lines += sum(1 for _ in stream)
    return num_lines
