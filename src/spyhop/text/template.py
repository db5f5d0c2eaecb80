"""Texts with places to fill, and whole pages of Markdown."""

import json
import re
from functools import cache

from pydantic import AfterValidator

from spyhop.lazy import jinja2
from spyhop.text.escape import markdown

_NAME = re.compile(r"\{([A-Za-z_][\w.]*)\}")


def names(template: str) -> list[str]:
    """Return the `{name}`s of a template, in order."""
    return _NAME.findall(template)


def fill(template: str, **values: str) -> str:
    """Return a text with its `{name}`s replaced in one pass; the values are used as they are."""
    return _NAME.sub(lambda found: values.get(found[1], found[0]), template)


def places(*required: str) -> AfterValidator:
    """Return the check of a setting: its text must have these places."""

    def check(template: str) -> str:
        if missing := [name for name in required if f"{{{name}}}" not in template]:
            raise ValueError(f"it has no {{{missing[0]}}}")
        return template

    return AfterValidator(check)


def write_markdown(package: str, name: str, **values: object) -> str:
    """Return the page of the Jinja template `templates/<name>` of a package.

    Filters: `markdown` shows text of unknown origin, `json` writes a value, `num` a number.
    """
    return _environment(package).get_template(name).render(**values)


@cache
def _environment(package: str) -> "jinja2.Environment":
    found = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"markdown": markdown, "json": json.dumps, "num": "{:,}".format}
    return found
