r"""Numbers in answers: the value of a gold answer, and the final number of a response.

How the final number is found; the first rule that applies decides:

1. *Marked*: the number behind the last mark of a final answer: `\boxed{}`, `####`, "the answer
   is". "Answer:" and "A:" are marks only if their line has nothing but the answer, since a
   derivation may follow. If the last mark has no readable number, the response has no answer.
2. *Concluded*: without a mark, the number of the last sentence that has one; at most two sentences
   without a number may follow. A response that was cut off has no conclusion.

In a passage with several numbers: of an equation, the number behind its last `=`; of a sentence
with "so", "therefore" and the like, what follows it; numbers in brackets and in adverbials ("in 3
days", "out of 20", "for 4 people") count only if there are no others. If different numbers are
left, there is no answer: nothing is guessed. Units, currencies and percent signs are ignored;
thousands separators, fractions, mixed numbers, powers of ten, and "million" are read.
"""

import re
from fractions import Fraction
from itertools import pairwise

from spyhop.text.extract import marks, sentences
from spyhop.text.normal import normal
from spyhop.text.tables import pattern

_CURRENCY = r"(?:US|CA|A)?[$\u20ac\u00a3\u00a5\u20b9]|(?:USD|EUR|GBP|Rs\.?) ?"
_GROUPED = r"[0-9]{1,3}(?:,[0-9]{2,3}){0,19},[0-9]{3}(?!,?[0-9])"
_DIGITS = rf"(?:{_GROUPED}|[0-9]{{1,60}}(?!,[0-9]{{3}}(?![0-9])))"
_LATIN = r"a-zA-Z0-9_\u00c0-\u024f"
_NUMBER = re.compile(
    rf"(?<![{_LATIN}.^/])(?<!\^\{{)(?<![0-9][,:])(?P<sign>(?<![{_LATIN})%])(?<![0-9)%] )[-+])?"
    rf"(?:(?:{_CURRENCY}) ?)?(?P<minus>-)?"
    rf"(?:(?P<whole>[0-9]{{1,6}}) (?P<top>[0-9]{{1,4}})/(?P<bottom>[0-9]{{1,4}})"
    rf"|(?P<over>{_DIGITS})/(?P<under>{_DIGITS})(?!/[0-9])"
    rf"|(?P<value>{_DIGITS}(?:\.[0-9]{{1,60}})?|\.[0-9]{{1,60}}))"
    r"(?: ?[*x\u00d7] ?10\^\{?(?P<power>[-+]?[0-9]{1,2})\}?|[eE](?P<e>[-+]?[0-9]{1,2}))?"
    r"(?: (?P<scale>thousand|million|billion|trillion)\b)?"
    r"(?P<unit>[a-zA-Z\u00b0\u20ac\u00a3]{1,4})?"
    rf"(?![{_LATIN}^]|/[^a-zA-Z\s]|[.,:][0-9]|-[a-zA-Z]|\\[a-zA-Z])"
)
MAX_CHARS = 4000
"""Characters of a sentence that are read, the last ones."""
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_VARIABLES = frozenset("xyznabtkiXYN")
_FORMULA = r"\\(?!boxed|fbox)[a-zA-Z]{1,20} ?(?:\[[^\[\]]{0,20}\])?\{[^{}]{0,200}\}"
_LATEX = (
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boldsymbol) ?\{([^{}]{0,60})\}"), r" \1 "),
    (re.compile(r"(?<=[0-9])(?=\\[dt]?frac)"), " "),
    (re.compile(r"\\[dt]?frac ?\{([^{}]{1,40})\} ?\{([^{}]{1,40})\}"), r"\1/\2 "),
    (re.compile(r"\\[,!;: ]|\{,\}"), lambda found: "," if found[0] == "{,}" else ""),
    (re.compile(r"\\([$%#&_])"), r"\1"),
    (re.compile(r"\\(?:times|cdot)\b|\u00d7"), "*"),
    (re.compile(r"\\div\b|\u00f7"), "/"),
    (re.compile(r"\\(?:approx|simeq|Rightarrow|implies|equiv)\b|\u2248|\u2192|\u21d2"), "="),
    (re.compile(r"\^\{?\\circ\}?|\\[()\[\]]|\\(?:left|right|displaystyle|quad)\b|[*_`]{2,3}"), " "),
    (re.compile(r"\u2212|\u2013(?=[0-9])"), "-"),
    (re.compile(r"(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))"), ","),
    (re.compile(_FORMULA), r"\\formula"),
)
_MATH = re.compile(r"[\\{*_`]")
_STEP = re.compile(
    r"^[\s>#*-]{0,8}(?:(?:step|part|question) ?[0-9]{1,3}|[0-9]{1,3})[.):] ", re.IGNORECASE
)
_SO, _SUBORDINATE = pattern("numbers_so"), pattern("numbers_subordinate")
_ADVERBIAL, _REASON = pattern("numbers_adverbial"), pattern("numbers_reason")
_NO_ANSWER = pattern("numbers_no_answer")
_OPERATOR = re.compile(r"\s*[-+*/x^]\s*")
_OPERAND_BEFORE = re.compile(r"(?:[0-9)}%]|\b[a-zA-Z]|\\formula) ?[-+*^] ?$")
_OPERAND_AFTER = re.compile(
    r" ?(?:[-+*^] ?(?:[0-9]|\\[a-zA-Z]|[({]|[a-zA-Z]\b)|\\formula|\([a-zA-Z]\b)"
)
_ALTERNATIVE = re.compile(r"\W{0,3}(?:[a-zA-Z%]{1,15} )?(?:or|to|and)(?: maybe| even)?\W{0,3}")
_EITHER = re.compile(
    r"[0-9]\s{0,3}\bor\b[^=\n]{0,20}$"
    r"|\b[a-zA-Z] ?= ?-?[0-9./]{1,20} ?(?:,|;|and)(?: and)? ?[a-zA-Z] ?$"
)
_ASIDE = re.compile(
    r"\([^()\n]{0,200}\)|\[[^\[\]\n]{0,200}\]|,? ?\b(?:not|rather than|instead of)\b"
    r" [^,.;\n]{0,200}?(?= but\b|[,.;\n]|$)"
)
_BARE_WORDS = 3
"""Words beside the number on the line of an "Answer:" that states nothing but the answer."""


