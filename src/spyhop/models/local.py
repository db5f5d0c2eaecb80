"""Weights in process: any Hugging Face causal language model in a folder, in batches.

Prompts of similar length share a batch and finished rows leave it. Each request has its own source
of randomness, so a reply does not depend on the other rows of the batch (up to float rounding).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from spyhop.lazy import Lazy
from spyhop.models.base import Backend, ModelConfig
from spyhop.models.calls import Choice, Reply, Request, Sampling, TokenLogprobs
from spyhop.models.encoding import encode_continuations, encode_options, encode_prompts
from spyhop.models.folder import load_model, load_tokenizer
from spyhop.render import ORCA, ChatFormat, FormatName, Renderer, named_format, read_format
from spyhop.runtime import Runtime
from spyhop.schema import ModelError, RecipeError
from spyhop.store import Artifact, canonical

if TYPE_CHECKING:
    import safetensors
    import torch
    import transformers
    from torch import Tensor
else:
    safetensors = Lazy("safetensors")
    torch = Lazy("torch")
    transformers = Lazy("transformers")

FORMAT_FILE = "spyhop.json"
"""Beside the weights: the format that the model was trained in."""
EXPECTED_NEW_TOKENS = 128
"""Room for a response when batches are planned; it affects memory only."""
STOP_TAIL = 8
"""Tokens decoded before a stop text, since the first one may be half a character."""
SCORED_BYTES = 64 << 20
"""Memory for the logits of continuations scored together, in float32."""


class Local(ModelConfig):
    """A model folder: a checkpoint of ours, or any Hugging Face causal language model."""

    version: ClassVar[int] = 4
    kind: Literal["local"] = "local"
    name: str = "local model"
    """Display name; not part of the model's identity."""
    dtype: Literal["float32", "bfloat16"] = "float32"
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
        tokenizer, model = load(path, getattr(torch, self.dtype), pick_device(runtime.device))
        chat_format = pick_format(self.format, path, tokenizer)
        renderer = Renderer(tokenizer, chat_format)
        is_recurrent = getattr(model, "_is_stateful", False)
        backend = RecurrentBackend if is_recurrent else LocalBackend
        return backend(model, renderer, runtime.inference_tokens)

    @property
    def label(self) -> str:
        """Return the given name."""
        return self.name


