"""Weights on a Ray cluster: the rows of one process, also where a node dies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toys
from cluster_nodes import of_cluster
from spyhop.models import Local, Model, ModelUse, Request, Sampling
from spyhop.models import base as model_base
from spyhop.models.replay import Recorded
from spyhop.render import TURNS, Renderer
from spyhop.schema import Message
from spyhop.stage import Context, Runtime, stage
from spyhop.store import Artifact, Source
from spyhop.train import rows as rows_module
from spyhop.train.encoding import Encoding
from spyhop.train.rows import FILES, tokenise
from toys import Numbers

pytest.importorskip("ray")
pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("default")]


@stage(version=1, writes=Recorded)
def told_and_scored(ctx: Context, config: Numbers, *, model: Model) -> Iterator[Recorded]:
    """Asks and scores, with texts that share a beginning."""
    asked = [
        Request(
            id=str(n),
            messages=[Message(role="user", content=f"Count {'on ' * (n % 7)}to {n}")],
            options=("yes", "no", "perhaps"), continuation="It is.",
        )
        for n in range(config.num_rows)
    ]  # fmt: skip
    replies = model.generate(iter(asked), Sampling(max_new_tokens=24))
    chosen = [each.probabilities for each in model.choose(iter(asked))]
    for reply, found in zip(replies, chosen, strict=True):
        yield Recorded(id=reply.id, query=repr(found), response=reply.text)


def _told(root: Path, folder: Path, on: str = "", num_rows: int = 60) -> Artifact:
    model = ModelUse(Local(), Source(folder).open(root))
    runtime = Runtime(device="cpu", inference_tokens=600, on=on)
    return told_and_scored.run(root, Numbers(num_rows=num_rows), runtime=runtime, model=model)


def test_a_model_on_two_nodes_gives_the_same_rows_and_one_may_die(
    tmp_path: Path,
    tiny_folder: Path,
    two_nodes: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    here = _told(tmp_path / "here", tiny_folder)
    assert _told(tmp_path / "client", tiny_folder, two_nodes[1]).digest == here.digest
    port, killed = int(two_nodes[0].rpartition(":")[2]), list[int]()
    progress = model_base.BatchModel._computed

    def answers(self: Any, asked: Any, due: Any) -> Any:
        for number, found in enumerate(progress(self, asked, due)):
            if number == 1 and not killed:  # both nodes have actors, which have weights
                raylets = of_cluster(port, "raylet/raylet")
                last = max(raylets, key=lambda each: each.create_time())
                killed.append(last.pid)
                last.kill()
            yield found

    monkeypatch.setattr(model_base.BatchModel, "_computed", answers)
    there = _told(tmp_path / "there", tiny_folder, two_nodes[0])
    assert killed and there.digest == here.digest
    assert there.record.usage == here.record.usage


def test_rows_are_tokenised_on_two_nodes(
    tmp_path: Path,
    words: Any,
    two_nodes: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(rows_module, "FEW_ROWS", 0)
    monkeypatch.setattr(rows_module, "CHUNK_ROWS", 64)
    texts = ["x" * (n % 70) for n in range(900)]
    answers = toys.artifact_of(
        tmp_path, [toys.answer_row(n, f"Say {n}.", text) for n, text in enumerate(texts)]
    )
    found = []
    for on in ("", two_nodes[0]):
        folder = tmp_path / f"on-{bool(on)}"
        (folder / "state").mkdir(parents=True)
        (folder / "out").mkdir()
        runtime = Runtime(device="cpu", on=on)
        ctx = Context(folder, folder / "out", folder / "state", runtime, lambda news: None)
        tokenise(ctx, [answers], Encoding(Renderer(words, TURNS), 80))
        ctx.close()
        found.append([(ctx.state / file).read_bytes() for file in FILES.values()])
    assert found[0] == found[1] and len(found[0][0]) > 10_000
