"""The embedded world: generated problems, and a solver that answers them as a teacher would."""

from spyhop.world.copying import COPY_SYSTEM, copy_example, tokenizer_text
from spyhop.world.documents import (
    MENU,
    SOLUTIONS,
    DocumentKind,
    DocumentsConfig,
    documents,
    is_recovered,
    kind_of,
    solved_pairs,
)
from spyhop.world.problem import CORE, FAMILIES, Problem, Split, draw, draw_split, parse
from spyhop.world.solver import TA, TEACHER, UNKNOWN, SolverConfig, respond
from spyhop.world.stages import (
    CopiesConfig,
    FamilyName,
    ProblemsConfig,
    Solver,
    Steps,
    TokenizerConfig,
    copies,
    items,
    queries,
    tokenizer,
)
from spyhop.world.systems import BY_ID, SYSTEM_MESSAGES, Style, SystemMessage, style_of

__all__ = [
    "BY_ID",
    "COPY_SYSTEM",
    "CORE",
    "FAMILIES",
    "MENU",
    "SOLUTIONS",
    "SYSTEM_MESSAGES",
    "TA",
    "TEACHER",
    "UNKNOWN",
    "CopiesConfig",
    "DocumentKind",
    "DocumentsConfig",
    "FamilyName",
    "Problem",
    "ProblemsConfig",
    "Solver",
    "SolverConfig",
    "Split",
    "Steps",
    "Style",
    "SystemMessage",
    "TokenizerConfig",
    "copies",
    "copy_example",
    "documents",
    "draw",
    "draw_split",
    "is_recovered",
    "items",
    "kind_of",
    "parse",
    "queries",
    "respond",
    "solved_pairs",
    "style_of",
    "tokenizer",
    "tokenizer_text",
]
