"""Options are scored as by one plain forward pass each, whatever is read together."""

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from spyhop.models import Choice, Local, ModelUse, Request
from spyhop.models import local as local_module
from spyhop.models.batching import GROUP_TOKENS, Group, shared_beginnings
from spyhop.models.encoding import encode_options
from spyhop.models.forward import prepack
from spyhop.models.local import LocalBackend
from spyhop.render import TURNS, Renderer
from spyhop.stage import Context, Runtime
from spyhop.store import Source
from spyhop.train.base import save

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 48, "initializer_range": 0.3,
         "max_position_embeddings": 512}  # fmt: skip
CLASSES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True},
    "Qwen3": {"tie_word_embeddings": False, "head_dim": 8},
    "Mistral": {"sliding_window": 96, "head_dim": 8},
    "Gemma2": {"sliding_window": 64, "head_dim": 8, "final_logit_softcapping": 2.0},
    "Gemma3Text": {"sliding_window": 80, "head_dim": 8},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "Bloom": {"n_layer": 2, "n_head": 4},
}  # fmt: skip
SHARED = "Answer the following questions as briefly as you can, please.\n\n" * 2


def _backend(kind: str, tokenizer: Any, tokens: int = 4_000) -> LocalBackend:
    torch.manual_seed(5)
    torch.set_num_threads(1)
    shape = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer) + 3, pad_token_id=None, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, **{**SHAPE, **CLASSES[kind]},
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(shape).eval()
    return LocalBackend(model, Renderer(copy.deepcopy(tokenizer), TURNS), tokens)


def _requests(num: int, seed: int, **more: Any) -> list[Request]:
    """Half of them begin alike; options of one to nine bytes, two to four of them."""
    source = random.Random(seed)

    def text(longest: int) -> str:
        return "".join(source.choices("abcdef ", k=source.randint(1, longest))).strip() or "a"

    return [
        Request(
            id=f"r{place}",
            text=(SHARED if place % 2 else "") + f"Q: {text(30)}\nA:",
            options=tuple({f" {text(8)}" for _ in range(source.randint(2, 4))}),
            **more,
        )
        for place in range(num)
    ]


def _choose(backend: LocalBackend, requests: Sequence[Request]) -> dict[str, Choice]:
    return {
        choice.id: choice
        for batch in backend.batches(requests, "choose")
        for choice in backend.choose(batch)
    }


