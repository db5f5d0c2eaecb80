"""Settings: how many there are, and what their descriptions look like."""

import typing

from pydantic import BaseModel

from spyhop.recipes import RECIPES

MOST = 400


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
