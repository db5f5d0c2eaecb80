"""How often the filters of generated instructions reject human ones, and labelled generated ones.

    python benchmarks/instructions.py DATA [LABELLED.jsonl ...]

DATA is a folder with the public sets below. A labelled file has rows of `text` (the response),
`out` (what a backward model wrote for it) and `is_bad`. Texts are not printed unless `--show`.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from spyhop.augment import InstructionFilters, ReversedConfig
from spyhop.augment.instruction import InstructionCheck, clean

CHECK = InstructionCheck(InstructionFilters(), ReversedConfig())


def human_sets(data: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield name, instructions and responses of sets that people wrote."""
    dolly = [json.loads(line) for line in (data / "dolly_slices/dolly.jsonl").open()]
    asked = [
        row["prompt"].split("### Instruction:\n")[-1].split("\n\n### Response")[0] for row in dolly
    ]
    yield "dolly", [(text, row["answer"]) for text, row in zip(asked, dolly, strict=True)]
    trees = [
        json.loads(line) for line in (data / "oasst1_en_validation/en-validation.jsonl").open()
    ]
    first = {row["parent_id"]: row["text"] for row in reversed(trees) if row["parent_id"]}
    opening = [row for row in trees if row["parent_id"] is None]
    yield "oasst1", [(row["text"], first.get(row["message_id"], "")) for row in opening]
    lima = json.loads((data / "lima/lima.json").read_text())
    yield "lima", [(row["instruction"], row["output"]) for row in lima]
    outputs = json.loads((data / "alpaca_eval/text_davinci_003/model_outputs.json").read_text())
    yield "alpaca_eval", [(row["instruction"], row["output"]) for row in outputs]
    vicuna = (data / "vicuna80_answers_reviews/question.jsonl").open()
    yield "vicuna", [(json.loads(line)["text"], "") for line in vicuna]


def main() -> None:
    """Print a line for each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("labelled", type=Path, nargs="*")
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    for name, rows in human_sets(given.data):
        reasons = Counter(CHECK.reason(clean(text), response, "en") for text, response in rows)
        num = reasons.total() - reasons.pop("", 0)
        print(f"{name}: {num} of {len(rows)} rejected ({num / len(rows):.1%}) {dict(reasons)}")
    for path in given.labelled:
        counts = Counter[tuple[bool, bool]]()
        for row in map(json.loads, path.open()):
            text = clean(row["out"])
            reason = CHECK.reason(text, row["text"], "en")
            counts[row["is_bad"], bool(reason)] += 1
            if given.show and row["is_bad"] != bool(reason):
                print("missed" if row["is_bad"] else f"false alarm ({reason})", repr(text[:200]))
        caught, missed = counts[True, True], counts[True, False]
        alarms, good = counts[False, True], counts[False, False] + counts[False, True]
        print(f"{path.name}: {caught} of {caught + missed} bad, {alarms} alarms of {good} good")


if __name__ == "__main__":
    main()
