"""Options scored through a completions server have the log-probabilities of the local model."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers

from completions import CompletionsServer
from spyhop.models import Choice, ModelUse, Request, Sampling
from spyhop.models.echo import option_values
from spyhop.models.endpoint import Remote
from spyhop.models.local import LocalBackend
from spyhop.models.service import Endpoint, Service
from spyhop.render import TURNS, Renderer
from spyhop.schema import Message, ModelError
from spyhop.stage import Context

OPTIONS = (" a b", " ccc", " é or ü")


@pytest.fixture(scope="module")
def backend(words: Any) -> LocalBackend:
    torch.manual_seed(3)
    shape = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, initializer_range=0.3, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(shape).eval()
    return LocalBackend(model, Renderer(copy.deepcopy(words), TURNS), 2_000)


def _requests(num: int) -> list[Request]:
    texts = [f"Q: {'xyz é'[: n % 6]} {n}\nA:{' ' * (n % 2)}" for n in range(num)]
    options = [tuple(o.lstrip() if t.endswith(" ") else o for o in OPTIONS) for t in texts]
    return [
        Request(id=str(n), text=text, options=some)
        for n, (text, some) in enumerate(zip(texts, options, strict=True))
    ]


def _ask(url: str, requests: Sequence[Request], ctx: Context, **more: Any) -> list[Choice]:
    service = Service(endpoints=(Endpoint(url=url, api="completions"),), max_attempts=1)
    with ctx.resources:
        use = ModelUse(Remote(model="m", **more), service=service)
        return list(use.open(ctx).choose(requests))


@pytest.mark.parametrize("form", ["echo", "prompt_logprobs"])
@pytest.mark.parametrize("begin", ["", "<s>"])
def test_a_server_scores_as_the_model_in_process(
    backend: LocalBackend, context: Context, form: str, begin: str
):
    requests = _requests(8)
    with CompletionsServer(backend, form, begin) as server:
        found = _ask(server.url, requests, context)
        assert len(server.bodies) == len(requests)
    for ours, theirs in zip(backend.choose(requests), found, strict=True):
        assert theirs.error is None and not theirs.is_parsed
        assert theirs.log_probabilities == pytest.approx(ours.log_probabilities, abs=1e-4)
        assert theirs.num_tokens == ours.num_tokens and theirs.num_bytes == ours.num_bytes
        assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-4)


def test_a_server_without_log_probabilities_of_prompts_is_one_line(
    backend: LocalBackend, context: Context
):
    with (
        CompletionsServer(backend, "silent") as server,
        pytest.raises(ModelError, match=r"returns no log-probabilities of prompts .*llama\.cpp"),
    ):
        _ask(server.url, _requests(90), context)


def test_an_option_after_nothing_is_an_error_of_its_row(backend: LocalBackend, context: Context):
    empty = Request(id="empty", text="", options=OPTIONS)
    with CompletionsServer(backend) as server:
        found = _ask(server.url, [*_requests(2), empty], context)
    assert [each.error is None for each in found] == [True, True, False]
    assert "the prompt is empty" in str(found[-1].error)


def test_plain_prompts_and_chats_need_their_own_api(context: Context):
    chat = Request(id="a", messages=[Message(role="user", content="x")], options=("a", "b"))
    with pytest.raises(ModelError, match=r"api = 'completions': it takes plain prompts, not chats"):
        _ask("http://127.0.0.1:9/v1", [chat], context)
    plain = chat.model_copy(update={"messages": [], "text": "x"})
    model = ModelUse(
        Remote(model="chat"), service=Service(endpoints=(Endpoint(url="http://127.0.0.1:9/v1"),))
    ).open(context)
    with pytest.raises(ModelError, match=r"not plain prompts; .* --set measure\.form=asked"):
        list(model.choose([plain]))


def test_a_plain_prompt_is_continued(backend: LocalBackend, context: Context):
    with CompletionsServer(backend) as server, context.resources:
        service = Service(endpoints=(Endpoint(url=server.url, api="completions"),))
        model = ModelUse(Remote(model="m"), service=service).open(context)
        request = Request(id="a", text="Q: a\nA:", continuation=" so ")
        list(model.generate([request], Sampling(max_new_tokens=3)))
    assert server.bodies[0]["prompt"] == "Q: a\nA: so" and server.bodies[0]["max_tokens"] == 3


def _echoed(tokens: Sequence[str]) -> dict[str, Any]:
    return {
        "logprobs": {"tokens": list(tokens), "token_logprobs": [None, *range(-1, -len(tokens), -1)]}
    }


@pytest.mark.parametrize(
    ("tokens", "wanted"),
    [
        (["Q", ":", " yes", "ter"], [[-2.0]]),
        (["<s>", "Q", ":", " y", "es", "X"], [[-3.0, -4.0]]),
        (["Q", ": y", "es", "."], [[-1.0, -2.0]]),
        (["\ufffd", "\ufffd", "Q", ":", " yes", "!"], [[-4.0]]),
        (["Q", ":", " yes"], [[-2.0]]),
    ],
)
def test_options_begin_where_the_prompt_ends(tokens: list[str], wanted: list[list[float]]):
    text = "\u20acQ:" if tokens[0] == "\ufffd" else "Q:"
    request = Request(id="a", text=text, options=(" yes",))
    assert option_values(request, [_echoed(tokens)]) == wanted


@pytest.mark.parametrize(
    "choice",
    [{}, {"logprobs": None}, {"logprobs": {"tokens": ["a"]}}, {"logprobs": 3},
     {"logprobs": {"tokens": [], "token_logprobs": []}}, {"prompt_logprobs": [3, 4]},
     {"logprobs": {"content": [{"token": "a", "logprob": -1.0}]}}],
)  # fmt: skip
def test_replies_without_an_echo_are_told_apart(choice: dict[str, Any]):
    with pytest.raises(ValueError, match="no log-probabilities of prompts"):
        option_values(Request(id="a", text="Q:", options=(" yes",)), [choice])
