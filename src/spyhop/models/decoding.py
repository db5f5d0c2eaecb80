"""Decoding in batches: greedy or sampled, each request with its own source of randomness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spyhop.lazy import Tensor, torch
from spyhop.models.calls import Request, Sampling
from spyhop.models.forward import Forward
from spyhop.store import canonical

STOP_TAIL = 8
"""Tokens decoded before a stop text, since the first one may be half a character."""


class Decoder:
    """Decodes with a key-value cache."""

    def __init__(
        self, forward: Forward, end_ids: set[int], decode: Callable[[Sequence[int]], str]
    ) -> None:
        self._forward = forward
        self._end_ids = end_ids
        self._decode_text = decode
        self.on_text: Callable[[str], bool] | None = None
        """Receives the first response of a batch after each token; False ends the batch."""

    def decode(
        self,
        prompts: list[list[int]],
        generators: list[Any],
        sampling: Sampling,
        num_shared: int = 0,
    ) -> list[tuple[list[int], bool]]:
        """Return (ids, is cut) of each prompt's response, without its end token."""
        if not prompts:
            return []
        limit = self._forward.limit
        rooms = [min(sampling.max_new_tokens, limit - len(prompt)) for prompt in prompts]
        outputs: list[list[int]] = [[] for _ in prompts]
        has_ended = [False] * len(prompts)
        past = self._forward.read_shared(prompts[0][:num_shared], len(prompts))
        logits_BV, past = self._forward.read(
            [prompt[num_shared:] for prompt in prompts], [1] * len(prompts), past
        )
        past.grow()
        rows = list(range(len(prompts)))
        while True:
            picked = _pick(logits_BV, [generators[row] for row in rows], sampling).tolist()
            for row, token in zip(rows, picked, strict=True):
                if has_ended[row] or len(outputs[row]) == rooms[row]:
                    continue
                if token in self._end_ids:
                    has_ended[row] = True
                    continue
                outputs[row].append(token)
                has_ended[row] = self._is_stopped(outputs[row], sampling)
            live = [
                place
                for place, row in enumerate(rows)
                if not has_ended[row] and len(outputs[row]) < rooms[row]
            ]
            heard = self.on_text is None or self.on_text(self._decode_text(outputs[0]))
            if not live or not heard:
                return list(zip(outputs, (not ended for ended in has_ended), strict=True))
            if len(live) <= 0.75 * len(rows):
                past = past.select(live)
                rows, picked = [rows[n] for n in live], [picked[n] for n in live]
            logits_BV, past = self._forward.step(picked, past)

    def _is_stopped(self, ids: list[int], sampling: Sampling) -> bool:
        """Whether a stop text ends here; a text has at most one token for each byte."""
        if not sampling.stop:
            return False
        longest = max(len(text.encode()) for text in sampling.stop)
        tail = self._decode_text(ids[-STOP_TAIL - longest :])
        return any(text in tail for text in sampling.stop)


def own_generator(request: Request, sampling: Sampling) -> np.random.Generator:
    """Return the request's own source of randomness."""
    parts: list[object] = [sampling.seed, request.messages or request.text, request.sample_index]
    return np.random.default_rng(list(hashlib.sha256(canonical(parts).encode()).digest()))


def before_stop(text: str, stop: Sequence[str]) -> str:
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
