"""Weights in process: any Hugging Face causal language model in a folder, in batches.

Prompts that begin alike or are of similar length share a batch, and finished rows leave it. Each
request has its own source of randomness, so a reply does not depend on the other rows of the batch
(up to float rounding).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from spyhop.lazy import torch
from spyhop.models.base import Backend, ModelConfig
from spyhop.models.batching import BatchLimits, plan_batches
from spyhop.models.calls import Choice, Kind, Reply, Request, Sampling, TokenLogprobs, scored_choice
from spyhop.models.decoding import Decoder, before_stop, own_generator
from spyhop.models.encoding import (
    Scored,
    encode_alone,
    encode_continuations,
    encode_options,
    encode_prompts,
)
from spyhop.models.folder import load_model, load_tokenizer, read_config
from spyhop.models.forward import Forward, RecurrentForward, prepack
from spyhop.models.scoring import Scorer
from spyhop.render import ORCA, ChatFormat, FormatName, Renderer, named_format, read_format
from spyhop.runtime import Runtime
from spyhop.schema import ModelError, RecipeError
from spyhop.store import Artifact

Dtype = Literal["auto", "float32", "bfloat16"]
FORMAT_FILE = "spyhop.json"
"""Beside the weights: the format that the model was trained in."""
EXPECTED_NEW_TOKENS = 128
"""Room for a response when batches are planned; it affects memory only."""
SCORED_TOKENS = 512
"""Tokens that are scored together on a processor: its caches hold what a layer makes of them."""
SCORED_BYTES = 128 << 20
"""Memory for logits that are made together, in float32."""


class Local(ModelConfig):
    """A model folder: a checkpoint of ours, or any Hugging Face causal language model."""

    version: ClassVar[int] = 6
    needs: ClassVar[str] = "local"
    kind: Literal["local"] = "local"
    name: str = "local model"
    """Display name; not part of the model's identity."""
    dtype: Dtype = "auto"
    """`auto` is `bfloat16` where the folder's config says that its weights are stored so, else
    `float32`. The folder is part of the model's identity, and so is what `auto` means."""
    format: FormatName = "saved"
    """`saved` is the one that the folder names, else its chat template, else Orca's blocks."""
    subfolder: str = ""
    """Subfolder that holds the model, such as a training snapshot."""

    def connect(self, folder: Artifact | None, runtime: Runtime) -> Backend:
        """Load tokenizer and weights."""
        if folder is None:
            raise ModelError("a local model needs its folder")
        torch.set_num_threads(runtime.threads)
        path = folder.path / self.subfolder
        tokenizer, model = load(path, pick_dtype(self.dtype, path), pick_device(runtime.device))
        prepack(model)
        chat_format = pick_format(self.format, path, tokenizer)
        renderer = Renderer(tokenizer, chat_format)
        return LocalBackend(model, renderer, runtime.inference_tokens)


TRAINING_FILE = "metrics.json"
"""Beside the weights of a training of ours, which are float32 whatever it computed in."""


