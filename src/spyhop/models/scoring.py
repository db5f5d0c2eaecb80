"""Log-probabilities of given texts: each prompt is read once, and no padding is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spyhop.lazy import Tensor, torch
from spyhop.models.batching import BatchLimits, cut
from spyhop.models.encoding import Scored
from spyhop.models.forward import Forward


class Scorer:
    """Scores options after prompts with one model."""

    def __init__(self, forward: Forward, limits: BatchLimits) -> None:
        self._forward = forward
        self._limits = limits

    def score(self, scored: Sequence[Scored], num_shared: int = 0) -> list[list[list[float]]]:
        """Return the log-probability of each token of each option of each prompt."""
        past = self._forward.read_shared(scored[0].prompt[:num_shared], len(scored))
        rows = [each.prompt[num_shared:] for each in scored]
        logits_NV, past = self._forward.read(rows, [1] * len(rows), past)
        pairs = [(n, option) for n, each in enumerate(scored) for option in each.options]
        firsts = _at(logits_NV, [n for n, _ in pairs], [option[0] for _, option in pairs])
        values = [[first] for first in firsts]
        for chunk in self._chunks(pairs, max(len(each.prompt) for each in scored)):
            some = past.select([pairs[place][0] for place in chunk])
            heads = [pairs[place][1][:-1] for place in chunk]
            sizes = [len(head) for head in heads]
            logits_NV, _ = self._forward.read(heads, sizes, some, is_left=False)
            tokens = [token for place in chunk for token in pairs[place][1][1:]]
            rest = iter(_at(logits_NV, range(sum(sizes)), tokens))
            for place, size in zip(chunk, sizes, strict=True):
                values[place] += [next(rest) for _ in range(size)]
        found = iter(values)
        return [[next(found) for _ in each.options] for each in scored]

    def _chunks(
        self, pairs: list[tuple[int, list[int]]], prompt_tokens: int
    ) -> Iterator[list[int]]:
        """Yield the places of options of more than one token, those of similar length together."""
        longer = [place for place, (_, option) in enumerate(pairs) if len(option) > 1]
        longer.sort(key=lambda place: -len(pairs[place][1]))
        widths = [len(pairs[place][1]) - 1 for place in longer]
        ends = cut(widths, widths, self._limits, prompt_tokens)
        return (longer[start:end] for start, end in ends)


def _at(logits_NV: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Return the log-probability of tokens by the logits of rows, in float32 at least."""
    exact = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    places = torch.tensor([list(rows), list(tokens)], device=logits_NV.device)
    values: list[float] = exact.log_softmax(-1)[places[0], places[1]].tolist()
    return values
