"""Log-probabilities of given texts: each prompt is read once, and no padding is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spyhop.lazy import Tensor, torch
from spyhop.models.batching import BatchLimits, cut
from spyhop.models.encoding import Scored
from spyhop.models.forward import Forward, Past


class Scorer:
    """Scores options after prompts with one model."""

    def __init__(self, forward: Forward, limits: BatchLimits) -> None:
        self._forward = forward
        self._limits = limits

    def score(self, scored: Sequence[Scored], num_shared: int = 0) -> list[list[list[float]]]:
        """Return the log-probability of each token of each option of each prompt."""
        past = self._forward.read_shared(scored[0].prompt[:num_shared], len(scored))
        if all(len(each.options) == 1 for each in scored):
            return self._score_whole(scored, num_shared, past)
        rows = [each.prompt[num_shared:] for each in scored]
        logits_NV, past = self._forward.read(rows, [1] * len(rows), past)
        pairs = [(n, option) for n, each in enumerate(scored) for option in each.options]
        firsts = _at(logits_NV, [n for n, _ in pairs], [option[0] for _, option in pairs])
        values = [[first] for first in firsts]
        for chunk in self._chunks(pairs, max(len(each.prompt) for each in scored)):
            some = torch.tensor([pairs[place][0] for place in chunk], device=logits_NV.device)
            heads = [pairs[place][1][:-1] for place in chunk]
            sizes = [len(head) for head in heads]
            logits_NV, _ = self._forward.read(heads, sizes, past.select(some), is_left=False)
            tokens = [token for place in chunk for token in pairs[place][1][1:]]
            rest = iter(_at(logits_NV, range(sum(sizes)), tokens))
            for place, size in zip(chunk, sizes, strict=True):
                values[place] += [next(rest) for _ in range(size)]
        found = iter(values)
        return [[next(found) for _ in each.options] for each in scored]

    def _score_whole(
        self, scored: Sequence[Scored], num_shared: int, past: Past | None
    ) -> list[list[list[float]]]:
        """Score the only option of each prompt, in one pass."""
        options = [each.options[0] for each in scored]
        rows = [[*each.prompt[num_shared:], *each.options[0][:-1]] for each in scored]
        sizes = [len(option) for option in options]
        logits_NV, _ = self._forward.read(rows, sizes, past)
        found = iter(_at(logits_NV, range(sum(sizes)), [t for option in options for t in option]))
        return [[[next(found) for _ in option]] for option in options]

    def _chunks(
        self, pairs: list[tuple[int, list[int]]], prompt_tokens: int
    ) -> Iterator[list[int]]:
        """Yield the places of options of more than one token, those of similar length together."""
        longer = [place for place, (_, option) in enumerate(pairs) if len(option) > 1]
        longer.sort(key=lambda place: -len(pairs[place][1]))
        widths = [len(pairs[place][1]) - 1 for place in longer]
        ends = cut(widths, widths, self._limits, prompt_tokens)
        return (longer[start:end] for start, end in ends)


class RecurrentScorer(Scorer):
    """Scores each option in a pass of its own, without a cache.

    The state of recurrent and hybrid models cannot be cut to some rows of a batch, and padding
    would enter it.
    """

    def score(self, scored: Sequence[Scored], num_shared: int = 0) -> list[list[list[float]]]:
        """Return the log-probability of each token of each option of each prompt."""
        return [[self._score_one(each.prompt, o) for o in each.options] for each in scored]

    def _score_one(self, prompt: list[int], option: list[int]) -> list[float]:
        logits_TV = self._forward.read_alone([*prompt, *option[:-1]])[-len(option) :]
        return _at(logits_TV, range(len(option)), option)


def _at(logits_NV: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Return the log-probability of tokens by the logits of rows, in float32 at least."""
    exact = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    places = torch.tensor([list(rows), list(tokens)], device=logits_NV.device)
    values: list[float] = exact.log_softmax(-1)[places[0], places[1]].tolist()
    return values
