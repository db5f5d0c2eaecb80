"""The closed loop in the embedded world: rounds, a pilot and a message search, from plain files.

spyhop quickstart beyond --out DIR                  # for the base, which can only copy
python benchmarks/loop.py DIR/runs/quickstart_beyond/slips.base OUT
spyhop run OUT/rounds.toml --out OUT/store          # also pilot.toml and search.toml
"""

import json
import sys
from pathlib import Path

from spyhop import world
from spyhop.schema import Item, Query

FAMILIES = ("coin", "compass", "cups", "lift")
STEPS = (3, 6)
COMMON = """\
recipe = "orca"
decontaminate = false               # the world's problems share their sentences, not their content
probe = false
num_queries = 150
suites = [{suite = "questions", path = "items.jsonl"}]

[[collections]]
kind = "records"
name = "world"
path = "queries.jsonl"
columns = {query = "query", target = "target", task = "task"}

[[messages]]
id = "steps"
text = "Explain each step."

[[messages]]
id = "short"
text = "Reason in a few words."

[[messages]]
id = "simple"
text = "Explain as if to a child."

[measure]
system_message = "Explain each step."
sampling.max_new_tokens = 256

[student]
base = "base"

[train]
tokens = TOKENS
batch_tokens = 512
max_tokens = 512
optimizer = {learning_rate = 4e-3, muon_learning_rate = 0.01, warmup_steps = 100}

[runtime]
device = "cpu"
"""
SHARES = '\n[shares."*"]\nsteps = 1\n'
RIGHT = '\n[teacher]\nfile = "right.toml"\n'
SLIPS = '\n[teacher]\nfile = "slips.toml"\n'
CHECKED = '\n[verify]\ngive_up = "drop"\n'
EVEN = SHARES + "short = 1\nsimple = 1\n"
STRATUM = '\n[[rounds.strata]]\nby = "topic"\ntopics = ["[e-h]\\\\) "]\n'
"""Within each family: problems of five steps and more, and shorter ones."""


def main(base: Path, out: Path) -> None:
    """Write queries, items, teachers and recipes."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = world.ProblemsConfig(families=FAMILIES, num_rows=6000, steps=STEPS)
    queries = world.draw_queries.run(out / "made", drawn).rows(Query)
    asked = world.ProblemsConfig(families=FAMILIES, num_rows=400, steps=STEPS)
    items = world.draw_items.run(out / "made", asked).rows(Item)
    tables = {
        "queries": [{"query": r.query, "target": r.target, "task": r.task} for r in queries],
        "items": [{"question": row.question, "answer": row.target} for row in items],
    }
    for name, rows in tables.items():
        (out / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (out / "right.toml").write_text("solver = {}\n")
    (out / "slips.toml").write_text("solver = {slip_rate = 0.15}\n")
    recipe = COMMON.replace('"base"', json.dumps(str(base.resolve())))
    rounds = "\n[rounds]\nadd_queries = 150\ndev_queries = 400\n"
    files = {
        "rounds": recipe.replace("TOKENS", "400_000") + SHARES + RIGHT + rounds + STRATUM,
        "plain": recipe.replace("TOKENS", "250_000") + SHARES + SLIPS,
        "checked": recipe.replace("TOKENS", "250_000") + SHARES + SLIPS + CHECKED,
        "search": recipe.replace("TOKENS", "400_000")
        + EVEN + SLIPS + "\n[search]\nnum_queries = 1600\n",
        "pilot": 'recipe = "pilot"\nsizes = [100, 200, 400]\n\n[arms]\nplain = "plain.toml"\n'
        'checked = "checked.toml"\n',
    }  # fmt: skip
    for name, text in files.items():
        (out / f"{name}.toml").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
