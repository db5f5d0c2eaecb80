"""Whether a query is multiple choice: as its template's name says, else as its text shows."""

import re

NAMED_NOT = r"no_?opt|no_?choice|without_(options|choices)"
NAMED = r"choices?(_|\b)|multiple_choice|options"

OPTIONS = (
    r"(?im)"
    r"^[ \t>*#-]*(answer |possible |the |here are the )*(options|choices)( are)?:"
    r"|[ \t](options|choices|alternatives)( are)?:[ \t]*$"
    r"|\(a\)[^\n]*\(b\)"
    r"|^[ \t]*\(?a[).:][^\n]+\n+[ \t]*\(?b[).:] "
)
"""A heading `Options:` or `Choices:`, or options that begin with (A) and (B), A) and B), A. and B.

Written for both Python's `re` and RE2, so that tables are searched by the same rule.
"""
_OPTIONS = re.compile(OPTIONS)


def named(template: str) -> bool | None:
    """Return what a template's name says, or None where it says nothing.

    FLAN marks templates as `zs_opt` and `zs_noopt`. The second means no; the first only that
    options stand there if the task has any, so the text decides.
    """
    name = template.lower()
    if re.search(NAMED_NOT, name):
        return False
    return True if re.search(NAMED, name) else None


def has_options(text: str) -> bool:
    """Return whether a text lists options to choose from."""
    return _OPTIONS.search(text) is not None
