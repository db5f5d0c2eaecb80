"""On-policy divergence: the student answers, and a teacher's probabilities correct each token.

Rows of the training are prompts. At each step the student samples a response to each of them, the
teacher scores it, and the loss is a divergence of the two models' distributions at the tokens of
the response. A response that reaches `max_new_tokens` counts, too: each token is compared given
those before it, so nothing of a cut response is imitated.

Sources: Agarwal et al. (arXiv:2306.13649); Gu et al. (arXiv:2306.08543) for the sampled form.

Shapes: N tokens of responses, V vocabulary, K tokens that are compared at each place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from spyhop.lazy import CausalLM, Tensor, torch
from spyhop.models import Model, Request, Sampling
from spyhop.models.calls import TokenLogprobs
from spyhop.models.decoding import Decoder
from spyhop.models.folder import load_tokenizer
from spyhop.models.forward import Forward, RecurrentForward
from spyhop.models.local import pick_device
from spyhop.render import Renderer
from spyhop.runtime import Runtime
from spyhop.schema import ModelError, TrainingError
from spyhop.train.base import open_student
from spyhop.train.batches import RowNumbers, split_microbatches
from spyhop.train.config import DivergenceConfig, TuneConfig
from spyhop.train.distributed import Group
from spyhop.train.engine import Engine, TrainingResult
from spyhop.train.objective import CrossEntropy, Head, Microbatch, TokenSequence
from spyhop.train.rows import TokenRows

Kind = Literal["reverse", "forward", "jensen_shannon"]
Scores = tuple[npt.NDArray[np.int64], npt.NDArray[np.floating[Any]]]
"""Token ids that are compared at each place of a response, and their log-probabilities, (T, K): the
response's own tokens, or the teacher's likeliest."""
PROBED_TOKENS = 256
"""Ids of the vocabulary, evenly spread, that a server is asked for."""
MOST_DRIFT = 0.01
"""Most that the log-probabilities of two equal requests may differ, in nats, as a mean."""


def token_losses(kind: Kind, ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the terms of a divergence for log-probabilities of the same tokens, as they are.

    Their sum over a distribution is the divergence. All are at least 0 and, with their gradient,
    exactly 0 where both models agree: p - q, which sums to 0, is added to those of KL.
    """
    p, q, log_ratio = ours.exp(), theirs.exp(), theirs - ours
    if kind == "reverse":
        return q - p - p * log_ratio
    if kind == "forward":
        return p - q + q * log_ratio
    to_mixture = _to_mixture(log_ratio)
    return 0.5 * (p * to_mixture + q * (log_ratio + to_mixture))


def sampled_losses(kind: Kind, ours: Tensor, theirs: Tensor) -> Tensor:
    """Return unbiased estimates of a divergence from the token that the student sampled, (N,).

    Their gradient is that of the divergence in expectation: the score function, weighted by
    f(r) - r f'(r) for the ratio r = q / p and the divergence's f, without its constant.
    """
    with torch.no_grad():
        values = token_losses(kind, ours, theirs) / ours.exp()
        log_ratio = theirs - ours
        if kind == "reverse":
            weights = -log_ratio
        elif kind == "forward":
            weights = -torch.expm1(log_ratio)
        else:
            weights = 0.5 * _to_mixture(log_ratio)
    return values + weights * (ours - ours.detach())


def _to_mixture(log_ratio: Tensor) -> Tensor:
    """Return log p - log of the mean of p and q, exactly 0 for equal ones."""
    softplus = torch.nn.functional.softplus
    return softplus(torch.zeros_like(log_ratio)) - softplus(log_ratio)


def with_rest(logs_NK: Tensor) -> Tensor:
    """Append the log-probability of all other tokens together, (N, K + 1)."""
    total_N = logs_NK.logsumexp(-1, keepdim=True).clamp(max=-torch.finfo(logs_NK.dtype).eps)
    return torch.cat([logs_NK, torch.log(-torch.expm1(total_N))], dim=-1)


@dataclass(eq=False)
class OwnResponses(CrossEntropy):
    """Sequences that are made while training runs; numbers of rows count those of the last step."""

    sequences: list[TokenSequence] = field(init=False, default_factory=list)

    def lengths(self, rows: RowNumbers) -> RowNumbers:
        """Return the number of tokens of each sequence."""
        return np.array([len(self.sequences[row].ids) for row in rows], dtype=np.int64)

    def num_terms(self, rows: RowNumbers) -> float:
        """Return the number of tokens of the responses."""
        return sum(int(self.sequences[row].weights.sum()) for row in rows)

    def collate(self, row: int) -> list[TokenSequence]:
        """Return the prompt and its response, which is supervised."""
        return [self.sequences[row]]


def num_shared_tokens(student: Path, folder: Path) -> int:
    """Return the number of ids, from 0 on, that the tokenizers of two folders both have.

    Raises:
        TrainingError: If one of them is another token there.
    """
    both = [load_tokenizer(each) for each in (student, folder)]
    num = min(map(len, both))
    for token in range(num):
        ours, theirs = (each.convert_ids_to_tokens(token) for each in both)
        if ours != theirs and None not in (ours, theirs):
            raise _mismatch(str(folder), token, ours, theirs)
    return num