def number_of(gold: str) -> Fraction | None:
    """Return the value of a gold answer that is a number, with its currency or percent sign."""
    text = plain_math(normal(gold)).strip(" $.=\n\t")
    found = _NUMBER.fullmatch(text.removesuffix("%").removesuffix("percent").strip())
    return None if found is None or found["unit"] else _value(found)


def final_number(response: str, *, is_whole: bool = True) -> Fraction | None:
    """Return the number that a response gives as its answer, or None; see the module's rules.

    Of a response that its model did not end, only a marked answer is read.
    """
    text = plain_math(normal(response))
    numbers = _numbers(text)
    last = numbers[-1].start() if numbers else 0
    for mark in reversed(marks(text)):
        parts = sentences(mark.text)
        passage = parts[0] if mark.kind != "box" else mark.text
        if mark.kind == "hash" and not _numbers(passage):  # a heading
            continue
        if mark.kind in ("label", "line"):  # a number with a unit or, behind "Answer:", an equation
            words = re.findall(r"[A-Za-z]{2,}", _NUMBER.sub(" ", mark.text))
            is_derived = mark.kind == "line" and "=" in mark.text
            num_parts = sum(map(bool, map(str.strip, parts)))
            if is_derived or num_parts != 1 or len(words) > _BARE_WORDS:
                continue
        if _numbers(passage) or last < mark.end:
            stated = _REASON.split(passage, maxsplit=1)[0]
            return _single(stated if _numbers(stated) else passage)
    return _concluded(text) if is_whole else None


