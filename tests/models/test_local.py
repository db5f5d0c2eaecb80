import copy
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

from spyhop.models import Local, ModelUse, Request, Sampling
from spyhop.models.encoding import encode_options
from spyhop.models.local import (
    FORMAT_FILE,
    LocalBackend,
    load,
    load_tokenizer,
    pick_device,
    saved_format,
)
from spyhop.render import ORCA, TURNS, Renderer
from spyhop.render.template import TemplateFormat
from spyhop.schema import Message, ModelError, RecipeError
from spyhop.stage import Context, Runtime
from spyhop.store import Source
from spyhop.train.base import save

CPU = torch.device("cpu")
LIMIT = 96


@pytest.fixture(scope="module")
def gpt2_folder(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    shape = GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=LIMIT,
        eos_token_id=words.eos_token_id, bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("gpt2")
    save(path, GPT2LMHeadModel(shape), copy.deepcopy(words), TURNS)
    return path


@pytest.fixture(scope="module")
def neox_folder(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    shape = GPTNeoXConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=LIMIT, eos_token_id=words.eos_token_id,
        bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("neox")
    save(path, GPTNeoXForCausalLM(shape), copy.deepcopy(words), TURNS)
    return path


@pytest.fixture(params=["tiny", "gpt2", "neox"])
def model_folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_folder")


def _backend(folder: Path, dtype: torch.dtype = torch.float64, tokens: int = 2_000) -> LocalBackend:
    torch.set_num_threads(1)
    tokenizer, model = load(folder, dtype, CPU)
    return LocalBackend(model, Renderer(tokenizer, TURNS), tokens)


def _requests(num: int, seed: int = 0, longest: int = 60, **more: Any) -> list[Request]:
    source = random.Random(seed)
    return [
        Request(
            id=f"r{place}",
            messages=[
                Message(
                    role="user",
                    content="".join(source.choices("abcdefgh ", k=source.randint(1, longest))),
                )
            ],
            **more,
        )
        for place in range(num)
    ]


def _generate(backend: LocalBackend, requests: Sequence[Request], sampling: Sampling):
    return {
        reply.id: reply
        for batch in backend.batches(requests, "generate")
        for reply in backend.generate(batch, sampling)
    }


def _log_probability(backend: LocalBackend, prompt: list[int], rest: list[int]) -> float:
    """By one whole forward pass without a cache."""
    ids = torch.tensor([prompt + rest])
    with torch.no_grad():
        logits = backend.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(rest) - 1)
    return sum(float(logits[place, token]) for place, token in zip(places, rest, strict=True))


def test_a_batch_answers_as_one_by_one(model_folder: Path):
    backend = _backend(model_folder)
    requests = _requests(12)
    sampling = Sampling(max_new_tokens=24)
    together = _generate(backend, requests, sampling)
    alone = {r.id: reply for r in requests for reply in _generate(backend, [r], sampling).values()}
    assert together == alone
    assert len({reply.text for reply in together.values()}) > 6
    assert {reply.finish_reason for reply in together.values()} <= {"stop", "length"}


def test_a_float32_batch_answers_as_one_by_one(tiny_folder: Path):
    backend = _backend(tiny_folder, torch.float32)
    requests = _requests(12, seed=1)
    sampling = Sampling(max_new_tokens=16)
    alone = [_generate(backend, [r], sampling)[r.id] for r in requests]
    together = _generate(backend, requests, sampling)
    assert [together[r.id] for r in requests] == alone


def test_greedy_is_what_transformers_generates(model_folder: Path):
    backend = _backend(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64)
    requests = _requests(5, seed=2)
    ours = _generate(backend, requests, Sampling(max_new_tokens=20))
    for request in requests:
        (prompt,) = backend.renderer.encode_prompts([request.messages])
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20, do_sample=False, eos_token_id=backend.renderer.end_id,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        is_ended = output[-1] == backend.renderer.end_id
        reply = ours[request.id]
        assert reply.text == backend.renderer.decode(output)
        assert reply.finish_reason == ("stop" if is_ended else "length")
        assert reply.response_tokens == len(output) and reply.prompt_tokens == len(prompt)


def test_rows_that_end_leave_the_batch(tiny_folder: Path):
    """The end token is made likely, so that rows end at different steps."""
    backend = _backend(tiny_folder)
    bias = torch.nn.Parameter(torch.zeros(backend.model.config.vocab_size, dtype=torch.float64))
    bias.data[backend.renderer.end_id] = 6.0
    backend.model.lm_head.bias = bias
    requests = _requests(16, seed=3)
    sampling = Sampling(max_new_tokens=30, temperature=1.0)
    together = _generate(backend, requests, sampling)
    lengths = {reply.response_tokens for reply in together.values()}
    assert len(lengths) > 4 and any(r.finish_reason == "stop" for r in together.values())
    for request in requests:
        assert _generate(backend, [request], sampling) == {request.id: together[request.id]}


def test_sampling_depends_on_the_request_alone(tiny_folder: Path):
    backend = _backend(tiny_folder)
    requests = _requests(10, seed=4)
    sampling = Sampling(max_new_tokens=12, temperature=0.8, top_p=0.9)
    first = _generate(backend, requests, sampling)
    shuffled = random.Random(1).sample(requests, 7)
    assert _generate(backend, shuffled, sampling) == {r.id: first[r.id] for r in shuffled}
    renamed = [r.model_copy(update={"id": f"x{r.id}"}) for r in requests]
    named = _generate(backend, renamed, sampling)
    assert {name: reply.text for name, reply in named.items()} == {
        f"x{name}": reply.text for name, reply in first.items()
    }
    other = _generate(backend, requests, sampling.model_copy(update={"seed": 1}))
    assert sum(other[r.id].text != first[r.id].text for r in requests) > 7
    again = [r.model_copy(update={"sample_index": 1}) for r in requests]
    assert (
        sum(_generate(backend, again, sampling)[r.id].text != first[r.id].text for r in again) > 7
    )


def test_sampling_follows_the_models_distribution(tiny_folder: Path):
    backend = _backend(tiny_folder)
    (request,) = _requests(1, seed=5)
    (prompt,) = backend.renderer.encode_prompts([request.messages])
    with torch.no_grad():
        logits = backend.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    wanted = (logits / 0.7).softmax(-1)
    many = [request.model_copy(update={"id": str(n), "sample_index": n}) for n in range(600)]
    found = _generate(backend, many, Sampling(max_new_tokens=1, temperature=0.7))
    likely = int(wanted.argmax())
    text = backend.renderer.decode([likely])
    share = sum(reply.text == text for reply in found.values()) / len(many)
    assert text.isascii() and text and 0.05 < wanted[likely] < 0.95
    assert share == pytest.approx(float(wanted[likely]), abs=0.07)


def test_a_small_top_p_is_greedy(tiny_folder: Path):
    backend = _backend(tiny_folder)
    requests = _requests(4, seed=6)
    narrow = Sampling(max_new_tokens=8, temperature=1.0, top_p=1e-6)
    greedy = Sampling(max_new_tokens=8)
    texts = [[_generate(backend, [r], s)[r.id].text for r in requests] for s in (narrow, greedy)]
    assert texts[0] == texts[1]


def test_a_prompt_longer_than_the_context_is_a_row_with_an_error(tiny_folder: Path):
    backend = _backend(tiny_folder)
    long = Request(id="long", messages=[Message(role="user", content="x" * 200)])
    short = _requests(2, longest=5)
    found = _generate(backend, [*short, long], Sampling(max_new_tokens=4))
    assert found["long"].finish_reason == "error"
    assert found["long"].error == f"203 tokens do not fit the model's context of {LIMIT}"
    assert all(found[r.id].error is None for r in short)


@pytest.mark.parametrize("length", [1, 60, 92])
def test_a_response_ends_with_the_context_whoever_is_beside(tiny_folder: Path, length: int):
    backend = _backend(tiny_folder)
    beside = Request(id="beside", messages=[Message(role="user", content="y" * 92)])
    request = Request(id="r", messages=[Message(role="user", content="x" * length)])
    sampling = Sampling(max_new_tokens=200)
    alone = _generate(backend, [request], sampling)["r"]
    assert alone.finish_reason == "length"
    assert alone.response_tokens + alone.prompt_tokens == LIMIT
    assert _generate(backend, [request, beside], sampling)["r"] == alone


def test_a_prompt_near_the_limit_changes_nothing_for_short_ones(model_folder: Path):
    """With learned positions an ended row that stays in the batch would leave the table."""
    backend = _backend(model_folder)
    long = Request(id="long", messages=[Message(role="user", content="y" * 90)])
    requests = [long, *_requests(6, seed=12, longest=12)]
    sampling = Sampling(max_new_tokens=60, temperature=0.7)
    (together,) = backend.batches(requests, "generate")
    found = {reply.id: reply for reply in backend.generate(together, sampling)}
    assert found["long"].prompt_tokens + found["long"].response_tokens <= LIMIT
    assert max(reply.response_tokens for reply in found.values()) > LIMIT - 90
    for request in requests:
        assert backend.generate([request], sampling) == [found[request.id]]


def test_options_near_the_limit_change_nothing_for_short_ones(model_folder: Path):
    backend = _backend(model_folder)
    options = ["A", "BCD"]
    long = Request(id="l", messages=[Message(role="user", content="y" * 90)], options=options)
    requests = [long, *_requests(4, seed=13, longest=12, options=options)]
    for request, found in zip(requests, backend.choose(requests), strict=True):
        (alone,) = backend.choose([request])
        assert found.probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_choose_is_the_softmax_of_whole_log_probabilities(model_folder: Path):
    backend, options = _backend(model_folder), ["yes", "no", "it depends"]
    requests = _requests(5, seed=7, longest=50, options=options)
    for batch in backend.batches(requests, "choose"):
        for request, found in zip(batch, backend.choose(batch), strict=True):
            (prompt,) = backend.renderer.encode_prompts([request.messages])
            totals = [
                _log_probability(backend, prompt, ids)
                for ids in backend.renderer.encode_text(options)
            ]
            wanted = torch.tensor(totals, dtype=torch.float64).softmax(0).tolist()
            assert found.id == request.id
            assert found.probabilities == pytest.approx(wanted, abs=1e-5)


def test_choices_that_do_not_fit_are_rows_with_an_error(tiny_folder: Path):
    backend = _backend(tiny_folder)
    long = Request(id="l", messages=[Message(role="user", content="x" * 93)], options=["A", "BC"])
    (short,) = _requests(1, longest=5, options=["A", "BC"])
    backend.batches([long, short], "choose")
    found = backend.choose([long, short])
    assert found[0].error == f"97 tokens do not fit the model's context of {LIMIT}"
    assert found[1].error is None and sum(found[1].probabilities) == pytest.approx(1)


def test_score_is_the_log_probability_of_the_whole_response(model_folder: Path):
    backend = _backend(model_folder)
    texts = ["", "b", "a longer answer"]
    requests = [
        r.model_copy(update={"continuation": t})
        for r, t in zip(_requests(3, seed=9), texts, strict=True)
    ]
    backend.batches(requests, "logprobs")
    for request, found in zip(requests, backend.logprobs(requests), strict=True):
        (prompt,) = backend.renderer.encode_prompts([request.messages])
        (ids,) = backend.renderer.encode_text([request.continuation])
        whole = [*ids, backend.renderer.end_id]
        assert len(found.values) == len(whole)
        assert sum(found.values) == pytest.approx(
            _log_probability(backend, prompt, whole), abs=1e-4
        )


def test_a_choice_tells_each_options_log_probability_and_size(model_folder: Path):
    backend = _backend(model_folder)
    (request,) = _requests(1, options=["a", "éé or", "b c d e"])
    (found,) = backend.choose([request])
    (prompt,) = backend.renderer.encode_prompts([request.messages])
    for place, ids in enumerate(backend.renderer.encode_text(request.options)):
        alone = _log_probability(backend, prompt, ids)
        assert found.log_probabilities[place] == pytest.approx(alone, abs=1e-4)
    assert found.num_characters == [1, 5, 7] and found.num_bytes == [1, 7, 7]


def test_generation_ends_at_every_end_token(tiny_folder: Path):
    backend = _backend(tiny_folder)
    prompts = backend.renderer.encode_prompts([each.messages for each in _requests(4)])
    sampling = Sampling(max_new_tokens=12)
    whole = [ids for ids, _ in backend._decoder.decode(prompts, [None] * 4, sampling)]
    ends = {ids[2] for ids in whole}
    backend.model.generation_config.eos_token_id = [backend.renderer.end_id, *ends]
    again = LocalBackend(backend.model, backend.renderer, 1_000)
    assert again.end_ids == {backend.renderer.end_id, *ends}
    for ids, (some, is_cut) in zip(
        whole, again._decoder.decode(prompts, [None] * 4, sampling), strict=True
    ):
        assert len(some) <= 2 and ids[: len(some)] == some and not is_cut


def test_generation_ends_before_a_stop_text(tiny_folder: Path):
    backend = _backend(tiny_folder)
    requests = _requests(4)
    before = backend.generate(requests, Sampling(max_new_tokens=12))
    stop = before[0].text[3:5]
    found = backend.generate(requests, Sampling(max_new_tokens=12, stop=(stop, "never")))
    for reply, whole in zip(found, before, strict=True):
        assert stop not in reply.text
        assert reply.text == whole.text.split(stop)[0].rstrip()
    assert found[0].finish_reason == "stop" and found[0].response_tokens < 12


def test_an_unset_temperature_is_the_models_own(tiny_folder: Path):
    backend = _backend(tiny_folder)
    requests, unset = _requests(4), Sampling(max_new_tokens=12, temperature="unset")
    greedy = backend.generate(requests, Sampling(max_new_tokens=12))
    assert backend.generate(requests, unset) == greedy
    backend.model.generation_config.update(do_sample=True, temperature=5.0)
    assert backend.generate(requests, unset) != greedy


def test_a_continuation_that_does_not_fit_is_a_row_with_an_error(tiny_folder: Path):
    backend = _backend(tiny_folder)
    (request,) = _requests(1, longest=5, continuation="x" * 100)
    backend.batches([request], "logprobs")
    (found,) = backend.logprobs([request])
    assert found.error and "do not fit" in found.error


def test_batches_depend_on_lengths_alone_and_hold_everything(tiny_folder: Path):
    backend = _backend(tiny_folder, tokens=1_000)
    requests = _requests(40, seed=10)
    batches = backend.batches(requests, "generate")
    assert sorted(r.id for batch in batches for r in batch) == sorted(r.id for r in requests)
    assert len(batches) > 3
    assert batches == backend.batches(requests[::-1], "generate")
    lengths = [[len(r.messages[0].content) for r in batch] for batch in batches]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)
    assert all((max(b) + 3 + 128) * len(b) <= 1_000 or len(b) == 1 for b in lengths)