def _mismatch(teacher: str, token: int, ours: str, theirs: str) -> TrainingError:
    return TrainingError(
        f"{teacher}: token {token} is {theirs!r:.40}, the student's is {ours!r:.40}; both models "
        "need one tokenizer: use another teacher, or train on its answers"
    )


class FolderTeacher:
    """A model in this process, on the student's device and in its precision.

    Sequences pass through it as they pass through the student, in the same microbatches: a teacher
    with the student's weights gives the student's own probabilities, bit by bit.
    """

    def __init__(
        self, folder: Path, student: Path, config: TuneConfig, runtime: Runtime, longest: int
    ) -> None:
        self.num_tokens = num_shared_tokens(student, folder)
        plain = config.model_copy(update={"adapter": None, "dropout": 0.0})
        loaded = open_student(folder, plain, pick_device(runtime.device))
        self._rows = OwnResponses()
        self._engine = Engine(
            self._rows, loaded, Group(pick_device(runtime.device)), runtime, TrainingResult(),
            precision=config.precision, longest=longest,
        )  # fmt: skip

    def score(self, sequences: Sequence[TokenSequence], top_k: int | None) -> list[Scores]:
        """Return the scores of each sequence's labels."""
        self._rows.sequences = list(sequences)
        found: dict[int, Scores] = {}
        for some, logs_NV in self._engine.log_softmaxes(np.arange(len(sequences)), self.num_tokens):
            labels = [sequences[row].ids[sequences[row].weights] for row in some.tolist()]
            if top_k is None:
                ids_NK = torch.from_numpy(np.concatenate(labels).astype(np.int64))[:, None]
                ids_NK = ids_NK.to(logs_NV.device)
            else:
                ids_NK = logs_NV.topk(min(top_k, self.num_tokens)).indices
            ends = np.cumsum([len(each) for each in labels])[:-1]
            values = [each.cpu().numpy() for each in (ids_NK, logs_NV.gather(1, ids_NK))]
            scores = zip(*(np.split(each, ends) for each in values), strict=True)
            found |= dict(zip(some.tolist(), scores, strict=True))
        return [found[row] for row in range(len(sequences))]


