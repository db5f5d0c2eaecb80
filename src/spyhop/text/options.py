"""Whether a query is multiple choice: as its template's name says, else as its text shows."""

import re
import string

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


def named(template: str) -> bool | None:
    """Return what a template's name says, or None if it does not say.

    FLAN marks templates as `zs_opt` and `zs_noopt`. The second means no; the first means that
    options are shown if the task has any, so the text decides.
    """
    name = template.lower()
    if re.search(NAMED_NOT, name):
        return False
    return True if re.search(NAMED, name) else None


def has_options(text: str) -> bool:
    """Return whether a text lists options to choose from."""
    return re.search(OPTIONS, text) is not None


_LINE = re.compile(r"(?:- |\(([A-Z])\) ?)(.*)")


def labels(num: int) -> list[str]:
    """Return the labels of `num` options: A to Z, then AA, AB and so on."""
    letters = string.ascii_uppercase
    return [(letters[n // 26 - 1] if n >= 26 else "") + letters[n % 26] for n in range(num)]


def listed(options: object) -> list[str] | None:
    """Return the texts of options: of a list, or of lines that all are `(A) text` or `- text`."""
    if not isinstance(options, str):
        texts = options if isinstance(options, list | tuple) else [None]
        is_text = all(isinstance(text, str | int | float) for text in texts)
        return [str(text).strip() for text in texts] if is_text else None
    lines = [_LINE.fullmatch(line.rstrip()) for line in options.split("\n") if options]
    found = [line[1] for line in lines if line]
    is_whole = len(found) == len(lines) and found in ([None] * len(lines), labels(len(lines)))
    return [line[2].strip() for line in lines if line] if is_whole else None
