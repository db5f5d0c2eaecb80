"""Settings of the `quickstart` recipe, and what each of its arms reads for how long."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from spyhop.recipes.experiment import KEPT, ExperimentSetting, pick_of
from spyhop.schema import Config

ANSWER, STEPS = "answer", "steps"
"""Ids of the messages under which bare answers are trained and explaining arms are measured."""
TEACHER_FRAC = 0.25
"""Share of the teacher's rows in the budgets of `progressive` and `mixed`."""


def _known_arm(name: str) -> str:
    known = [*PHASES, *POLICIES, *MODEL_TAUGHT, *PAIRED, *ROUND.values()]
    if name not in known and pick_of(name) is None:
        raise ValueError(
            f"{name!r} is not an arm; known: {', '.join(known)}, and N-KEEP or N-KEEP-usd with N "
            f"from 1 to 16 and KEEP of {', '.join(KEPT)}"
        )
    return name


ArmName = Annotated[str, AfterValidator(_known_arm)]


class WorldMessage(Config):
    """A system message of the embedded world, and its weight among the explained queries."""

    id: str
    """Name of the message in the report."""
    text: str
    """Text of the message."""
    share: float = Field(ge=0)
    """Relative frequency of the message."""


class Setting(ExperimentSetting, json_schema_extra={"required": ["name"]}):  # others: the first's
    """Families of problems, the student that learns them, and the budgets."""

    arms: tuple[ArmName, ...] = Field(min_length=1)
    """Students to train and compare."""
    num_queries: int = Field(8000, gt=0)
    """Queries that teacher and assistant answer."""
    tokens: int = Field(1_000_000, gt=0)
    """Budget of the explanations arm and its controls."""
    passes: float = Field(1.25, gt=0)
    """Passes over the queries that `tokens` amounts to with explanations."""
    few_tokens: int = Field(500_000, gt=0)
    """Budget of the arms that compare assistant and teacher."""
    teacher_queries: int = Field(100, gt=0)
    """Queries that the teacher explains in these arms and in `first`, and that a round adds to
    them; the assistant explains all."""
    teacher: Literal["right", "slips", "misconceptions"] = "right"
    """Errors of the teacher in the arms of several answers and of pairs: none, random slips, or
    fixed misconceptions (and few slips)."""


class QuickstartConfig(Config):
    """Settings of the `quickstart` recipe."""

    settings: tuple[Setting, ...] = Field(min_length=1)
    """What a setting leaves unset is as in the first one, but for its name."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Each seed draws its own queries, answers and order of training."""
    messages: tuple[WorldMessage, ...]
    """Explained queries get one of them by share; `answer` belongs to the bare answers."""
    snapshots: tuple[float, ...] = ()
    """Shares of the training after which the first two arms are measured for a learning curve."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:  # noqa: ANN401 (plain TOML)
        settings = values.get("settings") if isinstance(values, dict) else None
        if not isinstance(settings, list) or not all(isinstance(each, dict) for each in settings):
            return values
        first = {
            key: value for each in settings[:1] for key, value in each.items() if key != "name"
        }
        return {**values, "settings": [{**first, **each} for each in settings]}

    @model_validator(mode="after")
    def _fits_together(self) -> "QuickstartConfig":
        known = [message.id for message in self.messages]
        for name in (ANSWER, STEPS):
            if name not in known:
                raise ValueError(f"no system message has the id {name!r}; known: {known}")
        if not sum(message.share for message in self.messages):
            raise ValueError("the shares of all system messages are 0")
        if not all(0 < share < 1 for share in self.snapshots):
            raise ValueError("snapshots are shares of the training, above 0 and below 1")
        return self

    def text(self, name: str) -> str:
        """Return the text of a message."""
        return next(message.text for message in self.messages if message.id == name)

    def snapshots_of(self, arm: str) -> tuple[float, ...]:
        """Return the shares of an arm's training after which it is measured."""
        return self.snapshots if arm in ("explanations", "answers-tokens") else ()


class PhaseBudget(NamedTuple):
    """One phase of an arm's training."""

    rows: tuple[str, ...]
    budget: str
    """The setting that says how long."""
    share: float = 1.0
    is_gentle: bool = False


TA, TAUGHT = "assisted", "taught"
"""Kinds of answers: the assistant's to all queries, the teacher's to few."""
PHASES: dict[str, tuple[PhaseBudget, ...]] = {
    "base": (),
    "base-answers": (),
    "explanations": (PhaseBudget(("explained",), "tokens"),),
    "answers-tokens": (PhaseBudget(("answered",), "tokens"),),
    "answers-queries": (PhaseBudget(("answered",), "passes"),),
    "style": (PhaseBudget(("styled",), "tokens"),),
    "ta": (PhaseBudget((TA,), "few_tokens"),),
    "teacher": (PhaseBudget((TAUGHT,), "few_tokens"),),
    "progressive": (
        PhaseBudget((TA,), "few_tokens", 1 - TEACHER_FRAC),
        PhaseBudget((TAUGHT,), "few_tokens", TEACHER_FRAC, is_gentle=True),
    ),
    "mixed": (PhaseBudget((TA, TAUGHT), "few_tokens"),),
    "first": (PhaseBudget((TAUGHT,), "few_tokens"),),
}
POLICIES = {"on-policy": 0, "off-policy": 1, "off-policy-3x": 3}
"""Arms after a training on the teacher's explanations of a few queries: how many times the tokens
of its corrections the teacher then writes whole answers with; 0 learns from the corrections."""
MODEL_TAUGHT = {"divergence": 3, "imitation": 3, "imitation-3x": 1}
"""Arms that learn from the student of the arm `explanations`, on one of so many queries."""
PAIRED = ("start", "pairs", "chosen")
"""Arms of preference pairs, after the same training as `POLICIES`."""
ROUND = {"round-1": "failures", "round-1-random": "at-random"}
"""Arms of a round and its control."""
