r"""Multiple choice: whether a query lists options, and the one that a response chooses.

`choice` is the default, guesses nothing and is linear in the length of the text; `first_capital` is
the rule of the Orca paper, kept so that its numbers can be compared.
"""

import re
import string
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from spyhop.text.extract import is_hypothetical
from spyhop.text.normal import normal
from spyhop.text.tables import source

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
_LINE = re.compile(r"(?:- |\(([A-Z])\) ?)(.*)")
# Every repetition below is bounded, so that no response, however ugly, costs more than linear time.
_MARKUP = str.maketrans("\u2018\u2019", "''", '*`$"\u201c\u201d')
_SPACES = re.compile(r"[^\S\n]+")
_TAGS = re.compile(
    r"</?[a-z]{1,10}>|\\(?:text|textbf|textrm|mathrm|mathbf|boldsymbol|left|right)\b"
    r"|\\[(\[] ?| ?\\[)\]]",
    re.IGNORECASE,
)
_CUE, _ELSEWHERE = source("choice_cue"), source("choice_cue_elsewhere")
_VERBS, _NO_ANSWER, _WRONG = map(source, ("choice_verbs", "choice_none", "choice_wrong"))
_SET_OFF = (  # the end of a bare label; "A dog", "I'm", "C.S." and "3.5" have none
    r"(?:[)\]}]|[.,;:!'](?!\w)|\s{0,3}$|[\u3001\u3002\u3040-\u9fff]|"
    r" (?:\(|[-\u2013\u2014] |(?:because|since|as|given|due|based|which|here|for)\b))"
)


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


def first_capital(text: str, labels: Sequence[str]) -> str | None:
    """Return the first character of `text` that is one of `labels`: the Orca paper's rule.

    Known hazards, all of them the paper's: a capital inside a word counts ("Based on" gives B), so
    does a label that is only mentioned ("(A) is wrong, so (B)" gives A), and an answer in small
    letters is missed; a model that explains first is misread more often. Labels are single capital
    letters; AGIEval's own code takes "ABCDEF" for every question.

    Source: Orca (arXiv:2306.02707), parsing of multiple-choice answers; AGIEval v1 has the same.
    """
    if odd := [label for label in labels if len(label) != 1 or not label.isupper()]:
        raise ValueError(f"labels {odd} are not single capital letters; use `choice` for them")
    wanted = frozenset(labels)
    return next((char for char in text if char in wanted), None)


def choice(text: str, labels: Sequence[str]) -> str | None:
    r"""Return the label that a response states as its answer, or None when it states none.

    Precedence; the first level that finds anything decides:

    1. Statements: "the answer is (C)", "Answer: C", "option C is the correct answer", "\boxed{C}",
       "I would choose C", "it is likely to be C", "not B but C". The last one counts, since models
       correct themselves. Under a condition or a doubt ("if the answer is C"), or called wrong, it
       is no statement.
    2. Lines of a label and nothing else: "(C)", "C.", "Option C". They must agree.
    3. A response that opens with a label set off from what follows: "(C) the jay", "C. The jay",
       "C because". It must not open a list of options; other options may be discussed further
       down, as Orca's teachers do when they answer first and then say why the rest is wrong.

    A statement of several labels ("(A) or (B)") or no label ("none of the above") is an answer
    that cannot be scored: None, also when an earlier statement was clear. A label that is merely
    mentioned never counts, nor does the article in "the answer is a dog".

    `text` is without cue and thought; Markdown and LaTeX are read. `labels` (`A`, ... or `0`, ...)
    match in either case.
    """
    spelling = {label.upper(): label for label in labels}
    if not spelling:
        return None
    clean = unicodedata.normalize("NFKC", normal(text)).translate(_MARKUP)
    clean = _SPACES.sub(" ", _TAGS.sub("", clean)).strip()
    statement, line, opening = _patterns(tuple(spelling))
    found = [m for m in statement.finditer(clean) if not is_hypothetical(clean, m.start())][-1:]
    if not found:
        found = list(line.finditer(clean))
    if not found and (head := opening.match(clean)):
        found = [] if _opens_list(clean, head, opening, list(spelling)) else [head]
    stated = {_stated(match) for match in found}
    return spelling.get(stated.pop()) if len(stated) == 1 else None


