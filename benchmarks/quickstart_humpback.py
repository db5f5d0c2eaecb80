"""Print the results of a Humpback quick start as the Markdown tables of a benchmark file.

spyhop quickstart humpback --thorough --out DIR
python benchmarks/quickstart_humpback.py DIR/runs/thorough_humpback/report
"""

import json
import sys
from pathlib import Path

from quickstart import accuracies, comparisons

from spyhop.report.curation import over_seeds


def curation(rows: list[dict], setting: str) -> None:
    """Precision and recall of each round: over the seeds, and each seed."""
    found = [row for row in rows if row["setting"] == setting]
    print("| round | | % | 95 % over seeds | seed by seed |")
    print("|---" * 5 + "|")
    for number in dict.fromkeys(row["round"] for row in found):
        for name in ("precision", "recall", "base_rate"):
            values = [row[name] for row in found if row["round"] == number]
            mean = over_seeds(values)
            by_seed = ", ".join(f"{100 * value:.1f}" for value in values)
            print(
                f"| {number} | {name.replace('_', ' ')} | {100 * mean.value:.1f} | "
                f"{100 * mean.low:.1f} to {100 * mean.high:.1f} | {by_seed} |"
            )


def funnel(rows: list[dict], setting: str) -> None:
    """What became of the documents of each kind, all seeds together."""
    found = [row for row in rows if row["setting"] == setting]
    rounds = list(dict.fromkeys(row["round"] for row in found))
    kept = [f"kept in round {number}" for number in rounds]
    print(f"| kind | documents | with an instruction | recovered | {' | '.join(kept)} |")
    print("|---" * (4 + len(kept)) + "|")
    for kind in found[0]["kinds"]:
        first = [row["kinds"][kind] for row in found if row["round"] == rounds[0]]
        cells = [sum(each[name] for each in first) for name in ("documents", "written")]
        cells.append(sum(each["recovered"] for each in first))
        cells += [
            sum(row["kinds"][kind]["kept"] for row in found if row["round"] == number)
            for number in rounds
        ]
        print(f"| {kind} | {' | '.join(f'{cell:,}' for cell in cells)} |")


def main(report: Path) -> None:
    """Print the tables of every setting."""
    results = json.loads((report / "results.json").read_text())
    differences = json.loads((report / "comparisons.json").read_text())
    curated = json.loads((report / "curation.json").read_text())
    for setting in dict.fromkeys(row["setting"] for row in results):
        print(f"\n### {setting}\n")
        accuracies(results, setting)
        print()
        comparisons(differences, setting)
        print()
        curation(curated, setting)
        print()
        funnel(curated, setting)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