class ServedTeacher:
    """A server with `prompt_logprobs`; its replies are journaled, so a resumed run asks none twice.

    Raises:
        TrainingError: If ids are other tokens there, or equal requests have unequal replies.
    """

    def __init__(self, model: Model, student: Path, most_tokens: int) -> None:
        tokenizer = load_tokenizer(student)
        self._model, self.num_tokens = model, len(tokenizer)
        step = max(1, self.num_tokens // min(PROBED_TOKENS, most_tokens - 1))
        ids = tuple(range(0, self.num_tokens, step))[: most_tokens - 1]
        probes = [
            Request(id=f"probe-{n}", ids=ids[:1], scored_ids=ids[1:], sample_index=n)
            for n in (0, 1)
        ]
        first, second = self._ask(probes)
        for token, theirs in zip(ids[1:], first.texts, strict=True):
            ours = tokenizer.decode([token])
            if ours != theirs and "\ufffd" not in ours + theirs:  # part of a character
                raise _mismatch(model.label, token, ours, theirs)
        drift = float(np.abs(np.subtract(first.values, second.values)).mean())
        if not drift <= MOST_DRIFT:
            raise TrainingError(
                f"{model.label}: two equal requests differ by {drift:.3g} nats a token, more than "
                f"{MOST_DRIFT}; serve the model without quantised caches or speculation, or use a "
                "folder"
            )

    def score(self, sequences: Sequence[TokenSequence], top_k: int | None) -> list[Scores]:
        """Return the scores of each sequence's labels."""
        requests = [
            Request(
                id=str(n), ids=tuple(each.ids[np.logical_not(each.weights)].tolist()),
                scored_ids=tuple(each.ids[each.weights].tolist()), num_top=top_k or 0,
            )
            for n, each in enumerate(sequences)
        ]  # fmt: skip
        found: list[Scores] = []
        for request, reply in zip(requests, self._ask(requests), strict=True):
            pairs = [[pair] for pair in zip(request.scored_ids, reply.values, strict=True)]
            if top_k:
                known = (place.items() for place in reply.top)
                pairs = [[pair for pair in some if pair[0] < self.num_tokens] for some in known]
            if (fewest := min(map(len, pairs))) < (top_k or 1):
                raise TrainingError(
                    f"{self._model.label}: {fewest} of the top_k = {top_k} likeliest tokens; lower "
                    "objective.top_k, or raise the server's limit (--max-logprobs)"
                )
            ids_logs = np.array([some[: top_k or 1] for some in pairs])
            found.append((ids_logs[..., 0].astype(np.int64), ids_logs[..., 1].astype(np.float32)))
        return found

    def _ask(self, requests: Sequence[Request]) -> list[TokenLogprobs]:
        replies = list(self._model.logprobs(requests, total=len(requests)))
        if failed := next((each.error for each in replies if each.error), None):
            raise ModelError(f"{self._model.label}: {failed}; run again to resume")
        return replies


@dataclass(eq=False)
class Divergence(OwnResponses):
    """Mean divergence of the student from a teacher, over the tokens of the student's responses.

    With `top_k` it is that of the teacher's k likeliest tokens and of all others together, which is
    at most the whole one. Metrics, as means over tokens: `teacher_mass`, the probability that the
    teacher gives to these k; of the sampled form `log_ratio`, log p(student) - log p(teacher).
    """

    rows: TokenRows
    config: DivergenceConfig
    teacher: FolderTeacher | ServedTeacher
    renderer: Renderer
    runtime: Runtime
    is_half: bool
    _decoder: Decoder | None = None
    _is_proven: bool = False

    def begin_step(self, rows: RowNumbers, model: Any) -> RowNumbers:  # noqa: ANN401
        """Sample a response to each prompt and have it scored; return the sequences' numbers.

        Randomness comes from PyTorch's generator, whose state is in every checkpoint.
        """
        whole = [self.rows.row(row)[0] for row in rows.tolist()]
        splits = self.rows.splits[rows].tolist()
        asked = [ids[: split or None] for ids, split in zip(whole, splits, strict=True)]
        read = [ids[split:] for ids, split in zip(whole, splits, strict=True)]
        responses = self._respond(model, [ids.tolist() for ids in asked])
        own, other = (
            [_sequence(*each) for each in zip(prompts, responses, strict=True)]
            for prompts in (asked, read)
        )
        scores = self.teacher.score(other, self.config.top_k)
        self.sequences = [
            each._replace(extra={"ids": ids, "logs": logs})
            for each, (ids, logs) in zip(own, scores, strict=True)
        ]
        return np.arange(len(own))

    def _respond(self, model: Any, prompts: list[list[int]]) -> list[list[int]]:  # noqa: ANN401
        """Return sampled ids with their end token, or cut at the longest response.

        An id that the teacher lacks, of padded embeddings, counts as the end.
        """
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        end = self.renderer.end_id
        if self._decoder is None:
            kind = RecurrentForward if getattr(causal, "_is_stateful", False) else Forward
            self._decoder = Decoder(kind(causal, end), {end}, self.renderer.decode)
        seed = int(torch.randint(2**62, ()))
        most = self.config.max_new_tokens
        lengths = np.array([len(prompt) + most for prompt in prompts])
        found: list[list[int]] = [[] for _ in prompts]
        was_training = causal.training
        causal.eval()
        for some in split_microbatches(
            np.arange(len(prompts)), lengths, self.runtime.inference_tokens
        ):
            randoms = [np.random.default_rng([seed, row]) for row in some.tolist()]
            with torch.autocast(causal.device.type, torch.bfloat16, enabled=self.is_half):
                said = self._decoder.decode(
                    [prompts[row] for row in some], randoms,
                    Sampling(max_new_tokens=most, temperature=1.0),
                )  # fmt: skip
            for row, (ids, is_cut) in zip(some.tolist(), said, strict=True):
                known = list(takewhile(lambda token: token < self.teacher.num_tokens, ids))
                found[row] = known if is_cut and len(known) == len(ids) else [*known, end]
        causal.train(was_training)
        return found

    def loss(
        self, model: CausalLM, microbatch: Microbatch, scale: float, head: Head
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the scaled sum of the tokens' divergences, and of its metric.

        Raises:
            TrainingError: If the loss is the same with the teacher's values in another order.
        """
        logs_NV = head.log_softmax(model, microbatch, self.teacher.num_tokens)
        theirs_NK = microbatch.extra_N["logs"].to(logs_NV.dtype)
        ours_NK = logs_NV.gather(1, microbatch.extra_N["ids"])
        losses_N = self._losses(ours_NK, theirs_NK)
        if not self._is_proven and len(microbatch.labels_N.unique()) > 1:
            if torch.equal(losses_N, self._losses(ours_NK, theirs_NK.flip(0))):
                raise TrainingError(
                    "the loss does not respond to the teacher: it gives every token the same "
                    "log-probability; check the server with another tool, or use a folder"
                )
            self._is_proven = True
        metrics = {"teacher_mass": theirs_NK.exp()}
        if self.config.top_k is None:
            metrics = {"log_ratio": ours_NK.detach() - theirs_NK}
        return scale * losses_N.sum(), {name: scale * each.sum() for name, each in metrics.items()}

    def _losses(self, ours_NK: Tensor, theirs_NK: Tensor) -> Tensor:
        kind = self.config.divergence
        if self.config.top_k is None:
            return sampled_losses(kind, ours_NK[:, 0], theirs_NK[:, 0])
        if ours_NK.shape[1] < self.teacher.num_tokens:
            ours_NK, theirs_NK = with_rest(ours_NK), with_rest(theirs_NK)
        return token_losses(kind, ours_NK, theirs_NK).sum(-1)


def _sequence(prompt: npt.NDArray[np.int32], response: Sequence[int]) -> TokenSequence:
    ids = np.concatenate([prompt, np.array(response, dtype=np.int32)])
    return TokenSequence(ids, np.arange(len(ids)) >= len(prompt))
