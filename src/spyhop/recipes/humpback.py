"""Humpback: rounds of self-augmentation and self-curation, from seed pairs and web pages.

Source: Humpback (arXiv:2308.06259): a backward model writes instructions for segments, the student
rates the pairs, the best ones and the seeds train the next student, who rates again.
"""

from spyhop.recipe.graph import Recipe
from spyhop.recipes.humpback_arms import add_arms, add_report
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.rounds import add_data, add_rounds


def humpback(config: HumpbackConfig, name: str = "humpback") -> Recipe:
    """Rounds on seed pairs and web pages: write instructions, rate, keep, train, compare."""
    r = Recipe(name)
    data = add_data(r, config)
    rounds = add_rounds(r, config, data)
    arms = add_arms(r, config, data, rounds)
    add_report(r, config, data, rounds, arms)
    return r