def test_a_model_folder_is_asked_through_the_journal(tiny_folder: Path, context: Context):
    use = ModelUse(Local(name="tiny"), Source(tiny_folder).open(context.root))
    requests = _requests(3, seed=11, longest=20)
    model = use.open(context)
    replies = list(model.generate(requests, Sampling(max_new_tokens=5)))
    assert model.label == "tiny" and len(replies) == 3
    assert all(0 < reply.response_tokens <= 5 for reply in replies)
    assert use.open(context) is model
    closed = use.config.open(context, use)
    assert list(closed.generate(requests, Sampling(max_new_tokens=5))) == replies
    assert closed._worker.backend is None  # no weights were loaded


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"not a tokenizer's folder \(.*\)$"):
        load(tmp_path, torch.float32, CPU)


def test_a_subfolder_is_the_model_that_stands_there(tiny_folder: Path, context: Context):
    whole = context.root / "whole"
    shutil.copytree(tiny_folder, whole)
    shutil.copytree(tiny_folder, whole / "snapshots" / "early")
    early = AutoModelForCausalLM.from_pretrained(whole / "snapshots" / "early")
    with torch.no_grad():
        early.model.embed_tokens.weight.mul_(-1)
    early.save_pretrained(whole / "snapshots" / "early")
    backends = [
        Local(subfolder=name).connect(Source(whole).open(context.root), Runtime(device="cpu"))
        for name in ("", "snapshots/early")
    ]
    request = [Request(id="a", messages=[Message(role="user", content="hi")], options=["a", "b"])]
    first, second = (backend.choose(request)[0].probabilities for backend in backends)
    assert first != second


