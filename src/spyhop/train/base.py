"""The model that is trained: new or opened from a folder, perhaps with adapters; written as one.

Low-rank adapters (LoRA), on whole or on four-bit weights (QLoRA), through peft. Source: Hu et al.
(arXiv:2106.09685); Dettmers et al. (arXiv:2305.14314).
"""

from __future__ import annotations

import json
import math
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from spyhop.lazy import CausalLM, missing, peft, safe, torch, transformers
from spyhop.models.folder import load_model, load_tokenizer, read_config
from spyhop.models.local import FORMAT_FILE, TRAINING_FILE, load, pick_format
from spyhop.render import FORMATS, ChatFormat, Renderer, TemplateFormat
from spyhop.schema import Config, TrainingError
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.train.config import AdapterConfig, TuneConfig
from spyhop.train.distributed import Group

METRICS = TRAINING_FILE
ADAPTER = "adapter"
"""Beside the merged weights: the adapter alone, as peft writes it."""
ADAPTER_FILE, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PAD_TOKEN = "[[PAD]]"
"""The padding token that the Orca paper adds to the LLaMA tokenizer (section 3.2)."""
POSITION_BIAS = math.sqrt(24.0)
"""Size of a positional bias: enough for a head to prefer one distance, little enough to unlearn."""
_DROPOUT = re.compile(r"dropout(_p|_prob|_rate)?$|_pdrop$|^layerdrop$")


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A model in training, with its tokenizer."""

    folder: Path
    """Of the base."""
    config: TuneConfig
    tokenizer: Any
    chat_format: ChatFormat
    model: CausalLM
    """What has the trained parameters: a causal language model, or peft's around one."""

    @property
    def causal(self) -> CausalLM:
        """The causal language model itself."""
        return self.model if self.config.adapter is None else self.model.get_base_model()


def check_adapter(config: AdapterConfig, num_ranks: int, device: torch.device) -> None:
    """Refuse what cannot be had here."""
    if lack := missing("adapter", "lora"):
        raise TrainingError(lack)
    if config.quantize is None:
        return
    if num_ranks > 1:
        why = f"works on one GPU, the runtime asks for {num_ranks}; remove quantize, or set "
        why += "runtime.gpus = 1"
    elif device.type != "cuda":  # on a processor its four-bit product has no gradient
        why = f"needs a CUDA GPU, the runtime's device is {device.type}; remove quantize"
    else:
        why = missing("", "qlora").strip()
    if why:
        raise TrainingError(f"adapter.quantize = {config.quantize!r} {why}")


def open_tokenizer(folder: Path, config: TuneConfig) -> tuple[Any, ChatFormat]:
    """Return the tokenizer, with a padding token, and the format of conversation."""
    tokenizer = load_tokenizer(folder)
    add_padding(tokenizer)
    chat_format = pick_format(config.format, folder, tokenizer)
    if config.thinking == "drop" and isinstance(chat_format, TemplateFormat):
        chat_format = chat_format.without_thoughts()
    return tokenizer, chat_format


def open_student(
    folder: Path, config: TuneConfig, device: torch.device, *, is_empty: bool = False
) -> LoadedBase:
    """Open the base for training, in float32."""
    torch.manual_seed(config.seed)  # new rows of the embeddings, and adapters, are drawn
    tokenizer, chat_format = open_tokenizer(folder, config)
    quantize = config.adapter.quantize if config.adapter else None
    model: CausalLM
    if is_empty:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                read_config(folder), dtype=torch.float32, trust_remote_code=False
            )
    elif quantize:
        how = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=quantize, bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
        model = load_model(folder, torch.float32, device_map={"": device}, quantization_config=how)
    else:
        model = load(folder, torch.float32, device)[1]
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        with torch.device("meta" if is_empty else device):
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if not _set_dropout(model, config.dropout) and config.dropout:
        raise TrainingError(
            f"dropout = {config.dropout}: {type(model).__name__} has no dropout; set it to 0"
        )
    if config.adapter is not None:
        torch.manual_seed(config.seed)
        model = _adapted(model, config.adapter)
    return LoadedBase(folder, config, tokenizer, chat_format, model)


