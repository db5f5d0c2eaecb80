"""Requests as token ids: prompts, and the options or continuations that are scored after them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spyhop.models.batching import num_common
from spyhop.models.calls import Request
from spyhop.render import Renderer
from spyhop.schema import ModelError


@dataclass(frozen=True, slots=True)
class Scored:
    """A prompt and the texts that are scored after it, as token ids."""

    prompt: list[int]
    options: list[list[int]]
    """At least one token each."""

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest option."""
        return len(self.prompt) + max(map(len, self.options), default=0)

    @property
    def size(self) -> int:
        """Tokens that are read: the last one of an option is not."""
        return len(self.prompt) + sum(len(option) - 1 for option in self.options)


def encode_prompts(renderer: Renderer, requests: Sequence[Request]) -> list[list[int]]:
    """Return the ids that a response is generated after, its prefilled beginning included.

    White space at the end of a prefilled response is the model's to write.
    """
    chats = [request for request in requests if request.messages]
    asked = renderer.encode_prompts([request.messages for request in chats])
    begun = renderer.encode_text([request.continuation.rstrip() for request in chats])
    found = (
        [*prompt, *ids] if request.continuation.strip() else prompt
        for request, prompt, ids in zip(chats, asked, begun, strict=True)
    )
    texts = [(r.text + r.continuation).rstrip() for r in requests if not r.messages]
    plain = iter(renderer.encode_plain(texts))
    return [
        next(found) if request.messages else next(plain) or [begin_id(renderer)]
        for request in requests
    ]


def encode_options(renderer: Renderer, requests: Sequence[Request]) -> list[Scored]:
    """Return the ids of prompts and options.

    A prefilled response is tokenised together with each option, as a response is in training, and
    so is a plain prompt. Tokens that all options share then belong to the prompt.
    """
    for request in requests:
        if not request.options or not all(text.strip() for text in request.options):
            raise ModelError(
                f"request {request.id}: options {request.options!r:.80} contain an empty text"
            )
    return _in_order(renderer, requests, [list(request.options) for request in requests])


def encode_continuations(renderer: Renderer, requests: Sequence[Request]) -> list[Scored]:
    """Return the ids of prompts and whole responses, the end token included.

    The continuation of a plain prompt has no end token.
    """
    bare = [request.model_copy(update={"continuation": ""}) for request in requests]
    scored = _in_order(renderer, bare, [[request.continuation] for request in requests])
    return [
        Scored(each.prompt, [[*each.options[0], renderer.end_id]]) if request.messages else each
        for request, each in zip(requests, scored, strict=True)
    ]


def encode_alone(renderer: Renderer, options: Sequence[str]) -> Scored:
    """Return the ids of options without a prompt, after the begin token, as in lm-eval."""
    return next(_documents(renderer, [""], [options]))


def begin_id(renderer: Renderer) -> int:
    """Return the token before a document: the begin token, else the end token."""
    begin = renderer.tokenizer.bos_token_id
    return int(renderer.tokenizer.eos_token_id if begin is None else begin)


def _in_order(
    renderer: Renderer, requests: Sequence[Request], options: list[list[str]]
) -> list[Scored]:
    pairs = list(zip(requests, options, strict=True))
    asked = [(request, texts) for request, texts in pairs if request.messages]
    wholes = [request.continuation + option for request, texts in asked for option in texts]
    encoded = iter(renderer.encode_text(wholes))
    prompts = renderer.encode_prompts([request.messages for request, _ in asked])
    chats = []
    for (request, texts), prompt in zip(asked, prompts, strict=True):
        own = [next(encoded) for _ in texts]
        num = num_common(own) if request.continuation else 0
        chats.append(Scored([*prompt, *own[0][:num]], [ids[num:] for ids in own]))
    plain = [(r.text + r.continuation, texts) for r, texts in pairs if not r.messages]
    documents = _documents(renderer, [text for text, _ in plain], [texts for _, texts in plain])
    found = iter(chats)
    return [next(found) if request.messages else next(documents) for request in requests]


def _documents(
    renderer: Renderer, prompts: Sequence[str], options: Sequence[Sequence[str]]
) -> Iterator[Scored]:
    """Yield plain prompts with their options, which are cut behind the prompt's last whole token.

    White space at the end of a prompt belongs to the options, as in lm-eval.
    """
    wholes = [prompt + o for prompt, some in zip(prompts, options, strict=True) for o in some]
    visible = [prompt.rstrip() for prompt in prompts]
    encoded = iter(renderer.encode_plain([*visible, *wholes]))
    own = [next(encoded) for _ in prompts]
    for prompt, some in zip(own, options, strict=True):
        ids = [next(encoded) for _ in some]
        num = num_common([[*prompt, -1], *ids])  # a prompt may be shared whole
        yield Scored(prompt[:num] or [begin_id(renderer)], [each[num:] for each in ids])
