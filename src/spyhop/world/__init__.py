"""The embedded world: generated problems, and a solver that answers them as a teacher would."""

from spyhop.world.copying import COPY_SYSTEM, copy_example, tokenizer_text
from spyhop.world.documents import (
    MENU,
    SOLUTIONS,
    DocumentKind,
    DocumentsConfig,
    draw_documents,
    draw_pairs,
    is_recovered,
    kind_of,
)
from spyhop.world.judge import JudgeRules, Rewarded
from spyhop.world.problem import CORE, FAMILIES, Problem, Split, draw, draw_split, parse
from spyhop.world.solver import TA, TEACHER, UNKNOWN, SolverConfig, respond
from spyhop.world.stages import (
    CopiesConfig,
    FamilyName,
    Judge,
    ProblemsConfig,
    Solver,
    Steps,
    TokenizerConfig,
    draw_copies,
    draw_items,
    draw_queries,
    train_tokenizer,
)
from spyhop.world.systems import BY_ID, SYSTEM_MESSAGES, Style, StyledMessage, style_of

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
    "Judge",
    "JudgeRules",
    "Problem",
    "ProblemsConfig",
    "Rewarded",
    "Solver",
    "SolverConfig",
    "Split",
    "Steps",
    "Style",
    "StyledMessage",
    "TokenizerConfig",
    "copy_example",
    "draw",
    "draw_copies",
    "draw_documents",
    "draw_items",
    "draw_pairs",
    "draw_queries",
    "draw_split",
    "is_recovered",
    "kind_of",
    "parse",
    "respond",
    "style_of",
    "tokenizer_text",
    "train_tokenizer",
]
