"""Options and tokens scored by a completions API, which gives log-probabilities of prompts.

vLLM, SGLang and llama-cpp-python return `logprobs` with `tokens` and `token_logprobs`, vLLM also
`prompt_logprobs` (`extra = { echo = false, prompt_logprobs = 0 }`). llama.cpp's own server has
neither for prompts.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from spyhop.models.calls import Request

NO_ECHO = (
    "the endpoint returns no log-probabilities of prompts (`echo` or `prompt_logprobs`), as "
    'llama.cpp\'s server: use another server or a folder, or set measure.method = "generate"'
)


def option_values(request: Request, choices: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Return the log-probabilities of each option's tokens.

    A token across the end of the prompt belongs to the option, and then so do the other options'
    tokens from there, as in a local model.
    """
    if len(choices) != len(request.options):
        raise ValueError(f"{len(choices)} choices for {len(request.options)} prompts")
    before = request.text + request.continuation
    found = [
        _cut(before, option, *_tokens(choice))
        for option, choice in zip(request.options, choices, strict=True)
    ]
    first = min(start for start, _ in found)
    values = [some[first:] for _, some in found]
    if not all(values) or any(value is None for some in values for value in some):
        raise ValueError("no log-probability of an option's first token: the prompt is empty")
    return [[float(value) for value in some if value is not None] for some in values]


def token_values(request: Request, choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values`, `texts` and `top` of a request's scored tokens, from `prompt_logprobs`."""
    places = choice.get("prompt_logprobs")
    if not isinstance(places, list) or len(places) != len(request.ids) + len(request.scored_ids):
        raise ValueError("the endpoint returns no `prompt_logprobs`, as vLLM does; use a folder")
    scored = places[len(request.ids) :]
    try:
        own = [place[str(token)] for token, place in zip(request.scored_ids, scored, strict=True)]
        tops = [
            sorted(((int(token), float(each["logprob"])) for token, each in place.items()),
                   key=lambda pair: -pair[1])[: request.num_top]
            for place in scored
        ]  # fmt: skip
        values = [float(each["logprob"]) for each in own]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("`prompt_logprobs` without the tokens of the prompt") from None
    texts = [str(each.get("decoded_token", "")) for each in own]
    return {"values": values, "texts": texts, "top": list(map(dict, tops))}


def _tokens(choice: Mapping[str, Any]) -> tuple[list[str], list[float | None]]:
    """Return all echoed tokens and their values; the last one is generated."""
    listed = choice.get("prompt_logprobs")
    try:
        if isinstance(listed, list) and listed:  # the token itself comes first, likelier ones later
            own = [next(iter(place.values())) if place else {} for place in listed]
            texts = [str(token.get("decoded_token", "")) for token in own]
            return [*texts, ""], [*(token.get("logprob") for token in own), 0.0]
        held = choice["logprobs"]
        tokens, values = list(held["tokens"]), list(held["token_logprobs"])
    except (KeyError, TypeError, AttributeError):
        raise ValueError(NO_ECHO) from None
    if len(tokens) != len(values) or len(tokens) < 2:
        raise ValueError(NO_ECHO)
    return tokens, values


def _cut(
    before: str, option: str, tokens: list[str], values: list[float | None]
) -> tuple[int, list[float | None]]:
    """Return the option's first token and the values up to its last one.

    The text is looked up among the tokens' texts, behind which a begin token and before which
    generated ones may stand. A character in several tokens has no text of its own; then the last
    token is the generated one, and places are counted from there.
    """
    ends = list(accumulate(map(len, tokens)))
    place = "".join(tokens).find(before + option)
    if place < 0:
        place = ends[-2] - len(before + option)
    start, end = place + len(before.rstrip()), place + len(before + option)
    first = next((n for n, at in enumerate(ends) if at > start), len(tokens))
    last = next((n for n, at in enumerate(ends) if at >= end), len(tokens) - 1)
    return first, values[: last + 1]