def save_student(folder: Path, student: LoadedBase, group: Group) -> None:
    """Write the weights as they are as a Hugging Face folder; adapters are merged, and kept too.

    All processes of a group must call this together.
    """
    state = group.whole_state(student.model)
    if group.rank:
        return
    config = student.config.adapter
    if config is not None:
        model = _merged(folder / ADAPTER, student, state)
    elif state is not None:
        cpu = torch.device("cpu")
        model = open_student(student.folder, student.config, cpu, is_empty=True).model
        model.load_state_dict(state, assign=True)
        model.tie_weights()
    else:
        model = student.model
    save(folder, model, student.tokenizer, student.chat_format)


def _adapted(model: CausalLM, config: AdapterConfig) -> CausalLM:
    """Return a peft model around `model`, whose own weights are frozen now."""
    if config.quantize is not None:
        prepare: Any = peft.prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=False)
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    how = peft.LoraConfig(
        task_type="CAUSAL_LM", r=config.rank, lora_alpha=config.alpha,
        lora_dropout=config.dropout, target_modules=targets,
    )  # fmt: skip
    try:
        with warnings.catch_warnings():  # peft 0.21 asks transformers by names of the past
            warnings.simplefilter("ignore", FutureWarning)
            return peft.get_peft_model(model, how)
    except ValueError as error:
        known = sorted(
            {n.split(".")[-1] for n, m in model.named_modules() if "Linear" in str(type(m))}
        )
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"adapter.targets = {config.targets!r}: {reason:.120}; layers here: {', '.join(known)}"
        ) from None


def _set_dropout(model: CausalLM, probability: float) -> int:
    """Set every dropout of a model, and return how many there are.

    Some classes have layers for it, others pass a number of the module's own to a function.
    """
    num = 0
    for module in model.modules():
        numbers = [name for name, value in vars(module).items() if type(value) in (float, int)]
        is_layer = isinstance(module, torch.nn.modules.dropout._DropoutNd)
        names = ["p"] if is_layer else [name for name in numbers if _DROPOUT.search(name)]
        for name in names:
            setattr(module, name, 0.0 if name == "layerdrop" else probability)
        num += len(names)
    return num


def _merged(folder: Path, student: LoadedBase, state: dict[str, Any] | None) -> CausalLM:
    """Return the base with the adapters added to it; they are written to `folder` first.

    The base is read again: four-bit weights cannot take an addition, and one that is taken back
    would leave rounding errors in a training that continues.
    """
    config = student.config
    assert config.adapter is not None
    plain = config.adapter.model_copy(update={"quantize": None})
    config = config.model_copy(update={"adapter": plain})
    fresh = open_student(student.folder, config, torch.device("cpu")).model
    learned = peft.get_peft_model_state_dict(
        student.model, state_dict=state, save_embedding_layers=False
    )  # rows that were added for padding are frozen, and drawn the same in `fresh`
    peft.set_peft_model_state_dict(fresh, {name: part.cpu() for name, part in learned.items()})
    shutil.rmtree(folder, ignore_errors=True)
    fresh.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    about = json.loads((folder / ADAPTER_FILE).read_text())
    about["base_model_name_or_path"] = None  # a path of this machine
    (folder / ADAPTER_FILE).write_text(json.dumps(about, indent=1))
    if (student.folder / METRICS).is_file():  # an earlier training of the same run
        if (student.folder / ADAPTER).is_dir():
            _combine(student.folder / ADAPTER, folder)
        else:  # all weights were trained before: no adapter leads from the base to this model
            shutil.rmtree(folder)
    return fresh.merge_and_unload()


