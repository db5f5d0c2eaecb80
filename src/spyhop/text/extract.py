"""Find the answer in a model's response. Pure functions, linear in the length of the text.

Two readings of a multiple-choice response stand side by side, since they disagree where it matters:
`first_capital` is the rule of the Orca paper, kept so that its numbers can be compared; `choice` is
the default. Free answers go through `final_answer` and `matches`. Nothing here guesses: a response
without a readable answer gives None, which is counted apart from a wrong answer.

A base model may go on after its answer and invent the next question. Everything is read as the
response here; cutting it is the business of the stop strings.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

BARE_ANSWER_CHARS = 60
"""A response without a cue is read as one bare answer up to this length, if it is a single line."""

# Every repetition below is bounded, so that no response, however ugly, costs more than linear time.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
_MARKUP = {**_INVISIBLE, **str.maketrans("\u2018\u2019", "''", '*`$"\u201c\u201d')}
_TYPOGRAPHY = {
    **_INVISIBLE,
    **str.maketrans("\u2212\u2018\u2019\u201c\u201d", "-''\"\""),
}
_SPACES = re.compile(r"[^\S\n]+")
_TAGS = re.compile(r"</?[a-z]{1,10}>|\\(?:text|textbf|textrm|mathrm|mathbf)\b", re.IGNORECASE)

_HYPOTHETICAL = re.compile(
    r"(?:\b(?:if|whether|unless|suppos\w{1,4}|assum\w{1,4}|doubt)|(?:not|n't) (?:think|believe))"
    r"(?: that)?(?: (?:the|my|your|our|final|correct|right|best|option|choice)){0,3}[ (]{0,2}$"
    r"|\b(?:wrong|incorrect|false|possible|other|another|initial|previous) $",
    re.IGNORECASE,
)
_HYPOTHETICAL_CHARS = 60

_TO_THE_QUESTION = r"(?: to (?:the|this) (?:question|problem))?"
_CUE = (
    r"(?:\b(?:answer|(?:correct|right|best|final|appropriate|likely) (?:choice|option))"
    rf"{_TO_THE_QUESTION}(?: (?:choice|option|letter))?\s{{0,3}}"
    r"(?:is|was|would be|should be|must be|will be|[:=])"
    r"(?: (?:therefore|thus|hence|then|clearly|definitely|probably|(?:most )?likely|still),?)?"
    r"|\\boxed)"
)
_NO_ANSWER = (
    r"(?:none|neither|either|both|unknown|unclear|undetermined|ambiguous|impossible to|"
    r"not (?:possible|clear|given|listed|among)|cannot|can't)\b"
)
_SET_OFF = (  # what ends a bare label, so that "A dog", "I'm", "C.S." and "3.5" are none
    r"(?:[)\]}]|[.,;:!'](?!\w)|\s{0,3}$|"
    r" (?:\(|[-\u2013\u2014] |(?:because|since|as|given|due|based|which)\b))"
)

_FREE_CUE = re.compile(
    rf"\banswer{_TO_THE_QUESTION}\s{{0,3}}(?:is|was|[:=])(?:\s{{0,3}}:)?|####", re.IGNORECASE
)
_REST_OF_LINE = re.compile(r"[\s*]{0,8}([^\n]*)")
_SENTENCE_END = re.compile(r"(?<=\S)[.!?](?=[)\]}\"'*$]{0,4}(?:\s|$))")
_BOX = re.compile(r"\\boxed ?\{([^{}\n]{1,200})\}")
_OUTER_START = " \"'`*_$#({[,;:\u20ac\u00a3"
_OUTER_END = " \"'`*_$#)}],;:.!?"
_NUMBER = re.compile(r"([-+]?)(0|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]*)(?:\.([0-9]+))?")
_TRUTH_WORD = re.compile(
    r"(true|false|yes|no|valid|invalid)(?=[,;:.)]| ?[-\u2013\u2014] | (?:because|since|as)\b)"
)


def first_capital(text: str, labels: Sequence[str]) -> str | None:
    """Return the first character of `text` that is one of `labels`: the Orca paper's rule.

    Known hazards, all of them the paper's: a capital inside a word counts ("Based on" gives B,
    "After" A, "Choice" C), so does a label that is only mentioned ("(A) is wrong, so (B)" gives A),
    and an answer in small letters is missed. A model that explains first is misread more often
    than one that opens with the letter. Options labelled by digits cannot be read this way.

    Args:
        text: The response, cue not included.
        labels: Single capital letters. AGIEval's own code takes A to F for every question;
            pass "ABCDEF" to repeat that.

    Raises:
        ValueError: If a label is not one capital letter.

    Source: Orca (arXiv:2306.02707), parsing of multiple-choice answers; AGIEval v1 has the same.
    """
    if odd := [label for label in labels if len(label) != 1 or not label.isupper()]:
        raise ValueError(f"labels {odd} are not single capital letters; use `choice` for them")
    wanted = frozenset(labels)
    return next((char for char in text if char in wanted), None)


def choice(text: str, labels: Sequence[str]) -> str | None:
    r"""Return the label that a response states as its answer, or None when it states none.

    Precedence; the first level that holds anything decides:

    1. Statements: "the answer is (C)", "Answer: C", "option C is the correct answer", "\boxed{C}".
       The last one counts, since models correct themselves. Under a condition or a doubt ("if
       the answer is C"), or called wrong, it is no statement.
    2. Lines that hold a label and nothing else: "(C)", "C.", "Option C". They must agree.
    3. A response that opens with a label set off from what follows: "(C) the jay", "C. The jay",
       "C because". It must not open a list of options; other options may be discussed further
       down, as Orca's teachers do when they answer first and then say why the rest is wrong.

    A statement of several labels ("(A) or (B)"), or of none ("none of the above"), is an answer
    that cannot be scored: None, also when an earlier statement was clear. A label that is merely
    mentioned never counts, nor does the article in "the answer is a dog".

    Args:
        text: The response, cue not included. Markdown, LaTeX boxes and full-width forms are fine.
        labels: What the options are called, `A`, `B`, ... or `0`, `1`, ...; matched in either
            case, returned as given here.
    """
    spelling = {label.upper(): label for label in labels}
    if not spelling:
        return None
    clean = _plain(text)
    statement, line, opening = _patterns(tuple(spelling))
    found = [m for m in statement.finditer(clean) if not _is_hypothetical(clean, m.start())][-1:]
    if not found:
        found = list(line.finditer(clean))
    if not found and (head := opening.match(clean)):
        found = [] if _opens_list(clean, head, opening, list(spelling)) else [head]
    stated = {_stated(match) for match in found}
    return spelling.get(stated.pop()) if len(stated) == 1 else None


def _plain(text: str) -> str:
    """Drop markup and invisible characters; bring full-width forms and spaces to the plain ones."""
    clean = unicodedata.normalize("NFKC", text).translate(_MARKUP)
    return _SPACES.sub(" ", _TAGS.sub("", clean)).strip()


def _is_hypothetical(text: str, start: int) -> bool:
    """Say whether what begins at `start` stands under a condition or a doubt."""
    return bool(_HYPOTHETICAL.search(text[max(0, start - _HYPOTHETICAL_CHARS) : start]))


def _stated(match: re.Match[str]) -> str:
    """Return the upper-case label of a match, "" where it states several or none."""
    groups = match.groupdict()
    label = next((groups[name] for name in ("label", "first", "bare") if groups.get(name)), "")
    return "" if groups.get("also") else label.upper()


def _opens_list(
    text: str, head: re.Match[str], opening: re.Pattern[str], labels: list[str]
) -> bool:
    """Say whether the label at the head of `text` is the first of several, one after another."""
    line, _, below = text[head.end() :].partition("\n")
    if _stated(head) == labels[0] and len(labels) > 1:
        second = re.escape(labels[1])
        if re.search(rf"(?<!\w){second}[).:]", line):
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
        r"(?=(?P<also>[)\]}']{0,2} ?(?:, ?|/ ?|& ?|(?:or|and|nor) ){1,3}(?:option |choice )?"
        rf"(?:{bracketed}|(?!(?-i:a|i)\b)(?:{any_label})(?!\w))))"
    )
    option = r"(?:(?:option|choice|letter|answer) ?:? ?)?"
    verdict = (
        rf"(?<![\w'])(?:[({{\[']{{1,2}}(?P<first>{any_label})[)}}\]']{{1,2}}"
        rf"|(?P<bare>(?-i:{any_label})))"
        r" is (?:therefore |thus |clearly )?(?:the|our|my) (?:most |only ){0,2}"
        r"(?:correct|right|best|final|appropriate) (?:answer|choice|option)\b"
    )
    statement = (
        rf"{_CUE}[\s({{\[':\\]{{0,8}}{option}[({{\[']{{0,2}}"
        rf"(?:(?P<label>{any_label})(?:{also}|{_SET_OFF})|{_NO_ANSWER})"
        rf"|{verdict}"
    )
    line = (
        rf"^[ #>-]{{0,6}}(?:final |correct )?{option}[({{\['\\]{{0,3}}(?P<label>{any_label})"
        r"[)}\]'.,;:!\\]{0,4}\s{0,3}$"
    )
    opening = (
        rf"^(?![AQ]:|I,){option}(?:[({{\[']{{1,2}}(?P<label>{any_label})(?:{also}|[)}}\]'])"
        rf"|(?P<bare>(?-i:{any_label})){_SET_OFF})"
    )
    flags = re.IGNORECASE | re.MULTILINE
    return re.compile(statement, flags), re.compile(line, flags), re.compile(opening, flags)


def final_answer(text: str) -> str | None:
    r"""Return the free answer that a response states, normalised, or None.

    It is what follows the last "answer is", "Answer:" or "####" up to the end of the sentence or
    line; else the last "\boxed{...}"; else the whole response if that is one line of at most
    `BARE_ANSWER_CHARS` characters. Of "Yes, since ..." only the word is kept.

    An abbreviation ends the sentence too early ("the answer is Dr. Who" gives "dr").

    The gap to the metric published with the BIG-Bench-Hard outputs (exact match of what stands
    between "the answer is" and the full stop): none on the 12 tasks it was compared on.
    """
    clean = _SPACES.sub(" ", text.translate(_INVISIBLE))
    cues = [m for m in _FREE_CUE.finditer(clean) if not _is_hypothetical(clean, m.start())]
    if cues:
        line = _REST_OF_LINE.match(clean, cues[-1].end())
        stated = _SENTENCE_END.split(line.group(1), maxsplit=1)[0] if line else ""
    elif boxes := _BOX.findall(clean):
        stated = boxes[-1]
    else:
        stated = clean.strip()
        if len(stated) > BARE_ANSWER_CHARS or "\n" in stated:
            return None
    answer = normalise(stated)
    if word := _TRUTH_WORD.match(answer):
        answer = word.group(1)
    return answer or None


def normalise(answer: str) -> str:
    """Return `answer` in the form in which free answers are compared. Idempotent.

    Case, outer punctuation, quotes and brackets, markup, runs of white space, thousands
    separators, a currency sign and the zeros of "24.0" go; inner punctuation, signs and units stay.
    An answer of punctuation only (`] ] >`) is left as it is.
    """
    plain = answer.translate(_TYPOGRAPHY).replace("\\boxed", " ").lower()
    bare = " ".join(unicodedata.normalize("NFC", plain).split())
    bare = bare.rstrip(_OUTER_END).lstrip(_OUTER_START) or bare
    if number := _NUMBER.fullmatch(bare):
        sign, whole, fraction = number.groups()
        fraction = (fraction or "").rstrip("0")
        digits = whole.replace(",", "") + (f".{fraction}" if fraction else "")
        return f"-{digits}" if sign == "-" and digits.strip("0.") else digits
    return bare


def matches(extracted: str | None, target: str) -> bool:
    """Say whether an extracted answer equals the gold text once both are normalised.

    None matches nothing. There is no substring or fuzzy matching: "5 apples" is not "5".
    """
    return extracted is not None and normalise(extracted) == normalise(target)