def _plain(backend: LocalBackend, text: str, option: str) -> float:
    """The log-probability of an option by one pass over prompt and option, without a cache."""
    tokenizer = backend.renderer.tokenizer
    begin = tokenizer.bos_token_id
    before = tokenizer(text)["input_ids"] if text else []
    before = before or [tokenizer.eos_token_id if begin is None else begin]
    ids = [*before, *tokenizer(option, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        logs = backend.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    places = range(len(before) - 1, len(ids) - 1)
    return sum(float(logs.log_softmax(-1)[place, ids[place + 1]]) for place in places)


@pytest.mark.parametrize("kind", CLASSES)
def test_options_are_scored_as_by_plain_forward_passes(kind: str, words: Any):
    backend = _backend(kind, words)
    requests = _requests(16, seed=1, with_unconditional=True)
    shared = [each.num_shared for each in _planned(backend, requests)]
    is_shareable = backend._forward.shared_limit > 200
    assert any(num > 100 for num in shared) == is_shareable
    for request, found in zip(requests, _in_order(backend, requests), strict=True):
        wanted = [_plain(backend, request.text, option) for option in request.options]
        alone = [_plain(backend, "", option) for option in request.options]
        assert found.log_probabilities == pytest.approx(wanted, abs=1e-4)
        assert found.unconditional == pytest.approx(alone, abs=1e-4)
        assert found.num_tokens == [len(option) for option in request.options]
        assert found.num_characters == [len(option) - 1 for option in request.options]


def _planned(backend: LocalBackend, requests: Sequence[Request]) -> list[Any]:
    backend.batches(requests, "choose")
    return list(backend._planned.values())


def _in_order(backend: LocalBackend, requests: Sequence[Request]) -> list[Choice]:
    found = _choose(backend, requests)
    return [found[request.id] for request in requests]


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
def test_sharing_and_small_batches_change_nothing(
    kind: str, words_with_bos: Any, monkeypatch: pytest.MonkeyPatch
):
    requests = _requests(20, seed=2)
    together = _in_order(_backend(kind, words_with_bos), requests)
    monkeypatch.setattr(local_module, "SCORED_BYTES", 1)
    few = _in_order(_backend(kind, words_with_bos, tokens=300), requests)
    monkeypatch.setattr("spyhop.models.batching.LEAST_SHARED", 10_000)
    unshared = _backend(kind, words_with_bos)
    assert not any(each.num_shared for each in _planned(unshared, requests))
    for one, two, three in zip(together, few, _in_order(unshared, requests), strict=True):
        assert one.log_probabilities == pytest.approx(two.log_probabilities, abs=1e-4)
        assert one.log_probabilities == pytest.approx(three.log_probabilities, abs=1e-4)


def test_logits_are_made_at_the_places_of_options_only(words: Any):
    backend = _backend("Llama", words)
    requests = _requests(12, seed=3)
    sizes: list[int] = []
    head = backend.model.get_output_embeddings()
    assert backend._scorer._reads_trees
    head.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[:-1].numel()))
    _choose(backend, requests)
    inner = sum(len(option) - 1 for request in requests for option in request.options)
    assert sum(sizes) <= inner + len(requests) + 1  # and one for the shared beginning


def test_a_model_that_ignores_who_sees_whom_is_asked_plainly(words: Any):
    """It shows on a trial of a few tokens, before any request is scored."""
    backend = _backend("Llama", words)
    plain = backend.model.forward
    backend.model.forward = lambda **given: plain(**{**given, "attention_mask": None})
    request = Request(id="a", text="Q: abc\nA:", options=(" abc", " fed", " cab"))
    (found,) = _in_order(backend, [request])
    assert not backend._scorer._reads_trees
    backend.model.forward = plain
    wanted = [_plain(backend, request.text, option) for option in request.options]
    assert found.log_probabilities == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prepacked_layers_multiply_as_before(words: Any, dtype: torch.dtype, tied: bool):
    backend = _backend("Llama", words)
    shape = backend.model.config
    shape.tie_word_embeddings = tied
    model = transformers.AutoModelForCausalLM.from_config(shape).to(dtype).eval()
    ids = torch.randint(5, 200, (3, 70))
    with torch.inference_mode():
        before = [model(input_ids=ids[:, :num]).logits for num in (70, 1)]
        prepack(model)
        after = [model(input_ids=ids[:, :num]).logits for num in (70, 1)]
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    assert model.lm_head in layers and all("_multiply" in str(each.forward) for each in layers)
    for one, two in zip(before, after, strict=True):
        assert torch.allclose(one, two, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.05)


