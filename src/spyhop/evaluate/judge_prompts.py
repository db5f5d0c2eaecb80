"""Prompts of judges: our own texts, and the prompt files that others publish, read as data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from spyhop.schema import Config, InputError
from spyhop.settings import read_toml
from spyhop.store.rows import read_rows

Form = Literal["pairwise", "graded_pairs", "scored"]
"""`pairwise`: which of two responses is better. `graded_pairs`: both are graded in one reply, as
Vicuna's and Orca's judges do. `scored`: one response is graded alone."""
Case = Literal["general", "reference", "turns", "turns_reference"]
"""A question, one with a reference answer, and the same for a later turn of a conversation."""

OWN = Path(__file__).with_name("prompts") / "judge.toml"
"""Our own prompts, by form and case."""
CASES: tuple[Case, ...] = get_args(Case)


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


def own_prompts(form: str) -> dict[str, dict[str, str]]:
    """Return our own prompts of a form by case, as whole texts."""
    found: dict[str, dict[str, str]] = read_toml(OWN)[form]
    return found


def read_prompts(path: Path, form: Form) -> dict[Case, JudgePrompt]:
    """Return the prompts of a form from a published file.

    Known are FastChat's `judge_prompts.jsonl` (`type`, `category`, `system_prompt`,
    `prompt_template`) and the older `prompt.jsonl` of the Vicuna reviews, which grades pairs. The
    case is read from the fields, since FastChat calls a mathematics prompt `general`.
    """
    found: dict[Case, JudgePrompt] = {}
    for where, row in read_rows(path):
        if _form(row) == form and row.get("category") != "coding":
            prompt = _published(row, where)
            is_later = "_2}" in prompt.user
            has_reference = "{ref_answer" in prompt.user or row.get("category") == "math"
            found.setdefault(CASES[2 * is_later + has_reference], prompt)
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
