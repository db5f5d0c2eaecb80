"""Preference pairs from answers and ratings that exist already, as a file for DPO."""

from pydantic import Field

from spyhop.curate.prefer import PreferConfig, export_pairs, prefer
from spyhop.recipe.graph import Recipe, Source
from spyhop.schema import Config, NoConfig
from spyhop.settings import InputPath


class PreferringConfig(Config):
    """Settings of the `pairs` recipe."""

    chosen: tuple[InputPath, ...] = Field(min_length=1)
    """Files or folders of answers, such as a teacher's, or of rated pairs. Steps of earlier runs
    (`runs/NAME/STEP`) count as folders."""
    rejected: tuple[InputPath, ...] = ()
    """The same of answers to reject, such as an assistant's. Default: outcomes and ratings decide
    between the responses of `chosen`."""
    prefer: PreferConfig = PreferConfig()


def preferring(config: PreferringConfig, name: str = "pairs") -> Recipe:
    """Pair better with worse responses to the same prompts, and write them for DPO."""
    r = Recipe(name)
    chosen = {f"chosen-{n}": Source(path) for n, path in enumerate(config.chosen, 1)}
    rejected = {f"rejected-{n}": Source(path) for n, path in enumerate(config.rejected, 1)}
    more = {"rejected": rejected} if rejected else {}
    pairs = r.add("pairs", prefer, config.prefer, chosen=chosen, **more)
    r.add("export", export_pairs, NoConfig(), pairs=pairs)
    return r