def _stated(match: re.Match[str]) -> str:
    """Return the upper-case label of a match, "" where it does not state exactly one."""
    groups = {name: text for name, text in match.groupdict().items() if text is not None}
    if {"also", "also_weak"} & groups.keys():
        return ""
    names = ("label", "weak", "first", "bare")
    return next((groups[name] for name in names if groups.get(name)), "").strip("(){}[]'").upper()


def _opens_list(
    text: str, head: re.Match[str], opening: re.Pattern[str], labels: list[str]
) -> bool:
    """Say whether the label at the head of `text` is the first of several, one after another."""
    line, _, below = text[head.end() :].partition("\n")
    is_first = _stated(head) == labels[0] and len(labels) > 1
    if is_first and re.search(rf"(?<!\w){re.escape(labels[1])}[).:]", line):
        return True
    following = opening.match(below.lstrip())
    if not following or _stated(following) == _stated(head):
        return False
    is_adjacent = not below.startswith("\n")
    return is_adjacent or [_stated(head), _stated(following)] == labels[:2]


@lru_cache(maxsize=64)
def _patterns(labels: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Compile the three levels of `choice` (statement, line, opening) for upper-case labels."""
    any_label = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    bracketed = rf"[({{\[]{{1,2}}(?:{any_label})[)}}\]]"
    also = (
        r"(?=[)\]}']{0,2} ?(?:, ?|/ ?|& ?|(?:or|and|nor) |[\u6216\u548c\u4e0e\u3001]){1,3}"
        rf"(?:option |choice )?(?:{bracketed}|(?!(?-i:a|i)\b)(?:{any_label})(?!\w)))"
    )
    option = r"(?:(?:option|choice|letter|answer) ?:? ?)?"
    rather = (  # "not B but C"
        rf"(?:not {option}[({{\[']{{0,2}}(?:{any_label})[)}}\]']{{0,2}}[,;]? "
        r"(?:but|rather|it is|it's)(?: rather| instead)? )?"
    )
    verdict = (
        r"(?<![\w'])(?<!and )(?<!or )(?<!nor )"
        rf"(?:[({{\[']{{1,2}}(?P<first>{any_label})[)}}\]']{{1,2}}"
        rf"|(?<![({{\[])(?P<bare>(?-i:{any_label}))[)}}\]']?)"
        r" is (?:therefore |thus |clearly )?(?:(?:the|our|my) (?:most |only ){0,2}"
        r"(?:(?:correct|right|best|final|appropriate) (?:answer|choice|option)|answer)"
        r"|correct|right)\b"
    )
    opened = r"[\s({\[':\\]{0,8}"
    statement = (
        rf"(?:{_CUE}|{_ELSEWHERE}){opened}{rather}{option}[({{\[']{{0,2}}"
        rf"(?:(?P<label>{any_label})(?:{also}(?P<also>)|{_SET_OFF})|{_NO_ANSWER})"
        rf"|(?:{_VERBS})[\s:']{{1,3}}{rather}{option}(?P<weak>[({{\[']{{1,2}}(?:{any_label})[)}}\]']"
        rf"|(?-i:{any_label}))(?:{also}(?P<also_weak>)|{_SET_OFF})"
        rf"|{verdict}"
    )
    line = (
        rf"^[ #>-]{{0,6}}(?:final |correct )?{option}[({{\['\\]{{0,3}}(?P<label>{any_label})"
        r"[)}\]'.,;!\\]{0,4}\s{0,3}$"
    )
    opening = (
        rf"^(?:A:\s{{1,3}}(?=[({{\[']{{0,2}}(?-i:{any_label})(?!\w)))?"  # the cue of an answer
        rf"(?![AQ]:|I,|(?:{any_label}):\s*$)(?!{option}{bracketed}{_WRONG}){option}"
        rf"(?:[({{\[']{{1,2}}(?P<label>{any_label})(?:{also}(?P<also>)|[)}}\]'])"
        rf"|(?P<bare>(?-i:{any_label})){_SET_OFF})"
    )
    flags = re.IGNORECASE | re.MULTILINE
    return re.compile(statement, flags), re.compile(line, flags), re.compile(opening, flags)
