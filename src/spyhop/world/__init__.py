"""The embedded world: generated problems, and a solver that answers them as a teacher would."""

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
from spyhop.world.family import CORE, FAMILIES
from spyhop.world.judge import JudgeRules, Rewarded
from spyhop.world.problem import Problem, parse
from spyhop.world.solver import (
    BY_ID,
    TA,
    TEACHER,
    UNKNOWN,
    SolverConfig,
    respond,
)
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
    tokenizer_text,
    train_tokenizer,
)