def test_a_device_that_is_not_there_is_one_clear_line():
    with pytest.raises(RecipeError, match=r"^runtime\.device = 'cuda:99'.* no such GPU here"):
        pick_device("cuda:99")


def test_an_option_without_text_is_refused(tiny_folder: Path):
    request = Request(id="a", messages=[Message(role="user", content="hi")], options=["a", " "])
    with pytest.raises(ModelError, match="contain an empty text"):
        _backend(tiny_folder).choose([request])


@pytest.mark.parametrize("begun", ["Score:", "It is clear.\nScore:"])
def test_options_are_weighed_behind_a_response_that_is_begun(tiny_folder: Path, begun: str):
    backend = _backend(tiny_folder)
    options = [" 1", " 2", " 25"]
    requests = _requests(4, seed=11, longest=40, options=options, continuation=begun)
    for batch in backend.batches(requests, "choose"):
        for request, found in zip(batch, backend.choose(batch), strict=True):
            (prompt,) = backend.renderer.encode_prompts([request.messages])
            wholes = backend.renderer.encode_text([begun + option for option in options])
            totals = [_log_probability(backend, prompt, ids) for ids in wholes]
            wanted = torch.tensor(totals, dtype=torch.float64).softmax(0).tolist()
            assert found.probabilities == pytest.approx(wanted, abs=1e-6)


