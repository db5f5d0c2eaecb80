"""Turn the rewritten forms of ARC, PIQA, Social IQa and others into the published ones.

LLM-Adapters publishes the test sets as instructions ("... Answer1: ... Answer2: ..."). This makes
rows with the columns of the published data sets, in the folders that `spyhop tasks` reads:

    python benchmarks/commonsense_forms.py llm_adapters_commonsense/dataset OUT

Every row is written back in the rewritten form and compared: rows that differ are counted and left
away. What the rewriting lost stays lost: ids, the original labels of ARC (some are 1 to 4), and
the passages of BoolQ, which cannot be converted at all.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def choices(question: str, texts: list[str], gold: int) -> Row:
    """ARC and OpenBookQA, whose stem has another name."""
    known = [chr(ord("A") + n) for n in range(len(texts))]
    stem = {"question": question, "question_stem": question}
    return {**stem, "choices": {"text": texts, "label": known}, "answerKey": known[gold]}


def solutions(question: str, texts: list[str], gold: int) -> Row:
    """PIQA."""
    return {"goal": question, "sol1": texts[0], "sol2": texts[1], "label": gold}


def social(question: str, texts: list[str], gold: int) -> Row:
    """Social IQa: the question is the last sentence; where it is not, the row says so."""
    found = re.fullmatch(r"(?s)(.+[.!?\"']) (?=[^.!?]*\?$)(.+)", question)
    context, asked = found.groups() if found else ("", question)
    answers = dict(zip(("answerA", "answerB", "answerC"), texts, strict=True))
    return {"context": context, "question": asked, **answers, "label": str(gold + 1)}


def blanks(question: str, texts: list[str], gold: int) -> Row:
    """WinoGrande."""
    return {"sentence": question, "option1": texts[0], "option2": texts[1], "answer": str(gold + 1)}


FORMS: dict[str, tuple[str, str, int, Callable[[str, list[str], int], Row]]] = {
    "ARC-Easy": ("Answer", "ai2_arc/ARC-Easy/test.jsonl", 2376, choices),
    "ARC-Challenge": ("Answer", "ai2_arc/ARC-Challenge/test.jsonl", 1172, choices),
    "openbookqa": ("Answer", "openbookqa/main/test.jsonl", 500, choices),
    "piqa": ("Solution", "piqa/validation.jsonl", 1838, solutions),
    "social_i_qa": ("Answer", "siqa/validation.jsonl", 1954, social),
    "winogrande": ("Option", "winogrande/winogrande_xl/validation.jsonl", 1267, blanks),
}


def parts(row: Row, word: str) -> tuple[str, list[str], int] | None:
    """Return question, options and gold; None where writing them back gives another text."""
    head, colon, text = row["instruction"].partition(": ")
    body, _, end = text.rpartition("Answer format: ")
    space = " " if word == "Option" else "\n\n"
    question, *options = re.split(rf"(?:\n\n| ){word}\d+: ", body.removesuffix(space))
    shown = " ".join(f"{word}{n}: {each}" for n, each in enumerate(options, start=1))
    if word == "Solution":
        shown = shown.replace(" Solution2: ", "\n\nSolution2: ", 1)
    again = f"{head}{colon}{question}\n\n{shown}{space}Answer format: {end}"
    gold = int(re.sub(r"\D", "", row["answer"])) - 1
    if again != row["instruction"] or len(options) < 2 or gold >= len(options):
        return None
    return question, options, gold


def main(source: Path, out: Path) -> None:
    """Convert every file that is there, and print how many rows each gave."""
    for name, (word, place, published, form) in FORMS.items():
        rows = json.loads((source / name / "test.json").read_text(encoding="utf-8"))
        found = [form(*each) for row in rows if (each := parts(row, word))]
        target = out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found]
        target.write_text("".join(lines), encoding="utf-8")
        unsplit = sum(row.get("context") == "" for row in found)
        note = f"; {unsplit} without a context of their own" if form is social else ""
        print(f"{name}: {len(found):,} of {len(rows):,} rows, published {published:,}{note}")
    print("boolq: not possible, the passages are missing")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
