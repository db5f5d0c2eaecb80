"""Teacher answers to prompts, checked or discussed, and backtranslated instructions."""

from spyhop.augment.answer import AnswerConfig, Outcomes, answer
from spyhop.augment.backtranslate import BacktranslateConfig, backtranslate
from spyhop.augment.conversation import (
    SEED_MESSAGE,
    WEB_MESSAGE,
    ForwardConfig,
    ReversedConfig,
    format_pairs,
    reverse_pairs,
)
from spyhop.augment.correct import CorrectConfig, MatchConfig, correct_answers, match_tokens
from spyhop.augment.dialogue import DialogueConfig, discuss
from spyhop.augment.difficulty import MeasureLossesConfig, measure_errors, measure_losses
from spyhop.augment.evidence import ExplainConfig, explain
from spyhop.augment.instruction import InstructionFilters
from spyhop.augment.moderate import ModerateConfig, moderate
from spyhop.augment.pick import (
    FilterAnswersConfig,
    Keep,
    PickConfig,
    filter_answers,
    keep_chosen,
    pick_answers,
)
from spyhop.augment.search_messages import SearchMessagesConfig, search_messages
from spyhop.augment.verify import VerifyConfig, verify