def pick_device(device: str) -> torch.device:
    """Return the device of that name; `auto` is the first GPU, else the processor."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise RecipeError(f"runtime.device = {device!r}: PyTorch finds no such GPU here")
    return found


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
    """Return (tokenizer, model) of a Hugging Face folder; nothing is fetched and no code is run.

    Raises:
        ModelError: If the folder is not a model.
    """
    tokenizer, model = load_tokenizer(folder), load_model(folder, dtype)
    model.to(device)
    model.eval()
    return tokenizer, model


class LocalBackend:
    """Batched decoding with a key-value cache; left-padded, greedy or sampled."""

    def __init__(self, model: Any, renderer: Renderer, inference_tokens: int) -> None:  # noqa: ANN401
        self.model = model
        self.renderer = renderer
        self._inference_tokens = inference_tokens
        self._takes = set(inspect.signature(model.forward).parameters)
        self._limit = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)
        self._defaults = getattr(model, "generation_config", None)
        ends = getattr(self._defaults, "eos_token_id", None)
        listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self.end_ids = {renderer.end_id, int(renderer.tokenizer.eos_token_id), *map(int, listed)}
        """End of turn of the chat format, the tokenizer's end token, the generation config's."""

    def batches(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Sort by length, longest first, and cut at `inference_tokens` padded tokens."""
        prompts = encode_prompts(self.renderer, requests)
        lengths = {r.id: len(prompt) for r, prompt in zip(requests, prompts, strict=True)}
        order = sorted(requests, key=lambda r: (-lengths[r.id], r.id))
        batches: list[list[Request]] = []
        room = 0
        for request in order:
            if room < 1:
                width = lengths[request.id] + EXPECTED_NEW_TOKENS
                room = max(1, self._inference_tokens // width)
                batches.append([])
            batches[-1].append(request)
            room -= 1
        return batches

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """Answer one batch; a prompt that fills the model's context is a reply with an error."""
        sampling = self._resolved(sampling)
        prompts = encode_prompts(self.renderer, batch)
        fits = [row for row, prompt in enumerate(prompts) if len(prompt) < self._limit]
        texts = self._decode(
            [prompts[row] for row in fits],
            [_generator(batch[row], sampling) for row in fits],
            sampling,
        )
        answers = dict(zip(fits, texts, strict=True))
        return [
            self._reply(request, prompt, answers.get(row), sampling)
            for row, (request, prompt) in enumerate(zip(batch, prompts, strict=True))
        ]

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
        """Score options by their total log-probability after one prefill of each prompt."""
        scored = encode_options(self.renderer, batch)
        prompts, options = [each.prompt for each in scored], [each.options for each in scored]
        longest = max(each.longest for each in scored)
        if longest > self._limit:
            return [
                self._choose_alone(r, p, o) for r, p, o in zip(batch, prompts, options, strict=True)
            ]
        logprobs = self._option_logprobs(prompts, options)
        return [_choice(r, len(p), row) for r, p, row in zip(batch, prompts, logprobs, strict=True)]

    def logprobs(self, batch: Sequence[Request]) -> list[TokenLogprobs]:
        """Score the continuation of each request as a whole response, end token included."""
        scored = encode_continuations(self.renderer, batch)
        prompts, options = [each.prompt for each in scored], [each.options[0] for each in scored]
        lengths = [len(p) + len(o) for p, o in zip(prompts, options, strict=True)]
        values: list[list[float]] = [[] for _ in batch]
        for rows in self._scored_together(lengths, list(map(len, options))):
            some = self._option_logprobs([prompts[n] for n in rows], [[options[n]] for n in rows])
            for row, (found,) in zip(rows, some, strict=True):
                values[row] = found
        return [
            TokenLogprobs(
                id=request.id,
                values=values[row],
                prompt_tokens=len(prompts[row]),
                error=self._too_long(lengths[row]) if lengths[row] > self._limit else None,
            )
            for row, request in enumerate(batch)
        ]

    def _scored_together(self, lengths: list[int], widths: list[int]) -> Iterator[list[int]]:
        """Yield the rows that fit, a few at a time: their logits are held at once."""
        vocabulary = int(self.model.get_input_embeddings().num_embeddings)
        some: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: widths[row]):
            if lengths[row] > self._limit:
                continue
            if some and (len(some) + 1) * widths[row] * vocabulary * 4 > SCORED_BYTES:
                yield some
                some = []
            some.append(row)
        if some:
            yield some

    def _choose_alone(
        self, request: Request, prompt: list[int], options: list[list[int]]
    ) -> Choice:
        longest = len(prompt) + max(map(len, options))
        if longest > self._limit:
            return Choice(id=request.id, probabilities=[], error=self._too_long(longest))
        (found,) = self._option_logprobs([prompt], [options])
        return _choice(request, len(prompt), found)

    def _option_logprobs(
        self, prompts: list[list[int]], options: list[list[list[int]]]
    ) -> list[list[list[float]]]:
        """Return the log-probability of each token of each option of each prompt."""
        num_options, width = max(map(len, options)), max(len(o) for some in options for o in some)
        logits_BV, cache, mask_BT = self._prefill(prompts)
        tokens_BKL = np.zeros((len(prompts), num_options, width), dtype=np.int64)
        is_real_BKL = np.zeros_like(tokens_BKL, dtype=bool)
        for row, some in enumerate(options):
            for column, option in enumerate(some):
                tokens_BKL[row, column, : len(option)] = option
                is_real_BKL[row, column, : len(option)] = True
        tokens = torch.from_numpy(tokens_BKL).to(self.model.device)
        is_real = torch.from_numpy(is_real_BKL).to(self.model.device)
        found_BKL = logits_BV.float().log_softmax(-1).gather(1, tokens[:, :, 0])[:, :, None]
        if width > 1:
            cache.batch_repeat_interleave(num_options)
            flat, real = tokens.flatten(0, 1), is_real.flatten(0, 1)
            mask = torch.cat([mask_BT.repeat_interleave(num_options, 0), real[:, :-1].long()], 1)
            logits = self._forward(flat[:, :-1], mask, cache, keep=width - 1).logits
            rest = logits.float().log_softmax(-1).gather(2, flat[:, 1:, None]).squeeze(2)
            found_BKL = torch.cat([found_BKL, rest.view(len(prompts), num_options, -1)], dim=2)
        return [
            [values[: len(option)] for values, option in zip(row, some, strict=False)]
            for row, some in zip(found_BKL.tolist(), options, strict=True)
        ]

    def _decode(
        self, prompts: list[list[int]], generators: list[Any], sampling: Sampling
    ) -> list[tuple[list[int], bool]]:
        """Return (ids, is cut) of each prompt's response, without its end token."""
        if not prompts:
            return []
        rooms = [min(sampling.max_new_tokens, self._limit - len(prompt)) for prompt in prompts]
        outputs: list[list[int]] = [[] for _ in prompts]
        has_ended = [False] * len(prompts)
        logits_BV, cache, mask_BT = self._prefill(prompts)
        rows = list(range(len(prompts)))
        while True:
            picked = _pick(logits_BV, [generators[row] for row in rows], sampling).tolist()
            for row, token in zip(rows, picked, strict=True):
                if has_ended[row] or len(outputs[row]) == rooms[row]:
                    continue
                if token in self.end_ids:
                    has_ended[row] = True
                    continue
                outputs[row].append(token)
                has_ended[row] = bool(sampling.stop) and self._is_stopped(outputs[row], sampling)
            live = [
                place
                for place, row in enumerate(rows)
                if not has_ended[row] and len(outputs[row]) < rooms[row]
            ]
            if not live:
                break
            if len(live) <= 0.75 * len(rows):
                keep = torch.tensor(live, device=self.model.device)
                cache.batch_select_indices(keep)
                mask_BT, rows = mask_BT[keep], [rows[place] for place in live]
                picked = [picked[place] for place in live]
            tokens_B1 = torch.tensor(picked, device=self.model.device)[:, None]
            mask_BT = torch.cat([mask_BT, torch.ones_like(tokens_B1)], dim=1)
            logits_BV = self._forward(tokens_B1, mask_BT, cache, keep=1).logits[:, -1]
        return list(zip(outputs, (not ended for ended in has_ended), strict=True))

    def _is_stopped(self, ids: list[int], sampling: Sampling) -> bool:
        """Whether a stop text ends here; a text has at most one token for each byte."""
        tail = self.renderer.decode(ids[-STOP_TAIL - max(len(s.encode()) for s in sampling.stop) :])
        return any(text in tail for text in sampling.stop)

    def _prefill(self, prompts: list[list[int]]) -> tuple[Tensor, Any, Tensor]:
        width = max(map(len, prompts))
        ids_BT = np.full((len(prompts), width), self.renderer.end_id, dtype=np.int64)
        mask_BT = np.zeros_like(ids_BT)
        for row, prompt in enumerate(prompts):
            ids_BT[row, width - len(prompt) :] = prompt
            mask_BT[row, width - len(prompt) :] = 1
        mask = torch.from_numpy(mask_BT).to(self.model.device)
        ids = torch.from_numpy(ids_BT).to(self.model.device)
        output = self._forward(ids, mask, None, keep=1)
        return output.logits[:, -1], output.past_key_values, mask

    def _forward(self, ids_BT: Tensor, mask_BT: Tensor, cache: Any, *, keep: int) -> Any:  # noqa: ANN401
        extra: dict[str, Any] = {}
        if "position_ids" in self._takes:
            # A row that has ended may stay in the batch beyond the last position; it is not read.
            positions = (mask_BT.cumsum(1) - 1).clamp(0, self._limit - 1)
            extra["position_ids"] = positions[:, -ids_BT.shape[1] :]
        if "logits_to_keep" in self._takes:
            extra["logits_to_keep"] = keep
        with torch.inference_mode():
            return self.model(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                past_key_values=cache,
                use_cache=True,
                **extra,
            )

    def _reply(
        self,
        request: Request,
        prompt: list[int],
        answer: tuple[list[int], bool] | None,
        sampling: Sampling,
    ) -> Reply:
        if answer is None:
            error = self._too_long(len(prompt) + 1)
            return Reply(id=request.id, text="", finish_reason="error", error=error)
        ids, is_cut = answer
        return Reply(
            id=request.id,
            text=_before_stop(self.renderer.decode(ids), sampling.stop),
            finish_reason="length" if is_cut else "stop",
            prompt_tokens=len(prompt),
            response_tokens=len(ids) + (not is_cut),
        )

    def _too_long(self, num_tokens: int) -> str:
        return f"{num_tokens} tokens do not fit the model's context of {self._limit}"


