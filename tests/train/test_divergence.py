"""On-policy divergence: its values and gradient, its teachers and their checks, and its resume."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradients import CPU, WAYS, _Student, token_rows, toy_model
from torch.distributions import Categorical, kl_divergence

import toys
from completions import CompletionsServer
from spyhop.models import Endpoint, Local, ModelUse, Remote, Service
from spyhop.models.folder import load_tokenizer
from spyhop.models.local import LocalBackend
from spyhop.render import TURNS, Renderer
from spyhop.schema import TrainingError
from spyhop.store import Artifact, Source
from spyhop.train import (
    DivergenceConfig,
    HeldOutConfig,
    OptimizerConfig,
    TuneConfig,
    read_metrics,
    tune,
)
from spyhop.train.base import save
from spyhop.train.distributed import Group
from spyhop.train.divergence import Divergence, sampled_losses, token_losses, with_rest
from spyhop.train.engine import Engine, TrainingResult

KINDS = ("reverse", "forward", "jensen_shannon")
SIZE = 500


def _divergence(kind: str, p: Any, q: Any) -> torch.Tensor:
    """By PyTorch's own distributions."""
    ours, theirs = Categorical(probs=p), Categorical(probs=q)
    if kind == "reverse":
        return kl_divergence(ours, theirs)
    if kind == "forward":
        return kl_divergence(theirs, ours)
    mixture = Categorical(probs=(p + q) / 2)
    return (kl_divergence(ours, mixture) + kl_divergence(theirs, mixture)) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_the_divergence(kind: Any):
    source = torch.Generator().manual_seed(1)
    for size in (2, 5, 40):
        logits, other = torch.randn((2, size), generator=source, dtype=torch.float64) * 2
        logits.requires_grad_()
        ours, theirs = logits.log_softmax(-1), other.log_softmax(-1)
        wanted = _divergence(kind, ours.exp(), theirs.exp())
        (slope,) = torch.autograd.grad(wanted, logits, retain_graph=True)
        losses = token_losses(kind, ours, theirs)
        assert (losses >= -1e-15).all() and losses.sum().item() == pytest.approx(wanted.item())
        (found,) = torch.autograd.grad(losses.sum(), logits, retain_graph=True)
        assert found == pytest.approx(slope, abs=1e-12)
        # A sampled token gives both in expectation: the mean over all tokens by their probability.
        mean = (ours.exp().detach() * sampled_losses(kind, ours, theirs)).sum()
        assert mean.item() == pytest.approx(wanted.item())
        (found,) = torch.autograd.grad(mean, logits, retain_graph=True)
        assert found == pytest.approx(slope, abs=1e-12)
        likely = theirs.topk(max(1, size // 2)).indices
        coarse = [with_rest(each[None, likely]) for each in (ours, theirs)]
        assert torch.logsumexp(coarse[0], -1).item() == pytest.approx(0, abs=1e-12)
        assert 0 <= token_losses(kind, *coarse).sum().item() <= wanted.item() + 1e-12
        for same in (token_losses(kind, ours, ours.detach()), sampled_losses(kind, ours, ours)):
            (found,) = torch.autograd.grad(same.sum(), logits, retain_graph=True)
            assert same.abs().max() == 0 and found.abs().max() < 1e-15


class _Scorer:
    """Another toy model, that reads one sequence at a time."""

    num_tokens = SIZE

    def __init__(self) -> None:
        self.model = toy_model(torch.float64)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.mul_(0.8)

    def logs(self, sequence: Any) -> torch.Tensor:
        return _logs(self.model, sequence)

    def score(self, sequences: Any, top_k: int | None) -> Any:
        found = []
        for each in sequences:
            with torch.no_grad():
                logs = self.logs(each)
            labels = torch.from_numpy(each.ids[each.weights].astype(np.int64))[:, None]
            ids = labels if top_k is None else logs.topk(top_k).indices
            found.append((ids.numpy(), logs.gather(1, ids).numpy()))
        return found


def _logs(model: Any, sequence: Any) -> torch.Tensor:
    """Distributions at the places before each supervised token."""
    ids = torch.from_numpy(sequence.ids.astype(np.int64))[None]
    logits = model(input_ids=ids).logits[0, :-1]
    return logits[torch.from_numpy(sequence.weights[1:].copy())].log_softmax(-1)


def _reference_loss(how: DivergenceConfig, model: Any, scorer: _Scorer, sequences: Any) -> Any:
    total, num = torch.zeros((), dtype=torch.float64), 0
    for each in sequences:
        ours, theirs = _logs(model, each), scorer.logs(each).detach()
        num += len(ours)
        if how.top_k is None:  # the reward is how much likelier the teacher finds the token
            labels = torch.from_numpy(each.ids[each.weights].astype(np.int64))[:, None]
            own, other = ours.gather(1, labels), theirs.gather(1, labels)
            total = total - ((other - own).detach() * own).sum()
            continue
        likely = theirs.topk(how.top_k).indices
        kept = [torch.cat([part := each.exp().gather(1, likely), 1 - part.sum(1, keepdim=True)], 1)
                for each in (ours, theirs)]  # fmt: skip
        total = total + _divergence(how.divergence, *(kept if how.top_k < SIZE else
                                    (ours.exp(), theirs.exp()))).sum()  # fmt: skip
    return total / num


@pytest.mark.parametrize("way", ["1 x 8", "8 x 1", "packed in parts"])
@pytest.mark.parametrize(
    ("kind", "top_k"),
    [
        ("reverse", None),
        ("reverse", SIZE),
        ("forward", SIZE),
        ("jensen_shannon", 7),
        ("forward", 7),
    ],
)
def test_the_gradient_is_that_of_a_plain_reference_however_a_batch_is_cut(
    kind: Any, top_k: int | None, way: str, words: Any
):
    how = DivergenceConfig(divergence=kind, top_k=top_k, max_new_tokens=9)
    model, scorer = toy_model(torch.float64), _Scorer()
    rows = replace(token_rows(), splits=np.zeros(8, np.int32))
    objective = Divergence(
        rows, config=how, teacher=scorer, renderer=Renderer(words, TURNS), runtime=CPU,
        is_half=False,
    )  # fmt: skip
    engine = Engine(
        objective, _Student(model), Group(torch.device("cpu")), CPU.model_copy(update=WAYS[way]),  # type: ignore[arg-type]
        TrainingResult(), precision="float32", longest=60,
    )  # fmt: skip
    torch.manual_seed(3)
    model.train()
    made = objective.begin_step(np.arange(8), model)
    assert model.training and all(each.weights.sum() <= 9 for each in objective.sequences)
    _, num, metrics = engine.gradient(made)
    assert num == sum(each.weights.sum() for each in objective.sequences)
    assert metrics.keys() == ({"log_ratio"} if top_k is None else {"teacher_mass"})
    found = torch.cat([p.grad.flatten() for p in model.parameters()])
    other = toy_model(torch.float64)
    _reference_loss(how, other, scorer, objective.sequences).backward()
    wanted = torch.cat([p.grad.flatten() for p in other.parameters()])
    assert float((found - wanted).norm() / wanted.norm()) < 1e-9


def _config(**changes: Any) -> TuneConfig:
    how = {"divergence": "reverse", "max_new_tokens": 12, **changes.pop("objective", {})}
    given = {
        "epochs": 4.0, "batch_tokens": 200, "max_tokens": 90, "objective": how,
        "optimizer": OptimizerConfig(learning_rate=3e-3, warmup_steps=2), **changes,
    }  # fmt: skip
    return TuneConfig.model_validate(given)


def _prompts(root: Path, num: int = 24) -> dict[str, Artifact]:
    rows = [toys.answer_row(n, f"say {n}", "unread") for n in range(num)]
    return {"asked": toys.artifact_of(root, rows)}


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Artifact:
    return Source(tiny_folder).open(tmp_path)


@pytest.fixture
def teacher(words: Any, tmp_path: Path) -> Artifact:
    """Another model of the same tokenizer; its embeddings are padded to a larger size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(9)
    shape = LlamaConfig(
        vocab_size=len(words) + 23, hidden_size=48, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=96,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, bos_token_id=None,
        initializer_range=0.2,
    )  # fmt: skip
    (tmp_path / "teacher").mkdir()
    save(tmp_path / "teacher", LlamaForCausalLM(shape), words, TURNS)
    return Source(tmp_path / "teacher").open(tmp_path)


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ({}, {"precision": "bfloat16"}),
        ({"divergence": "jensen_shannon", "top_k": 8}, {"adapter": {"rank": 2, "alpha": 4}}),
        ({"divergence": "forward"}, {"packing": "on"}),
    ],
)
def test_a_student_that_is_its_teacher_has_no_loss(
    tmp_path: Path, base: Artifact, objective: dict[str, Any], changes: dict[str, Any]
):
    runtime = CPU.model_copy(update={"packing": changes.pop("packing", "auto")})
    how = _config(objective=objective, epochs=1.0, **changes)
    made = tune.run(tmp_path, how, runtime=runtime, base=base, answers=_prompts(tmp_path))
    assert set(read_metrics(made)["losses"]) == {0.0}
    assert made.record.counts["rows/read"] == 24


@pytest.mark.parametrize("objective", [{}, {"divergence": "forward", "top_k": 20}])
def test_a_student_comes_closer_to_its_teacher(
    tmp_path: Path, base: Artifact, teacher: Artifact, objective: dict[str, Any]
):
    how = _config(objective=objective, epochs=12.0, held_out=HeldOutConfig(frac=0.3, times=3))
    made = tune.run(
        tmp_path, how, runtime=CPU, base=base, answers=_prompts(tmp_path, 60), teacher=teacher
    )
    held_out = [loss for _, loss in read_metrics(made)["held_out"]]
    assert held_out[0] > 0.1 and held_out[-1] < 0.8 * held_out[0]
    counts = made.record.counts
    assert counts["answered_by/a teacher's weights"] == 42
    assert made.record.usage == {"prompt_tokens": counts["tokens"]}  # read by the teacher


def test_context_distillation_learns_what_a_system_message_says(tmp_path: Path, base: Artifact):
    context = {"system": "Zzz! zzz! zzz!", "shots": [["say 5", "zzz"]], "top_k": 50}
    how = _config(objective=context, epochs=12.0, held_out=HeldOutConfig(frac=0.3, times=3))
    made = tune.run(tmp_path, how, runtime=CPU, base=base, answers=_prompts(tmp_path, 60))
    held_out = [loss for _, loss in read_metrics(made)["held_out"]]
    assert held_out[0] > 1e-3 and held_out[-1] < 0.8 * held_out[0]


def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, base: Artifact, teacher: Artifact
):
    how = _config(objective={"top_k": 5}, dropout=0.0, held_out=HeldOutConfig(frac=0.2, times=4))
    given = {"base": base, "answers": _prompts(tmp_path), "teacher": teacher}
    runtime = CPU.model_copy(update={"checkpoint_s": 1e-9})
    whole = tune.run(tmp_path / "whole", how, runtime=runtime, **given)
    for stop in (3, 7):

        def dies(progress: Any, stop: int = stop) -> None:
            if progress.doing == "training" and progress.done >= stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tune.run(tmp_path / "killed", how, runtime=runtime, report=dies, **given)
    made = tune.run(tmp_path / "killed", how, runtime=runtime, **given)
    assert made.digest == whole.digest and made.record.counts == whole.record.counts


class _Server(CompletionsServer):
    """Gives `prompt_logprobs`, perhaps with a fault."""

    fault = ""

    def _reply(self, body: Any) -> Any:
        reply = super()._reply(body)
        reply = json.loads(json.dumps(reply))
        for place in filter(None, reply["choices"][0].get("prompt_logprobs") or []):
            for each in place.values():
                each["logprob"] += 0.1 * len(self.bodies) if self.fault == "drift" else 0
                each["logprob"] = -3.0 if self.fault == "constant" else each["logprob"]
                if self.fault == "vocabulary":
                    each["decoded_token"] = f"{each['decoded_token']}x"
        return reply


@contextmanager
def _served(folder: Artifact, form: str = "prompt_logprobs", fault: str = "") -> Iterator[Any]:
    backend = Local(dtype="float32").connect(folder, CPU)
    assert isinstance(backend, LocalBackend)
    with _Server(backend, form) as server:
        server.fault = fault  # type: ignore[attr-defined]
        endpoint = Endpoint(url=server.url, api="completions", timeout_s=20)
        service = Service(endpoints=(endpoint,), max_attempts=1, patience_s=5)
        yield ModelUse(Remote(model="teacher"), service=service), server


@pytest.mark.parametrize("top_k", [None, 4])
def test_a_server_teaches_as_its_folder_does_and_is_asked_once(
    tmp_path: Path, base: Artifact, top_k: int | None
):
    how = _config(objective={"top_k": top_k}, epochs=2.0)
    rows = _prompts(tmp_path, 10)
    teacher = tune.run(
        tmp_path, TuneConfig(epochs=4.0, batch_tokens=200), runtime=CPU, base=base, answers=rows
    )
    local = tune.run(tmp_path, how, runtime=CPU, base=base, answers=rows, teacher=teacher)
    with _served(teacher) as (use, server):
        served = tune.run(tmp_path, how, runtime=CPU, base=base, answers=rows, teacher=use)
        num, steps = len(server.bodies), read_metrics(served)["steps"]
        again = tune.run(
            tmp_path, how, runtime=CPU, base=base, answers=rows, teacher=use, force=True
        )
        assert len(server.bodies) == num >= 2 + steps  # two probes; the rest is in the journal
    assert again.digest == served.digest
    one, two = (read_metrics(made)["losses"] for made in (local, served))
    assert one == pytest.approx(two, rel=1e-3, abs=1e-5) and sum(one) > 1e-3
    assert served.record.counts["answered_by/teacher"] == 10
    assert served.record.usage["requests"] == num


@pytest.mark.parametrize(
    ("form", "fault", "message"),
    [
        ("silent", "", "returns no `prompt_logprobs`"),
        ("prompt_logprobs", "drift", "two equal requests differ by 0.1"),
        ("prompt_logprobs", "vocabulary", "the student's is .*both models need one tokenizer"),
        ("prompt_logprobs", "constant", "the loss does not respond to the teacher"),
    ],
)
def test_a_server_that_cannot_teach_is_refused(
    tmp_path: Path, base: Artifact, form: str, fault: str, message: str
):
    with _served(base, form, fault) as (use, _), pytest.raises(Exception, match=message):
        tune.run(
            tmp_path, _config(), runtime=CPU, base=base, answers=_prompts(tmp_path), teacher=use
        )


def test_another_tokenizer_and_several_processes_are_refused(
    tmp_path: Path, base: Artifact, tiny_folder: Path
):
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_folder.iterdir():
        text = path.read_bytes()
        if path.name == "tokenizer.json":
            values = json.loads(text)
            vocab = values["model"]["vocab"]
            first, second = [key for key, token in vocab.items() if token in (70, 71)]
            vocab[first], vocab[second] = vocab[second], vocab[first]
            text = json.dumps(values).encode()
        (other / path.name).write_bytes(text)
    assert len(load_tokenizer(other)) == len(load_tokenizer(tiny_folder))
    rows = _prompts(tmp_path)
    with pytest.raises(TrainingError, match="token 70 is"):
        tune.run(
            tmp_path, _config(), runtime=CPU, base=base, answers=rows,
            teacher=Source(other).open(tmp_path),
        )  # fmt: skip
    two = CPU.model_copy(update={"gpus": 2})
    with pytest.raises(TrainingError, match="works in one process"):
        tune.run(tmp_path, _config(), runtime=two, base=base, answers=rows)


def test_prompts_that_leave_no_room_for_a_response_are_dropped(tmp_path: Path, base: Artifact):
    rows = [toys.answer_row(n, "long " * (3 * n + 1), "x") for n in range(6)]
    how = _config(epochs=1.0, max_tokens=60)
    made = tune.run(
        tmp_path, how, runtime=CPU, base=base, answers={"a": toys.artifact_of(tmp_path, rows)}
    )
    assert made.record.dropped["too_long"] > 0
    assert made.record.counts["rows/trained"] + made.record.dropped["too_long"] == 6
