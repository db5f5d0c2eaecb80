"""Print the results of a quick start as the Markdown tables of a benchmark file.

spyhop quickstart --thorough --out DIR
python benchmarks/quickstart.py DIR/runs/thorough/report
"""

import json
import sys
from pathlib import Path

ALL = "all"


def points(row: dict[str, float]) -> str:
    """A difference in percentage points with its interval."""
    return f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


def accuracies(rows: list[dict], setting: str) -> None:
    """Accuracy of every arm: over all seeds, by family, and each seed."""
    found = [row for row in rows if row["setting"] == setting]
    families = [f for f in dict.fromkeys(row["family"] for row in found) if f != ALL]
    seeds = [s for s in dict.fromkeys(row["seed"] for row in found) if s != ALL]
    print(
        f"| arm | n | accuracy % | 95 % interval | {' | '.join(families)} | seeds "
        f"{', '.join(map(str, seeds))} | tokens | seconds |"
    )
    print("|---" * (7 + len(families)) + "|")
    for arm in dict.fromkeys(row["arm"] for row in found):
        mine = {(row["family"], row["seed"]): row for row in found if row["arm"] == arm}
        whole = mine[ALL, ALL]
        by_family = [f"{100 * mine[family, ALL]['accuracy']:.1f}" for family in families]
        by_seed = ", ".join(f"{100 * mine[ALL, seed]['accuracy']:.1f}" for seed in seeds)
        print(
            f"| {arm} | {whole['n']:,} | {100 * whole['accuracy']:.1f} | "
            f"{100 * whole['low']:.1f} to {100 * whole['high']:.1f} | {' | '.join(by_family)} | "
            f"{by_seed} | {whole['tokens']:,} | {whole['seconds']:.0f} |"
        )
    chance = [f"{100 * mine[family, ALL]['chance']:.1f}" for family in families]
    print(f"| guessing | | {100 * whole['chance']:.1f} | | {' | '.join(chance)} | | | |")


def comparisons(rows: list[dict], setting: str) -> None:
    """Paired differences, second minus first, in points."""
    found = [row for row in rows if row["setting"] == setting]
    families = [f for f in dict.fromkeys(row["family"] for row in found) if f != ALL]
    print(f"| second - first | all | p | {' | '.join(families)} |")
    print("|---" * (3 + len(families)) + "|")
    for pair in dict.fromkeys((row["second"], row["first"]) for row in found):
        mine = {row["family"]: row for row in found if (row["second"], row["first"]) == pair}
        p_value = mine[ALL]["p_value"]
        shown = "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
        by_family = " | ".join(points(mine[family]) for family in families)
        print(f"| {pair[0]} - {pair[1]} | {points(mine[ALL])} | {shown} | {by_family} |")


def main(report: Path) -> None:
    """Print both tables of every setting."""
    results = json.loads((report / "results.json").read_text())
    differences = json.loads((report / "comparisons.json").read_text())
    for setting in dict.fromkeys(row["setting"] for row in results):
        print(f"\n### {setting}\n")
        accuracies(results, setting)
        print()
        comparisons(differences, setting)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