def test_real_tokenizers_weigh_the_tokens_that_a_response_would_have(data_dir: Path):
    from spyhop.models.folder import load_tokenizer

    begun, options = "A reason.\nScore:", tuple(f" {score}" for score in range(1, 6))
    request = Request(
        id="1", messages=[Message(role="user", content="x")], options=options, continuation=begun
    )
    for name in ("tok_llama2", "tok_qwen"):
        tokenizer = load_tokenizer(data_dir / name)
        renderer = Renderer(tokenizer, ORCA)
        (scored,) = encode_options(renderer, [request])
        (asked,) = renderer.encode_prompts([request.messages])
        for option, ids in zip(options, scored.options, strict=True):
            assert [*scored.prompt, *ids] == [*asked, *renderer.encode_text([begun + option])[0]]
            assert len(ids) == 1


def test_the_chat_template_asks_as_the_form_that_it_writes(tiny_folder: Path, context: Context):
    """A checkpoint of ours, read as others read it: by the template in its tokenizer."""
    folder = Source(tiny_folder).open(context.root)
    ours, theirs = (
        Local(format=name).connect(folder, Runtime(device="cpu")) for name in ("saved", "chat")
    )
    requests = _requests(6, options=["abc", "d"], continuation="ab")
    sampling = Sampling(temperature=0, max_new_tokens=12)
    assert ours.generate(requests, sampling) == theirs.generate(requests, sampling)
    assert ours.choose(requests) == theirs.choose(requests)
    assert ours.logprobs(requests) == theirs.logprobs(requests)


def test_a_folder_from_elsewhere_is_asked_by_its_own_template(tiny_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_folder, tmp_path / "elsewhere")
    tokenizer = load_tokenizer(folder)
    named = saved_format(folder, tokenizer)
    (folder / FORMAT_FILE).unlink()
    found = saved_format(folder, tokenizer)
    assert isinstance(found, TemplateFormat) and found.template == tokenizer.chat_template
    tokenizer.chat_template = None
    assert saved_format(folder, tokenizer) == ORCA != named