def plain_math(text: str) -> str:
    """Return a text with LaTeX and typographic signs of arithmetic as plain ones."""
    if text.isascii() and not _MATH.search(text):
        return text
    for form, plain in _LATEX:
        text = form.sub(plain, text)
    return text


def same_number(one: Fraction, two: Fraction) -> bool:
    """Return whether two numbers are equal, up to the rounding of binary floating point."""
    is_whole = one.denominator == two.denominator == 1
    return one == two or (not is_whole and abs(one - two) * 10**12 <= max(abs(one), abs(two)))


def _concluded(text: str) -> Fraction | None:
    """Return the number of the last sentence that has one, unless too much follows it."""
    num_without = 0
    for line in reversed(text.split("\n")):
        is_open = line.rstrip().endswith((":", "?"))
        for sentence in reversed(sentences(_STEP.sub("", line))):
            if _numbers(sentence):
                return None if is_open else _single(sentence[-MAX_CHARS:])
            num_without += bool(sentence.strip())
            is_open = is_open and not sentence.strip()
            if num_without > 2:
                return None
    return None


def _single(passage: str) -> Fraction | None:
    """Return the number that a passage states, None if there are several different ones."""
    if _NO_ANSWER.match(passage):
        return None
    before, _, after = passage.rpartition("=")
    if _EITHER.search(before):
        return None
    passage = after if before and _numbers(after) else passage
    for so in reversed(list(_SO.finditer(passage))):
        if _numbers(passage[so.end() :]):
            passage = passage[so.end() :]
            break
    clause = passage.rpartition(", ")[2]
    if _SUBORDINATE.match(passage) and _numbers(clause):
        passage = clause
    outside = _ASIDE.sub(" ", passage)
    if _numbers(outside):
        passage = outside
    found = _numbers(passage)
    before_each = (passage[max(0, number.start() - 60) : number.start()] for number in found)
    main = [
        number
        for number, text in zip(found, before_each, strict=True)
        if "$" in number[0] or not _ADVERBIAL.search(text.rstrip("$\u20ac\u00a3 ") + " ")
    ]
    values = {_value(number) for number in main or found}
    between = (passage[one.end() : two.start()] for one, two in pairwise(found))
    has_alternatives = any(map(_ALTERNATIVE.fullmatch, between))  # "3 or 4", "3 to 5"
    return values.pop() if len(values) == 1 and not has_alternatives else None


def _numbers(text: str) -> list[re.Match[str]]:
    """Return the numbers of a text that are no operands, coefficients or names."""
    found = [
        number
        for number in _NUMBER.finditer(text)
        if (number["unit"] is None or number["unit"] not in _VARIABLES)
        and not _OPERAND_BEFORE.search(text[max(0, number.start() - 12) : number.start()])
        and not _OPERAND_AFTER.match(text, number.end())
    ]
    links = [
        bool(_OPERATOR.fullmatch(text[one.end() : two.start()] + (two["sign"] or "")))
        for one, two in pairwise(found)
    ]
    sides = zip([False, *links], [*links, False], strict=True)
    return [number for number, joined in zip(found, sides, strict=False) if not any(joined)]


def _value(number: re.Match[str]) -> Fraction:
    clean = {name: text.replace(",", "") for name, text in number.groupdict().items() if text}
    value = Fraction(clean.get("value") or clean.get("whole") or 0)
    top, bottom = clean.get("top") or clean.get("over"), clean.get("bottom") or clean.get("under")
    if top and bottom and int(bottom):
        value += Fraction(int(top), int(bottom))
    value *= Fraction(10) ** int(clean.get("power") or clean.get("e") or 0)
    value *= _SCALES.get(clean.get("scale", ""), 1)
    return -value if "-" in (clean.get("sign"), clean.get("minus")) else value
