"""Formulas and raised or lowered text, written so that plain text keeps their meaning."""

import re
from html import escape, unescape

_ORDINAL = re.compile("st|nd|rd|th|er|re|ere|e|o|a|os|as|me|\u00e8re|\u00e8me", re.IGNORECASE)
_NUMBER = re.compile(r"[-+\u2212]?\d+(?:[.,/]\d+)?[-+\u2212]?")
_LETTERS = re.compile(r"[^\W\d_]{2,}\.?|[^\w\s]+", re.UNICODE)
_ELEMENT = re.compile(r"(?:[A-Z][a-z]?|[)\]])$")
_TEX = re.compile(
    r"<annotation(?=[^<>]{0,500}?application/x-tex)[^<>]*+>([^<]*+)</annotation", re.IGNORECASE
)
_ATTRIBUTE = r"""\s(?:{})\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)"""
_ALT = re.compile(_ATTRIBUTE.format("alttext|alt"), re.IGNORECASE)
_NAMED = re.compile(_ATTRIBUTE.format("class|src|id"), re.IGNORECASE)
_IS_FORMULA = re.compile(
    r"(?i)math|latex|(?:^|[\W_])(?:tex|formula|equation|eqn?)(?:$|[\W_])|wiris"
)
_TAG_SPACE = re.compile(r" ?(<[^<>]*>) ?")
_INNERMOST = re.compile(r"<([\w-]+)[^<>]*>([^<>]*)</\1\s*>")
_END = "\x1f"  # ends each child of an element
_QUOTES = "\"'"
_JOINTS = {"msup": "^", "msub": "_", "mfrac": "/", "mover": "^", "munder": "_", "mroot": "^1/"}
MAX_DEPTH = 30
_MATHML = re.compile(
    r"(<span[^<>]*>\s*)?<math(?=[\s>])([^<>]*)>([^<]*+(?:<(?!/?math\b)[^<]*+)*+)</math\s*>(\s*</span>)?"
)
_MATHJAX = re.compile(
    r"<script(?=[^<>]{0,500}?\btype\s{0,9}=\s{0,9}[\"']?math/(?:tex|asciimath))[^<>]*+>"
    r"([^<]*+(?:<(?!/script)[^<]*+)*+)</script\s*>"
)
_PICTURE = re.compile(
    r"<img(?=\s[^<>]{0,2000}?(?:math|latex|\btex\b|formula|equation|wiris))([^<>]*+)>"
)


def written_script(base: str, script: str, *, is_raised: bool) -> str:
    """Return raised or lowered text as plain text: `10^6`, `x_i`, but `H2O`, `1st` and `[3]`."""
    script = " ".join(script.split())
    plain = unescape(script)
    before = unescape(base[-24:])
    if not plain or not before or not (before[-1].isalnum() or before[-1] in ")]}"):
        return script
    is_number = _NUMBER.fullmatch(plain)
    if is_raised:
        is_word = not is_number and _LETTERS.fullmatch(plain)
        is_plain = bool(is_word or _ORDINAL.fullmatch(plain)) or plain[0] in "[("
    else:
        is_plain = plain.isdigit() and _ELEMENT.search(before) is not None
    if is_plain:
        return script
    is_one = len(plain) == 1 or is_number or plain.isalnum()
    return ("^" if is_raised else "_") + (script if is_one else "{" + script + "}")


def _element(match: re.Match[str]) -> str:
    name, content = match.group(1).lower(), match.group(2)
    parts = [part for part in content.split(_END) if part]
    grouped = [part if len(part) == 1 or part.isalnum() else f"({part})" for part in parts]
    if name in ("annotation", "annotation-xml"):
        return ""
    if name in _JOINTS and len(parts) == 2:
        return _JOINTS[name].join(grouped) + _END
    if name in ("msubsup", "munderover") and len(parts) == 3:
        return f"{grouped[0]}_{grouped[1]}^{grouped[2]}{_END}"
    if name == "msqrt":
        return f"\u221a({''.join(parts)}){_END}"
    return ("".join(parts) if name != "mtr" else ", ".join(parts) + "; ") + _END


def with_formulas(html: str) -> str:
    """Return the page with MathML, MathJax scripts and pictures of formulas as text."""
    if "<math" in html:
        html = _MATHML.sub(_written_mathml, html)
    if "math/" in html:
        html = _MATHJAX.sub(lambda script: f" {escape(script.group(1), quote=False)} ", html)
    if "math" in html or "latex" in html:
        html = _PICTURE.sub(_written_picture, html)
    return html


def _written_picture(picture: re.Match[str]) -> str:
    alt = _ALT.search(picture[1])
    is_formula = any(map(_IS_FORMULA.search, _NAMED.findall(picture[1])))
    return f" {alt[1].strip(_QUOTES)} " if alt and is_formula else picture[0]


def _written_mathml(match: re.Match[str]) -> str:
    """Write the TeX or text of a formula, else its elements from the innermost outwards."""
    opened, attributes, inner, closed = match.groups()
    if tex := _TEX.search(inner):
        text = tex[1]
    elif alt := _ALT.search(attributes):
        text = alt[1].strip(_QUOTES)
    else:
        inner, num, depth = _TAG_SPACE.sub(r"\1", " ".join(inner.split())), 1, 0
        while num and depth < MAX_DEPTH:
            inner, num = _INNERMOST.subn(_element, inner)
            depth += 1
        text = " ".join(re.sub(r"<[^<>]*>", " ", inner).replace(_END, "").split())
    return f" {text} " if opened and closed else f"{opened or ''} {text} {closed or ''}"