class RecurrentBackend(LocalBackend):
    """Decoding of recurrent and hybrid models (Mamba, Jamba, Falcon-H1, Qwen3-Next).

    Their state cannot be cut to some rows of a batch, and padding before a prompt would enter it.
    So each row is read by itself, from its start for every token: right for every class, and slow.
    """

    def _option_logprobs(
        self, prompts: list[list[int]], options: list[list[list[int]]]
    ) -> list[list[list[float]]]:
        return [
            [self._own_logprobs(prompt, option) for option in some]
            for prompt, some in zip(prompts, options, strict=True)
        ]

    def _own_logprobs(self, prompt: list[int], option: list[int]) -> list[float]:
        logs_TV = self._logits([*prompt, *option])[-len(option) - 1 : -1].float().log_softmax(-1)
        ids_T1 = torch.tensor(option, device=logs_TV.device)[:, None]
        values: list[float] = logs_TV.gather(1, ids_T1)[:, 0].tolist()
        return values

    def _decode(
        self, prompts: list[list[int]], generators: list[Any], sampling: Sampling
    ) -> list[tuple[list[int], bool]]:
        return [
            self._decode_one(prompt, generator, sampling)
            for prompt, generator in zip(prompts, generators, strict=True)
        ]

    def _decode_one(
        self,
        prompt: list[int],
        generator: np.random.Generator,
        sampling: Sampling,
    ) -> tuple[list[int], bool]:
        output: list[int] = []
        for _ in range(min(sampling.max_new_tokens, self._limit - len(prompt))):
            logits_1V = self._logits([*prompt, *output])[-1:]
            token = int(_pick(logits_1V, [generator], sampling)[0])
            if token in self.end_ids:
                return output, False
            output.append(token)
            if sampling.stop and self._is_stopped(output, sampling):
                return output, False
        return output, True

    def _logits(self, ids: list[int]) -> Tensor:
        with torch.inference_mode():
            ids_1T = torch.tensor(ids, device=self.model.device)[None]
            logits: Tensor = self.model(input_ids=ids_1T, use_cache=False).logits[0]
        return logits


