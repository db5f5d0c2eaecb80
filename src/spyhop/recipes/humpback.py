"""Humpback: rounds of self-augmentation and self-curation, from seed pairs and web pages.

Source: Humpback (arXiv:2308.06259): a backward model writes instructions for segments, the student
rates the pairs, the best ones and the seeds train the next student, who rates again.
"""

from spyhop.recipe.graph import Recipe, Ref
from spyhop.recipes.auditing import add_audits
from spyhop.recipes.humpback_arms import add_arms, add_report
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.inputs import served
from spyhop.recipes.rounds import Data, Rounds, add_data, add_rounds, add_scores


def humpback(config: HumpbackConfig, name: str = "humpback") -> Recipe:
    """Rounds on seed pairs and web pages: write instructions, rate, keep, train, compare."""
    r = Recipe(name)
    data = add_data(r, config)
    rounds = add_rounds(r, config, data)
    arms = add_arms(r, config, data, rounds)
    add_report(r, config, data, rounds, arms, _audits(r, config, data, rounds))
    return r


def _audits(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds) -> dict[str, Ref]:
    """Add the imitation audit of the best student; its teacher is the text it was trained on."""
    student = rounds.best_scores.get("accuracy")
    if config.judge is None or student is None:
        return {}
    base = add_scores(r, config, data, "base", data.base)["accuracy"]
    rows = {"pairs": r.step(f"{rounds.last}.rows")}
    return add_audits(r, [served(config.judge)], data.items, base, student, rows)
