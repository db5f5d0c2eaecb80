"""Texts with places to fill."""

import re

_NAME = re.compile(r"\{([A-Za-z_][\w.]*)\}")


def names(template: str) -> list[str]:
    """Return the `{name}`s of a template, in order."""
    return _NAME.findall(template)


def fill(template: str, **values: str) -> str:
    """Return a text with its `{name}`s replaced in one pass; the values are used as they are."""
    return _NAME.sub(lambda found: values.get(found[1], found[0]), template)
