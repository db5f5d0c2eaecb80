"""The model that is trained: opened from a folder, perhaps with adapters, and written as one.

Low-rank adapters (LoRA), on whole or on four-bit weights (QLoRA), through peft. Source: Hu et al.
(arXiv:2106.09685); Dettmers et al. (arXiv:2305.14314).
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spyhop.lazy import CausalLM, missing, peft, safe, torch, transformers
from spyhop.models.folder import load_model, load_tokenizer, read_config
from spyhop.models.local import TRAINING_FILE, load, pick_format
from spyhop.render import ChatFormat, TemplateFormat
from spyhop.schema import TrainingError
from spyhop.train.config import AdapterConfig, TuneConfig
from spyhop.train.distributed import Group
from spyhop.train.new_model import add_padding, save

METRICS = TRAINING_FILE
ADAPTER = "adapter"
"""Beside the merged weights: the adapter alone, as peft writes it."""
ADAPTER_FILE, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
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
        why = (
            f"works on one GPU, the runtime asks for {num_ranks}; remove quantize, or set "
            "runtime.gpus = 1"
        )
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
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = probability
            num += 1
            continue
        own = [n for n, value in vars(module).items() if type(value) in (float, int) and
               _DROPOUT.search(n)]  # fmt: skip
        for name in own:
            setattr(module, name, 0.0 if name == "layerdrop" else probability)
        num += len(own)
    return num


def _merged(folder: Path, student: LoadedBase, state: dict[str, Any] | None) -> CausalLM:
    """Return the base with the adapters added to it; they are written to `folder` first.

    The base is read again: four-bit weights cannot take an addition, and one that is taken back
    would leave rounding errors in a training that continues.
    """
    config = student.config
    assert config.adapter is not None
    plain = config.adapter.model_copy(update={"quantize": None})
    fresh = open_student(
        student.folder, config.model_copy(update={"adapter": plain}), torch.device("cpu")
    ).model
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
