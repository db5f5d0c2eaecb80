"""Data sets of known order: does `spyhop scale` order their slopes right?

Three sets of worked problems of the embedded world: in `clean` every response answers its own
question, in `half` every second one is exchanged for another row's, in `mixed` all are. The
held-out rows are clean. The more of a set's rows teach something, the more it gains by growing:
clean > half > mixed.

python benchmarks/scale.py OUT 0 1 2 3 4 5 6 7 8 9
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from spyhop import world
from spyhop.recipe import Recipe, resolve, run
from spyhop.recipes.scale import ScaleConfig, scale
from spyhop.runtime import Runtime
from spyhop.schema import Pair
from spyhop.train import NewModelConfig, OptimizerConfig, TuneConfig, new_model

PLANTED = {"clean": 0, "half": 2, "mixed": 1}
"""Every how many rows one is exchanged, by set, in the order of their slopes."""
SIZES = ((50, 20), (100, 40), (200, 80), (400, 160))
"""Rows and steps."""
STUDENT = NewModelConfig(
    format="turns",
    hidden_size=64,
    intermediate_size=160,
    num_layers=2,
    num_heads=4,
    max_positions=512,
    rope_theta=100.0,
    previous_token_heads=2,
)
OPTIMIZER = OptimizerConfig(learning_rate=4e-3, muon_learning_rate=0.01, warmup_steps=10)
BATCH_ROWS = 2
"""Of 450 tokens each, as the recipe counts them."""


def write(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """Write questions and responses as training rows."""
    with path.open("w") as file:
        for question, response in rows:
            turns = [("user", question), ("assistant", response)]
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def problems(root: Path, num: int, seed: int) -> list[tuple[str, str]]:
    """Return worked problems of the embedded world."""
    drawn = world.ProblemsConfig(families=world.CORE, num_rows=num, steps=(3, 4), seed=seed)
    pairs = world.draw_pairs.run(root, drawn)
    return [(row.instruction, row.response) for row in pairs.rows(Pair)]


def planted(rows: Sequence[tuple[str, str]], every: int) -> list[tuple[str, str]]:
    """Exchange the responses of every `every`-th row in a circle; 0 exchanges none."""
    places = range(0, len(rows), every) if every else range(0)
    found = list(rows)
    for place, other in zip(places, [*places[1:], *places[:1]], strict=True):
        found[place] = (rows[place][0], rows[other][1])
    return found


def measured(
    out: Path,
    seed: int,
    sizes: Sequence[tuple[int, int]] = SIZES,
    names: Sequence[str] = tuple(PLANTED),
) -> dict[str, float]:
    """Return the slope of each planted set under one seed, and the p-value of equal slopes."""
    folder = out / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = problems(out, max(num for num, _ in sizes), seed)
    sets = {name: write(folder / f"{name}.jsonl", planted(rows, PLANTED[name])) for name in names}
    held_out = write(folder / "held-out.jsonl", problems(out, 60, 1000 + seed))
    config = ScaleConfig(
        sets=sets,
        base=base(out),
        points=[{"num_rows": n, "batch_rows": BATCH_ROWS, "steps": s} for n, s in sizes],
        seeds=(seed,),
        train=TuneConfig(epochs=1, optimizer=OPTIMIZER, max_tokens=512).model_dump(
            include={"optimizer", "max_tokens"}
        ),
        held_out=held_out,
    )
    made = run(resolve(scale(config, f"scale-{seed}"), out), Runtime(device="cpu", workers=1))
    results = json.loads(made["report"].file("results.json").read_text())
    found = {row["kind"]: row["value"] for row in results if row.get("table") == "alpha"}
    (test,) = [row for row in results if row.get("table") == "equal slopes"]
    return {**found, "p": test["p_value"]}


def base(out: Path) -> Path:
    """Make the untrained model that every student starts from."""
    r = Recipe("base")
    tokenizer = r.add("tokenizer", world.train_tokenizer, world.TokenizerConfig())
    r.add("model", new_model, STUDENT, tokenizer=tokenizer)
    return run(resolve(r, out), Runtime(device="cpu"))["model"].path


def main() -> None:
    """Print a line for each seed, and how many are in order."""
    out, seeds = Path(sys.argv[1]), [int(each) for each in sys.argv[2:]]
    num_right = 0
    for seed in seeds:
        found = measured(out, seed)
        is_right = found["clean"] > found["half"] > found["mixed"]
        num_right += is_right
        slopes = ", ".join(f"{name} {found[name]:+.3f}" for name in PLANTED)
        print(f"seed {seed}: {slopes}, p = {found['p']:.2g}, {'right' if is_right else 'WRONG'}")
    print(f"{num_right} of {len(seeds)} in order")


if __name__ == "__main__":
    main()
