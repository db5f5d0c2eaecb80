"""New objectives, each written here as a user would: weights, pairs, rows made while training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gradients import CPU, LENGTHS, WAYS, gradient, token_rows, toy_model

import toys
from spyhop.models.folder import load_tokenizer
from spyhop.render import TURNS, Renderer
from spyhop.stage import Context
from spyhop.store import Source
from spyhop.train import OptimizerConfig, TuneConfig
from spyhop.train.distributed import Group
from spyhop.train.encoding import Encoding
from spyhop.train.loop import TrainingJob, train
from spyhop.train.objective import CrossEntropy, TokenSequence
from spyhop.train.rows import TokenRows, tokenise

BOUND = 1e-12
WEIGHTS = np.random.default_rng(3).choice([0.25, 0.5, 2.0], sum(LENGTHS)).astype(np.float32)


class WeightedCrossEntropy(CrossEntropy):
    """Cross-entropy with a weight for every token; its terms are the weights' sum."""

    def num_terms(self, rows: Any) -> float:
        return float(sum(self.collate(row)[0].weights[1:].sum() for row in rows))

    def collate(self, row: int) -> list[TokenSequence]:
        (plain,) = super().collate(row)
        start = int(self._rows.starts[row])
        weights = WEIGHTS[start : start + len(plain.ids)] * plain.weights
        return [TokenSequence(plain.ids, weights)]


class Ranking(CrossEntropy):
    """Prefers a row to the same row read backwards; its terms are the pairs."""

    def num_terms(self, rows: Any) -> float:
        return len(rows)

    def lengths(self, rows: Any) -> Any:
        return 2 * super().lengths(rows)

    def collate(self, row: int) -> list[TokenSequence]:
        (plain,) = super().collate(row)
        return [plain, TokenSequence(plain.ids[::-1].copy(), plain.weights)]

    def loss(self, model: Any, microbatch: Any, scale: float, head: Any) -> Any:
        logprobs = head.logprobs(model, microbatch)
        sums = microbatch.sums(logprobs)
        margins = sums[0::2] - sums[1::2]
        loss = -scale * torch.nn.functional.logsigmoid(0.1 * margins).sum()
        return loss, {"margin": scale * margins.sum()}


def _logprobs(model: Any, ids: Any) -> torch.Tensor:
    ids = torch.from_numpy(ids.astype(np.int64))[None]
    return model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]


def _weighted_loss(model: Any, rows: TokenRows) -> torch.Tensor:
    total, num = torch.zeros(()), 0.0
    for a, b in zip(rows.starts, rows.starts[1:], strict=False):
        weights = torch.from_numpy((WEIGHTS * rows.is_supervised)[a + 1 : b]).double()
        total, num = total - (weights * _logprobs(model, rows.ids[a:b])).sum(), num + weights.sum()
    return total / num


def _ranking_loss(model: Any, rows: TokenRows) -> torch.Tensor:
    losses = []
    for a, b in zip(rows.starts, rows.starts[1:], strict=False):
        mask = torch.from_numpy(rows.is_supervised[a + 1 : b].copy())
        good, bad = (_logprobs(model, ids) for ids in (rows.ids[a:b], rows.ids[a:b][::-1].copy()))
        margin = (good[mask].sum() - bad[mask].sum()) * 0.1
        losses.append((1 + (-margin).exp()).log())
    return sum(losses) / len(losses)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("objective", "reference"),
    [(WeightedCrossEntropy, _weighted_loss), (Ranking, _ranking_loss)],
    ids=["weights", "pairs"],
)
def test_another_objective_has_its_own_gradient_however_it_is_cut(
    objective: type, reference: Callable[..., Any]
):
    model = toy_model(torch.float64)
    reference(model, token_rows()).backward()
    wanted = torch.cat([p.grad.flatten() for p in model.parameters()])
    for way in WAYS.values():
        found = gradient(CPU.model_copy(update=way), objective=objective)
        assert float((found - wanted).norm() / wanted.norm()) < BOUND


class OwnWords(CrossEntropy):
    """Trains on what the model itself says at each step, up to three tokens."""

    made: ClassVar[list[list[int]]] = []

    def begin_step(self, rows: Any, model: Any) -> Any:
        prompt = torch.from_numpy(super().collate(int(rows[0]))[0].ids[:4].astype(np.int64))[None]
        with torch.no_grad():
            ids = model.generate(prompt, max_new_tokens=3, do_sample=False)[0].numpy()
        self.made.append(ids.tolist())
        model.train()
        return np.array([len(self.made) - 1])

    def lengths(self, rows: Any) -> Any:
        return np.array([len(self.made[row]) for row in rows])

    def num_terms(self, rows: Any) -> float:
        return float(self.lengths(rows).sum() - 4 * len(rows))

    def collate(self, row: int) -> list[TokenSequence]:
        ids = np.array(self.made[row], dtype=np.int32)
        return [TokenSequence(ids, np.arange(len(ids)) >= 4)]


def test_rows_can_be_generated_while_it_trains(
    tmp_path: Path, tiny_folder: Path, context: Context, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(OwnWords, "made", [])
    base = Source(tiny_folder).open(tmp_path)
    renderer = Renderer(load_tokenizer(base.path), TURNS)
    answers = toys.artifact_of(tmp_path, [toys.answer_row(n, f"q {n}", "yes") for n in range(4)])
    rows = tokenise(context, [answers], Encoding(renderer, 100))
    config = TuneConfig(epochs=1.0, optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=0))
    steps, none = [np.array([row]) for row in range(4)], np.arange(0)
    job = TrainingJob(
        config, CPU, base.path, context.state, context.out, rows, steps, none, OwnWords
    )
    result = train(job, Group(torch.device("cpu")), lambda news: None)
    assert len(OwnWords.made) == result.counts["steps"] == 4
    assert result.counts["tokens"] == sum(map(len, OwnWords.made))