def _combine(first: Path, second: Path) -> None:
    """Make `second`, trained on the model that `first` was merged into, an adapter of its base.

    The ranks add up, so the result is exact: B1 A1 + B2 A2 = [B1 B2] [A1; A2].
    """
    abouts = [json.loads((path / ADAPTER_FILE).read_text()) for path in (first, second)]
    parts = [safe.load_file(path / ADAPTER_WEIGHTS) for path in (first, second)]
    ranks = [about["r"] for about in abouts]
    scales = [about["lora_alpha"] / about["r"] for about in abouts]
    combined = {}
    for name in sorted({*parts[0], *parts[1]}):
        is_down = ".lora_A." in name
        known = next(part[name] for part in parts if name in part)
        width = known.shape[1 if is_down else 0]
        shapes = [(rank, width) if is_down else (width, rank) for rank in ranks]
        own = [
            (part[name] if name in part else torch.zeros(shape)) * (1.0 if is_down else scale)
            for part, shape, scale in zip(parts, shapes, scales, strict=True)
        ]
        combined[name] = torch.cat(own, dim=0 if is_down else 1).contiguous()
    safe.save_file(combined, second / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    targets = [about["target_modules"] for about in abouts]
    names = {name for some in targets for name in ([some] if isinstance(some, str) else some)}
    about = {**abouts[1], "r": sum(ranks), "lora_alpha": sum(ranks)}
    about["target_modules"] = targets[0] if targets[0] == targets[1] else sorted(names)
    (second / ADAPTER_FILE).write_text(json.dumps(about, indent=1))


class NewModelConfig(Config):
    """Shape of a new Llama model. Every attribute is an ordinary Hugging Face configuration."""

    format: Literal["orca", "turns"] = "orca"
    """The format of conversation that the model will be trained in."""
    hidden_size: int = Field(128, gt=0)
    """Hidden size."""
    intermediate_size: int = Field(384, gt=0)
    """Hidden size of the feed-forward layers."""
    num_layers: int = Field(4, gt=0)
    """Number of layers."""
    num_heads: int = Field(4, gt=0)
    """Number of attention heads."""
    max_positions: int = Field(2048, gt=0)
    """Longest sequence in tokens."""
    rope_theta: float = Field(10_000.0, gt=0)
    """Base of the rotary position embedding."""
    tie_embeddings: bool = True
    """Share weights between the input and output embeddings."""
    previous_token_heads: int = Field(0, ge=0)
    """Heads of the first layer whose query and key biases start out preferring 1, 2, ... tokens
    back (ordinary learned parameters afterwards). A tiny model learns to copy sooner
    with them."""
    seed: int = 0
    """Random seed of the weights."""

    @model_validator(mode="after")
    def _heads_fit(self) -> NewModelConfig:
        if self.hidden_size % (2 * self.num_heads):
            given = f"hidden_size = {self.hidden_size} is no multiple of twice num_heads"
            raise ValueError(f"{given} = {self.num_heads}")
        if self.previous_token_heads > self.num_heads:
            raise ValueError("previous_token_heads is more than num_heads")
        return self


def plan_new_model(config: NewModelConfig, tokenizer: Estimate) -> Estimate:
    """Return the shape of the model without its vocabulary."""
    inner = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    return Estimate(
        seconds=2,
        parameters=config.num_layers * inner,
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
    )


@stage(version=1, writes=FOLDER, plan=plan_new_model, needs="local")
def new_model(ctx: Context, config: NewModelConfig, *, tokenizer: Artifact) -> None:
    """Write a randomly initialised Llama and its tokenizer as a Hugging Face folder."""
    words = load_tokenizer(tokenizer.path)
    add_padding(words)
    torch.manual_seed(config.seed)
    shape = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size, num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads, num_key_value_heads=config.num_heads,
        max_position_embeddings=config.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tie_embeddings, attention_bias=config.previous_token_heads > 0,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(shape)
    for head in range(config.previous_token_heads):
        _look_back(model, head, distance=head + 1, theta=config.rope_theta)
    ctx.count("parameters", model.num_parameters())
    ctx.count("vocabulary", len(words))
    save(ctx.out, model, words, FORMATS[config.format])


def add_padding(tokenizer: Any) -> None:  # noqa: ANN401 (transformers' type)
    """Give the tokenizer a padding token of its own unless it has one."""
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})


def save(folder: Path, model: CausalLM, tokenizer: Any, chat_format: ChatFormat) -> None:  # noqa: ANN401
    """Write a Hugging Face folder that also names the format of its conversations."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.chat_template = Renderer(tokenizer, chat_format).chat_template()
    tokenizer.save_pretrained(folder)
    values = chat_format.model_dump(exclude_defaults=True)
    (folder / FORMAT_FILE).write_text(json.dumps({"format": values}, indent=1))


def _look_back(model: CausalLM, head: int, *, distance: int, theta: float) -> None:
    """Make a head of the first layer prefer the token `distance` back, through its biases alone.

    Rotary positions turn the query bias at position i and the key bias at j into a score that
    depends on i - j only, and is largest where i - j = distance.
    """
    attention = model.model.layers[0].self_attn
    half = attention.head_dim // 2
    angles = distance * theta ** (-torch.arange(half) / half)
    rows = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
    query = torch.cat([angles.cos(), -angles.sin()])
    key = torch.cat([torch.ones(half), torch.zeros(half)])
    attention.q_proj.bias.data[rows] = POSITION_BIAS * query
    attention.k_proj.bias.data[rows] = POSITION_BIAS * key
