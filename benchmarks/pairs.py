"""DPO on exported pairs, here and in TRL: the same loss, gains and margins on the same pairs.

    python benchmarks/pairs.py ours PAIRS STUDENT REFERENCE          # pairs.jsonl, model folders
    PY benchmarks/pairs.py trl PAIRS STUDENT REFERENCE               # PY has TRL, and not spyhop

TRL's trainer reads the file as `spyhop run` of `recipe = "pairs"` wrote it. Both compute in float32
and print means over the first pairs; TRL then takes two steps of training.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

BETA, NUM_PAIRS, MAX_TOKENS = 0.1, 16, 1024


def ours(pairs: Path, student: Path, reference: Path) -> dict[str, float]:
    """Return the figures of our scores."""
    from spyhop.collect import MessagesConfig, read_preferences
    from spyhop.schema import Preference
    from spyhop.store import Source
    from spyhop.train import TuneConfig, reference_config, score_pairs
    from spyhop.train.preference import PairScore

    how = TuneConfig(epochs=1, max_tokens=MAX_TOKENS, precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = read_preferences.run(root, MessagesConfig(), file=Source(pairs).open(root))
        assert len(list(rows.rows(Preference))) == NUM_PAIRS
        scores = [
            np.array([(row.chosen, row.rejected) for row in score_pairs.run(
                root, reference_config(how), base=Source(model).open(root), pairs={"pairs": rows}
            ).rows(PairScore)])
            for model in (student, reference)
        ]  # fmt: skip
    chosen, rejected = BETA * (scores[0] - scores[1]).T
    margins = chosen - rejected
    return {
        "loss": float(np.logaddexp(0, -margins).mean()), "chosen": float(chosen.mean()),
        "rejected": float(rejected.mean()), "margins": float(margins.mean()),
        "accuracies": float((margins > 0).mean()),
    }  # fmt: skip


def trl(pairs: Path, student: Path, reference: Path) -> dict[str, float]:
    """Return the figures of TRL's trainer, and its loss over two steps."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    data = load_dataset("json", data_files=str(pairs), split="train")
    first, second = (
        AutoModelForCausalLM.from_pretrained(path, dtype="float32") for path in (student, reference)
    )
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, beta=BETA, use_cpu=True, max_length=MAX_TOKENS, max_steps=2,
            bf16=False, per_device_train_batch_size=4, per_device_eval_batch_size=4,
            learning_rate=1e-6, report_to="none", disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        trainer = DPOTrainer(
            model=first, ref_model=second, args=config, train_dataset=data, eval_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(student),
        )  # fmt: skip
        found = trainer.evaluate()
        trained = trainer.train().training_loss
    names = {"loss": "eval_loss"} | {
        name: f"eval_rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")
    }
    return {name: found[key] for name, key in names.items()} | {"loss of two steps": trained}


if __name__ == "__main__":
    by, file, *models = sys.argv[1:]
    with tempfile.TemporaryDirectory() as made:
        few = Path(made) / "pairs.jsonl"
        with Path(file).open() as lines:
            few.write_text("".join(line for line, _ in zip(lines, range(NUM_PAIRS), strict=False)))
        figures = {"ours": ours, "trl": trl}[by](few, *map(Path, models))
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))
