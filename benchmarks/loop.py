"""The closed loop in the embedded world: rounds, a pilot and a message search, from plain files.

spyhop quickstart beyond --out DIR                  # for the base, which can only copy
python benchmarks/loop.py DIR/runs/quickstart_beyond/slips.base OUT 0 1 2 3 4
spyhop run OUT/0/rounds.toml --out OUT/store        # also pilot.toml and search.toml; each seed
python benchmarks/loop.py table OUT/store 0 1 2 3 4

Seeds share the held-out problems; each draws its own queries, slips and order of training.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spyhop import world
from spyhop.schema import Item, Query, Score
from spyhop.statistics import seed_interval, seed_item_difference
from spyhop.store.artifact import load

FAMILIES = ("coin", "compass", "cups", "lift")
STEPS = (3, 6)
COMMON = """\
recipe = "orca"
decontaminate = false               # the world's problems share their sentences, not their content
probe = false
num_queries = 150
seed = SEED
name = "NAME-SEED"
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
seed = SEED
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


COMPARED = {
    "rounds": (
        ("round-1-random", "round-1"),
        ("student", "round-1"),
        ("student", "round-1-random"),
    ),
    "pilot": tuple((f"plain-{size}", f"checked-{size}") for size in (100, 200, 400)),
}


def write(base: Path, out: Path, seed: int) -> None:
    """Write queries, items, teachers and recipes of a seed."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = world.ProblemsConfig(families=FAMILIES, num_rows=6000, steps=STEPS, seed=seed)
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
    (out / "slips.toml").write_text(f"solver = {{slip_rate = 0.15, seed = {seed}}}\n")
    recipe = COMMON.replace('"base"', json.dumps(str(base.resolve())))
    rounds = "\n[rounds]\nadd_queries = 150\ndev_queries = 400\n"
    files = {
        "rounds": recipe.replace("TOKENS", "400_000") + SHARES + RIGHT + rounds + STRATUM,
        "plain": recipe.replace("TOKENS", "250_000") + SHARES + SLIPS,
        "checked": recipe.replace("TOKENS", "250_000") + SHARES + SLIPS + CHECKED,
        "search": recipe.replace("TOKENS", "400_000")
        + EVEN + SLIPS + "\n[search]\nnum_queries = 1600\n",
        "pilot": 'recipe = "pilot"\nname = "NAME-SEED"\nsizes = [100, 200, 400]\n\n'
        '[arms]\nplain = "plain.toml"\nchecked = "checked.toml"\n',
    }  # fmt: skip
    for name, text in files.items():
        named = text.replace("NAME", name).replace("SEED", str(seed))
        (out / f"{name}.toml").write_text(named)


def table(store: Path, seeds: Sequence[int]) -> None:
    """Print each student's accuracy over the seeds, and the differences, over seeds and items."""
    for recipe, pairs in COMPARED.items():
        names = dict.fromkeys(["base", *(name for pair in pairs for name in sorted(pair))])
        found = {name: _right(store, recipe, name, seeds) for name in names}
        for name, right in found.items():
            by_seed = 100 * right.mean(axis=1)
            print(recipe, name, seed_interval(by_seed.tolist()), by_seed.round(1).tolist())
        for first, second in pairs:
            by_seed = 100 * (found[second] - found[first]).mean(axis=1)
            difference = seed_item_difference(found[first], found[second])
            print(recipe, f"{second} - {first}", difference, by_seed.round(1).tolist())


def _right(store: Path, recipe: str, name: str, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return whether each held-out problem was right, (seeds, problems)."""
    rows = []
    for seed in seeds:
        path = store / "runs" / f"{recipe}-{seed}" / f"scores-{name}"
        scores = load(path.resolve())
        if scores is None:
            raise SystemExit(f"{path}: not measured; run the recipe first")
        rows.append([row.correct for row in scores.rows(Score)])  # in the items' order
    return np.array(rows, float)


if __name__ == "__main__":
    if sys.argv[1] == "table":
        table(Path(sys.argv[2]), [int(seed) for seed in sys.argv[3:]])
    else:
        for number in map(int, sys.argv[3:]):
            write(Path(sys.argv[1]), Path(sys.argv[2]) / str(number), number)
