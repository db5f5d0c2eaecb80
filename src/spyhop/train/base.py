"""The model that is trained: opened from a folder, perhaps with adapters, and written as one."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spyhop.lazy import peft, torch, transformers
from spyhop.models.folder import load_model, load_tokenizer, read_config
from spyhop.models.local import TRAINING_FILE, load, pick_format
from spyhop.render import ChatFormat, TemplateFormat
from spyhop.schema import TrainingError
from spyhop.train.adapter import ADAPTER, adapted, combine, loading
from spyhop.train.config import TuneConfig
from spyhop.train.distributed import Group
from spyhop.train.new_model import add_padding, save

METRICS = TRAINING_FILE
_DROPOUT = re.compile(r"dropout(_p|_prob|_rate)?$|_pdrop$|^layerdrop$")


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A model in training, with its tokenizer."""

    folder: Path
    """Of the base."""
    config: TuneConfig
    tokenizer: Any
    chat_format: ChatFormat
    model: Any
    """What has the trained parameters: a causal language model, or peft's around one."""

    @property
    def causal(self) -> Any:  # noqa: ANN401 (transformers' type)
        """The causal language model itself."""
        return self.model if self.config.adapter is None else self.model.get_base_model()


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
    how = loading(config.adapter)
    if is_empty:
        with torch.device("meta"):
            model: Any = transformers.AutoModelForCausalLM.from_config(
                read_config(folder), dtype=torch.float32, trust_remote_code=False
            )
    elif how:
        model = load_model(folder, torch.float32, device_map={"": device}, **how)
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
        model = adapted(model, config.adapter)
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


def _set_dropout(model: Any, probability: float) -> int:  # noqa: ANN401 (transformers' type)
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


def _merged(folder: Path, student: LoadedBase, state: dict[str, Any] | None) -> Any:  # noqa: ANN401
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
    about = json.loads((folder / "adapter_config.json").read_text())
    about["base_model_name_or_path"] = None  # a path of this machine
    (folder / "adapter_config.json").write_text(json.dumps(about, indent=1))
    if (student.folder / METRICS).is_file():  # an earlier training of the same run
        if (student.folder / ADAPTER).is_dir():
            combine(student.folder / ADAPTER, folder)
        else:  # all weights were trained before: no adapter leads from the base to this model
            shutil.rmtree(folder)
    return fresh.merge_and_unload()
