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
from spyhop.world.problem import Problem, Split, draw, draw_split, parse
from spyhop.world.solver import (
    BY_ID,
    SYSTEM_MESSAGES,
    TA,
    TEACHER,
    UNKNOWN,
    SolverConfig,
    Style,
    StyledMessage,
    respond,
    style_of,
)
from spyhop.world.stages import (
    COPY_SYSTEM,
    CopiesConfig,
    FamilyName,
    Judge,
    ProblemsConfig,
    Solver,
    Steps,
    TokenizerConfig,
    copy_example,
    draw_copies,
    draw_items,
    draw_queries,
    tokenizer_text,
    train_tokenizer,
)
