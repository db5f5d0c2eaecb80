"""The embedded world as files, for recipes that read a user's own: queries, items, a teacher."""

import json
from pathlib import Path
from typing import Any

from spyhop import world
from spyhop.schema import Item, Query


def write_world(folder: Path, words: Any) -> dict[str, Any]:
    """Write files, and return settings of `orca` that read them: a new, tiny student."""
    families = ("coin", "lift")
    drawn = world.ProblemsConfig(num_rows=120, families=families, steps=(1, 3))
    queries = world.draw_queries.run(folder / "made", drawn)
    asked = world.ProblemsConfig(num_rows=8, families=families, steps=(1, 3))
    items = world.draw_items.run(folder / "made", asked)
    _write(folder / "queries.jsonl", [
        {"query": row.query, "target": row.target, "task": row.task} for row in queries.rows(Query)
    ])  # fmt: skip
    _write(folder / "items.jsonl", [
        {"question": row.question, "answer": row.target} for row in items.rows(Item)
    ])  # fmt: skip
    (folder / "teacher.toml").write_text("solver = {}\n")
    words.save_pretrained(folder / "words")
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2}
    return {
        "collections": [
            {"kind": "records", "name": "world", "path": folder / "queries.jsonl",
             "columns": {name: name for name in ("query", "target", "task")}}
        ],
        "decontaminate": None, "probe": None,
        "messages": [{"id": "steps", "text": "Explain each step."},
                     {"id": "short", "text": "Reason in a few words."}],
        "shares": {"*": {"steps": 1.0}},
        "num_queries": 30,
        "teacher": {"file": folder / "teacher.toml"},
        "student": {"tokenizer": folder / "words", "new": {**shape, "format": "turns"}},
        "train": {"tokens": 1000, "batch_tokens": 512, "max_tokens": 512},
        "suites": [{"suite": "questions", "path": folder / "items.jsonl"}],
        "measure": {"sampling": {"max_new_tokens": 8}},
    }  # fmt: skip


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
