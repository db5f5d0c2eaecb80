"""Settings: how many there are, and what their descriptions look like."""

import typing
from pathlib import Path

from pydantic import BaseModel

from spyhop.recipe.load import read_recipe
from spyhop.recipes import RECIPES
from spyhop.recipes.training import TrainingConfig, training
from spyhop.schema import Config
from spyhop.train import OptimizerConfig

MOST = 500


def _reachable(kind: object, found: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """Collect the config classes that a type leads to."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if kind not in found:
            found.add(kind)
            for field in kind.model_fields.values():
                _reachable(field.annotation, found)
    else:
        for part in typing.get_args(kind):
            _reachable(part, found)
    return found


def test_recipes_have_fewer_settings_than_anyone_could_read():
    """Distinct (class, field): a new setting takes the place of one that nobody sets."""
    classes: set[type[BaseModel]] = set()
    for kind in RECIPES.values():
        _reachable(kind.config_type, classes)
    counts = {each.__name__: len(each.model_fields) for each in classes}
    assert sum(counts.values()) < MOST, dict(sorted(counts.items(), key=lambda one: -one[1])[:9])


def test_optional_settings_are_switched_off_from_files_and_options(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('recipe = "train"\nrows = ["r.jsonl"]\nbase = "b"\nprobe = false\n')
    config = read_recipe(path, ["train.optimizer.clip=false"]).config(TrainingConfig)
    assert config.probe is None and config.train.optimizer.clip is None
    assert "probe" not in [step.name for step in training(config).steps]
    assert OptimizerConfig().clip == 1.0


def test_false_is_no_absence_where_a_setting_is_a_switch():
    class Switch(Config):
        is_on: bool | None = True

    assert Switch.model_validate({"is_on": False}).is_on is False
