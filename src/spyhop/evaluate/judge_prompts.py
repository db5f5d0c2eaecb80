"""Prompts of judges: our own texts, and the prompt files that others publish, read as data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from spyhop.schema import Config, InputError
from spyhop.store.rows import read_rows

Form = Literal["pairwise", "graded_pairs", "scored"]
"""`pairwise`: which of two responses is better. `graded_pairs`: both are graded in one reply, as
Vicuna's and Orca's judges do. `scored`: one response is graded alone."""
Case = Literal["general", "reference", "turns", "turns_reference"]
"""A question, one with a reference answer, and the same for a later turn of a conversation."""

_TASK = {
    "pairwise": "Compare two responses of AI assistants to the same {what}. Which one serves the "
    "user better?",
    "graded_pairs": "Grade two responses of AI assistants to the same {what}.",
    "scored": "Grade the response of an AI assistant to the {what}.",
}
_CRITERIA = (
    "Look at whether it does what was asked, whether its statements are right, and whether it is "
    "complete, clear and of use to the user. Length is no merit of its own."
)
_REFERENCE = (
    "A correct answer is given. First check each step of the response against it: a response with "
    "a wrong result is worse than one with the right result, however it is written."
)
_LATER_TURN = "Judge the response to the user's last message; earlier turns are its context."
_ORDER = "The order of the responses means nothing."
_VERDICT = {
    "pairwise": "Give your reasons in a few sentences. Then end with a line of its own: "
    '"Verdict: A", "Verdict: B", or "Verdict: tie" if both serve equally well.',
    "graded_pairs": "Write two numbers from 1 (useless) to 10 (could not be better) on the first "
    "line, for the first response and for the second, with a space between them and nothing else. "
    "Give your reasons on the lines below.",
    "scored": "Give your reasons in a few sentences. Then end with a line of its own that holds "
    'only "Score: " and a number from 1 (useless) to 10 (could not be better).',
}
_CATEGORY = {"general": "", "math": "reference", "coding": ""}


class JudgePrompt(Config):
    """Prompt of a judge; `{...}` are replaced.

    Fields: `{question}` and `{reference}` are those of the judged turn, `{answer}` is the response
    and `{context}` the conversation before it; of a pair `{answer_a}`, `{answer_b}`, `{context_a}`
    and `{context_b}`. `{question_2}`, `{answer_a_2}`, `{answer_2}` and `{ref_answer_2}` are
    those of the second turn, and so on.
    """

    system_message: str = ""
    """System message; an empty one is not sent."""
    user: str
    """User turn. What all judgements of a question share comes first, so that endpoints can cache
    it: question and reference before the responses."""


def own_prompts(form: str) -> dict[Case, JudgePrompt]:
    """Return our own prompts of a form, as whole texts."""
    return {
        "general": _own(form, has_reference=False, is_later=False),
        "reference": _own(form, has_reference=True, is_later=False),
        "turns": _own(form, has_reference=False, is_later=True),
        "turns_reference": _own(form, has_reference=True, is_later=True),
    }


def _own(form: str, *, has_reference: bool, is_later: bool) -> JudgePrompt:
    is_pair = form != "scored"
    parts = [
        _TASK[form].format(what="conversation" if is_later else "question"),
        _CRITERIA,
        _LATER_TURN if is_later else "",
        _REFERENCE if has_reference else "",
        _ORDER if is_pair else "",
        _VERDICT[form],
    ]
    sides = ("a", "b") if is_pair else ("",)
    shown = ["[Question]\n{question}"]
    if has_reference:
        shown.append("[Correct answer]\n{reference}")
    for side in sides:
        title = f" {side.upper()}" if side else ""
        field = f"_{side}" if side else ""
        if is_later:
            shown.append(f"[Conversation{title} so far]\n{{context{field}}}")
        shown.append(f"[Response{title}]\n{{answer{field}}}\n[End of response{title}]")
    return JudgePrompt(system_message="\n".join(filter(None, parts)), user="\n\n".join(shown))


def read_prompts(path: Path, form: Form) -> dict[Case, JudgePrompt]:
    """Return the prompts of a form from a published file.

    Known are FastChat's `judge_prompts.jsonl` (`type`, `category`, `system_prompt`,
    `prompt_template`) and the older `prompt.jsonl` of the Vicuna reviews, which grades pairs.

    Raises:
        InputError: If the file has no prompt of this form.
    """
    found: dict[Case, JudgePrompt] = {}
    for where, row in read_rows(path):
        category = str(row.get("category", ""))
        if _form(row) != form or category not in _CATEGORY:
            continue
        case = "turns" if "multi-turn" in str(row.get("name", "")) else ""
        case = "_".join(filter(None, (case, _CATEGORY[category]))) or "general"
        if case not in found and category != "coding":
            found[case] = _published(row, where)  # type: ignore[index]
    if "general" not in found:
        raise InputError(f"{path}: no general prompt of the form {form!r} in this file")
    return found


def _form(row: Mapping[str, Any]) -> Form:
    if "type" not in row:
        return "graded_pairs"
    return "pairwise" if row["type"] == "pairwise" else "scored"


def _published(row: Mapping[str, Any], where: str) -> JudgePrompt:
    system, user = row.get("system_prompt"), row.get("prompt_template")
    if not isinstance(system, str) or not isinstance(user, str):
        raise InputError(f"{where}: needs the texts system_prompt and prompt_template")
    defaults = row.get("defaults")
    for name, text in (defaults if isinstance(defaults, Mapping) else {}).items():
        user = user.replace(f"{{{name}}}", str(text))
    if _form(row) == "graded_pairs":
        user = user.replace("{answer_1}", "{answer_a}").replace("{answer_2}", "{answer_b}")
    return JudgePrompt(system_message=system, user=user)