def _choice(request: Request, prompt_tokens: int, logprobs: list[list[float]]) -> Choice:
    totals = [math.fsum(values) for values in logprobs]
    return Choice(
        id=request.id,
        probabilities=_softmax(totals),
        log_probabilities=totals,
        num_tokens=[len(values) for values in logprobs],
        num_characters=[len(option.lstrip()) for option in request.options],
        num_bytes=[len(option.lstrip().encode()) for option in request.options],
        prompt_tokens=prompt_tokens,
    )


def _before_stop(text: str, stop: Sequence[str]) -> str:
    """Return the text up to the first stop text in it."""
    ends = [text.index(each) for each in stop if each in text]
    return text[: min(ends)].rstrip() if ends else text


def _pick(logits_BV: Tensor, generators: list[Any], sampling: Sampling) -> Tensor:
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1)
    probabilities = (logits_BV.double() / float(sampling.temperature)).softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        is_tail = ordered.cumsum(-1) - ordered >= sampling.top_p
        ordered[is_tail] = 0
        probabilities = torch.zeros_like(probabilities).scatter(1, order, ordered)
    draws = [float(generator.random()) for generator in generators]
    cumulative = probabilities.cumsum(-1)
    levels = torch.tensor(draws, dtype=torch.float64, device=logits_BV.device)
    return torch.searchsorted(
        cumulative, (levels * cumulative[:, -1])[:, None], right=True
    ).squeeze(1)


def _generator(request: Request, sampling: Sampling) -> np.random.Generator:
    """Return the request's own source of randomness."""
    text = canonical([sampling.seed, request.messages, request.sample_index])
    return np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))


def _softmax(values: list[float]) -> list[float]:
    weights = np.exp(np.array(values) - max(values))
    return [float(weight) for weight in weights / weights.sum()]