def test_a_common_beginning_is_read_once(words: Any):
    backend = _backend("Llama", words)
    requests = [each for each in _requests(40, seed=4) if each.text.startswith(SHARED)]
    num_read = 0

    def count(_: Any, __: Any, options: dict[str, Any]) -> None:
        nonlocal num_read
        num_read += options["input_ids"].numel()

    backend.model.register_forward_pre_hook(count, with_kwargs=True)
    _choose(backend, requests)
    own = sum(len(r.text) - len(SHARED) + sum(map(len, r.options)) for r in requests)
    assert num_read < 1.5 * own + len(SHARED)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("Q: a\nA:", " b"),
        ("Q: a\nA: ", "b"),
        ("Ready \n", "go"),
        ("", "go"),
        ("a", "b"),
        ("", " x"),
    ],
)
def test_a_plain_prompt_has_the_tokens_of_the_whole_text(data_dir: Path, text: str, option: str):
    from spyhop.models.folder import load_tokenizer

    request = Request(id="a", text=text, options=(option, option + "s"))
    for name in ("tok_llama2", "tok_qwen"):
        tokenizer = load_tokenizer(data_dir / name)
        (scored,) = encode_options(Renderer(tokenizer, TURNS), [request])
        for ids, each in zip(scored.options, request.options, strict=True):
            whole = tokenizer(text + each)["input_ids"]
            read = [*scored.prompt, *ids]
            assert ids and read[-len(whole) :] == whole
            assert len(read) - len(whole) <= 1  # the begin token, where the prompt has no token


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=12), st.data())
def test_groups_share_what_they_say(tails: list[list[int]], data: st.DataObject):
    heads = [[7] * 300, [8] * 20, [7] * 150 + [9] * 200, []]
    prompts = [[*data.draw(st.sampled_from(heads)), *tail] for tail in tails]
    groups = shared_beginnings(prompts)
    rows = [row for group in groups for row in group.rows]
    assert len(rows) == len(set(rows))
    for num_shared, some in groups:
        beginnings = {tuple(prompts[row][:num_shared]) for row in some}
        assert len(beginnings) == 1 and all(len(prompts[row]) > num_shared for row in some)
    best = max((n * (_count(prompts, n) - 1) - GROUP_TOKENS for n in (150, 300, 350)), default=0)
    assert sum(group.saving for group in groups) >= max(0, best)
    assert all(group.saving > 0 for group in groups)


def _count(prompts: list[list[int]], num: int) -> int:
    """How many prompts the most common beginning of this length has."""
    starts = [tuple(prompt[:num]) for prompt in prompts if len(prompt) > num]
    return max((starts.count(start) for start in starts), default=0)


def test_nested_beginnings_are_grouped_where_more_is_saved():
    common, blocks = [1] * 100, [[2] * 400, [3] * 400]
    prompts = [[*common, *block, n] for block in blocks for n in range(5)]
    assert [group.num_shared for group in shared_beginnings(prompts)] == [500, 500]
    prompts = [[*common, n, *[n] * 10] for n in range(5)]
    assert shared_beginnings(prompts) == [Group(100, [0, 1, 2, 3, 4])]
    assert shared_beginnings([[1, 2, 3]]) == shared_beginnings([]) == []


def test_a_scoring_that_was_killed_twice_gives_the_same_bytes(tmp_path: Path, words: Any):
    torch.manual_seed(1)
    shape = transformers.LlamaConfig(vocab_size=len(words), eos_token_id=1, **SHAPE)
    save(tmp_path / "model", transformers.LlamaForCausalLM(shape), copy.deepcopy(words), TURNS)
    requests = _requests(60, seed=6, with_unconditional=True)

    def run(root: Path, stops: Sequence[int]) -> list[str]:
        use = ModelUse(Local(), Source(tmp_path / "model").open(root))
        for num in [*stops, None]:
            ctx = Context(root, root, root, Runtime(inference_tokens=700), lambda _: None)
            with ctx.resources:
                model = use.open(ctx)
                connect, calls = model._worker.connect, 0  # type: ignore[attr-defined]

                def connected(num: int | None = num, connect: Any = connect) -> LocalBackend:
                    backend = connect()
                    score = backend._scorer.score

                    def scored(*args: Any) -> Any:
                        nonlocal calls
                        calls += 1
                        if num is not None and calls > num:
                            raise KeyboardInterrupt
                        return score(*args)

                    backend._scorer.score = scored
                    return backend

                model._worker.connect = connected  # type: ignore[attr-defined]
                try:
                    return [found.model_dump_json() for found in model.choose(requests)]
                except KeyboardInterrupt:
                    continue
        raise AssertionError

    fresh = run(tmp_path / "fresh", [])
    assert run(tmp_path / "killed", [3, 4]) == fresh and len(set(fresh)) == 60