def pick_device(device: str) -> torch.device:
    """Return the device of that name; `auto` is the first GPU, else the processor."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise RecipeError(f"runtime.device = {device!r}: PyTorch finds no such GPU here")
    return found


def pick_dtype(name: Dtype, folder: Path) -> torch.dtype:
    """Return the precision of that name.

    `auto` is the one that a model was trained in; else `bfloat16` for a folder that is stored so.
    """
    if name == "auto":
        training = folder / TRAINING_FILE
        found = json.loads(training.read_bytes()) if training.is_file() else {}
        stored = found.get("precision") or str(read_config(folder).dtype)
        name = "bfloat16" if stored.endswith("bfloat16") else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def pick_format(name: str, folder: Path, tokenizer: Any) -> ChatFormat:  # noqa: ANN401 (transformers' type)
    """Return the format of that name for a model's folder; `saved` is the folder's own."""
    return saved_format(folder, tokenizer) if name == "saved" else named_format(name, tokenizer)


def saved_format(folder: Path, tokenizer: Any) -> ChatFormat:  # noqa: ANN401 (transformers' type)
    """Return the saved chat format: our own file's, else the chat template, else Orca's blocks.

    So a model from elsewhere is asked, and trained further, as its makers meant it.
    """
    path = folder / FORMAT_FILE
    if path.is_file():
        return read_format(json.loads(path.read_text())["format"])
    return named_format("chat", tokenizer) if tokenizer.chat_template else ORCA


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """Return (tokenizer, model) of a Hugging Face folder; nothing is fetched and no code is run."""
    return load_tokenizer(folder), load_model(folder, dtype).to(device).eval()


@dataclass(frozen=True, slots=True)
class _Planned:
    """A request as token ids, and how many of them its batch shares."""

    request: Request
    ids: Scored
    num_shared: int = 0


class LocalBackend:
    """Answers and scores in batches, which are planned from all requests of a call."""

    def __init__(self, model: Any, renderer: Renderer, inference_tokens: int) -> None:  # noqa: ANN401
        self.model = model
        self.renderer = renderer
        self._defaults = getattr(model, "generation_config", None)
        ends = getattr(self._defaults, "eos_token_id", None)
        listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self.end_ids = {renderer.end_id, int(renderer.tokenizer.eos_token_id), *map(int, listed)}
        """End of turn of the chat format, the tokenizer's end token, the generation config's."""
        kind = RecurrentForward if getattr(model, "_is_stateful", False) else Forward
        self._forward = forward = kind(model, renderer.end_id)
        self._limit = forward.limit
        places = max(1, SCORED_BYTES // (4 * forward.vocabulary))
        self._limits = BatchLimits(inference_tokens, places, forward.shared_limit)
        most = SCORED_TOKENS if model.device.type == "cpu" else inference_tokens
        self._scored_limits = self._limits._replace(tokens=min(most, inference_tokens))
        self._scorer = Scorer(forward, self._scored_limits)
        self._decoder = Decoder(forward, self.end_ids, renderer.decode)
        self._planned: dict[int, _Planned] = {}
        """Requests of the last plan, by the identity of the object."""

    def batches(self, requests: Sequence[Request], kind: Kind) -> list[list[Request]]:
        """Group by common beginning, sort by length, longest first, and cut by memory."""
        encoded = self._encode(requests, kind)
        num_new = EXPECTED_NEW_TOKENS if kind == "generate" else 0
        groups = plan_batches(
            [each.prompt for each in encoded],
            [each.longest + num_new for each in encoded],
            self._limits if num_new else self._scored_limits,
            None if num_new else [each.size for each in encoded],
        )
        self._planned = {
            id(requests[row]): _Planned(requests[row], encoded[row], num_shared)
            for num_shared, rows in groups
            for row in rows
        }
        return [[requests[row] for row in rows] for _, rows in groups]

    def _encode(self, requests: Sequence[Request], kind: Kind) -> list[Scored]:
        if kind == "choose":
            return encode_options(self.renderer, requests)
        if kind == "logprobs":
            return encode_continuations(self.renderer, requests)
        return [Scored(ids, []) for ids in encode_prompts(self.renderer, requests)]

    def _take(self, batch: Sequence[Request], kind: Kind) -> tuple[list[Scored], int]:
        """Return the ids of a batch, and how many tokens all its prompts begin with."""
        found = [self._planned.get(id(request)) for request in batch]
        known = [p for p, r in zip(found, batch, strict=True) if p and p.request is r]
        if len(known) < len(batch):
            return self._encode(batch, kind), 0
        return [each.ids for each in known], min(each.num_shared for each in known)

    def listen(self, on_text: Callable[[str], bool]) -> None:
        """Have the text of a response shown while it is written, where a batch has one request."""
        self._decoder.on_text = on_text

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """Answer one batch; a prompt that fills the model's context is a reply with an error."""
        sampling = self._resolved(sampling)
        encoded, num_shared = self._take(batch, "generate")
        prompts = [each.prompt for each in encoded]
        if max(map(len, prompts)) + sampling.max_new_tokens > self._forward.shared_limit:
            num_shared = 0
        fits = [row for row, prompt in enumerate(prompts) if len(prompt) < self._limit]
        generators = [own_generator(batch[row], sampling) for row in fits]
        texts = self._decoder.decode(
            [prompts[row] for row in fits], generators, sampling, num_shared
        )
        answers = dict(zip(fits, texts, strict=True))
        replies = []
        for row, (request, prompt) in enumerate(zip(batch, prompts, strict=True)):
            if row not in answers:
                error = self._too_long(len(prompt) + 1)
                replies.append(Reply(id=request.id, text="", finish_reason="error", error=error))
                continue
            ids, is_cut = answers[row]
            reply = Reply(
                id=request.id,
                text=before_stop(self.renderer.decode(ids), sampling.stop),
                finish_reason="length" if is_cut else "stop",
                prompt_tokens=len(prompt),
                response_tokens=len(ids) + (not is_cut),
            )
            replies.append(reply)
        return replies

    def _resolved(self, sampling: Sampling) -> Sampling:
        """Return the sampling with the model's own defaults where the temperature is unset."""
        if sampling.temperature != "unset":
            return sampling
        is_sampled = bool(getattr(self._defaults, "do_sample", False))
        temperature = getattr(self._defaults, "temperature", None) or 1.0
        top_p = getattr(self._defaults, "top_p", None) or 1.0
        return sampling.model_copy(
            update={"temperature": temperature if is_sampled else 0.0, "top_p": top_p, "seed": 0}
        )

    def choose(self, batch: Sequence[Request]) -> list[Choice]:
        """Score every option of each request; a request that does not fit is an error."""
        texts = sorted(
            {o for request in batch if request.with_unconditional for o in request.options}
        )
        alone: dict[str, float] = {}
        if texts:
            (found,) = self._scorer.score([encode_alone(self.renderer, texts)])
            alone = dict(zip(texts, map(math.fsum, found), strict=True))
        return [
            scored_choice(request, found, len(each.prompt), alone=alone)
            if found
            else Choice(id=request.id, probabilities=[], error=self._too_long(each.longest))
            for request, each, found in self._score(batch, "choose")
        ]

    def logprobs(self, batch: Sequence[Request]) -> list[TokenLogprobs]:
        """Score the continuation of each request as a whole response, end token included."""
        return [
            TokenLogprobs(
                id=request.id,
                values=found[0] if found else [],
                prompt_tokens=len(each.prompt),
                error=None if found else self._too_long(each.longest),
            )
            for request, each, found in self._score(batch, "logprobs")
        ]

    def _score(
        self, batch: Sequence[Request], kind: Kind
    ) -> Iterator[tuple[Request, Scored, list[list[float]]]]:
        """Yield requests, ids and the values of each option's tokens; none if it does not fit."""
        encoded, num_shared = self._take(batch, kind)
        fits = [each for each in encoded if each.longest <= self._limit]
        found = iter(self._scorer.score(fits, num_shared) if fits else [])
        for request, each in zip(batch, encoded, strict=True):
            yield request, each, next(found) if each.longest <= self._limit else []

    def _too_long(self, num_tokens: int) -> str:
        return f"{num_tokens} tokens do not fit the model's context of {self._limit}"
