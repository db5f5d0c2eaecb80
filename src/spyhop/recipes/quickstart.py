"""The Orca loop in miniature, with the controls that the paper lacks.

Every arm starts from the same model and differs in what it reads: `experiment.ARMS` has their
titles and comparisons, `_PHASES` their rows and budgets. Further arms learn from several answers to
a query (`4-verified`), at equal queries or at equal dollars (`4-verified-usd`), or from their own
answers, corrected by the teacher (`on-policy`) or scored by a teacher model (`divergence`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import AfterValidator, Field, model_validator

from spyhop import world
from spyhop.augment import (
    AnswerConfig,
    CorrectConfig,
    MatchConfig,
    PickConfig,
    answer,
    correct_answers,
    match_tokens,
    pick_answers,
)
from spyhop.collect import PairConfig, SubsetConfig, SystemMessage, draw_subset, pair
from spyhop.evaluate import SealConfig, measure, seal
from spyhop.models import Local, Sampling
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.evaluating import add_audits
from spyhop.recipes.experiment import (
    KEPT,
    NEW_TOKENS,
    Experiment,
    ExperimentSetting,
    Page,
    Pick,
    asked_under,
    comparisons,
    pick_of,
    starting_model,
    tuning,
)
from spyhop.schema import Config, RecipeError
from spyhop.text.tables import table
from spyhop.train import DivergenceConfig, OptimizerConfig, tune

ANSWER, STEPS = "answer", "steps"
"""Ids of the messages under which bare answers are trained and explaining arms are measured."""
OF_INTEREST = 0.05
"""Smallest difference in accuracy that is of interest."""
AUDITED_ITEMS = 100
"""Test problems that the starting model is asked, for the imitation audit."""
TEACHER_FRAC = 0.25
"""Share of the teacher's rows in the budgets of `progressive` and `mixed`."""
TEACHER_RATE, TEACHER_WARMUP_STEPS = 0.3, 30
"""Of the second phases of `progressive` and `divergence`: learning rates as a share of the first's,
warm-up."""


def _known_arm(name: str) -> str:
    known = [*_PHASES, *_POLICIES, *_MODEL_TAUGHT]
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


class Setting(ExperimentSetting):
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
    """Queries that the teacher explains in these arms; the assistant explains all."""
    teacher: Literal["right", "slips", "misconceptions"] = "right"
    """Errors of the teacher in the arms of several answers: none, random slips, or fixed
    misconceptions (and few slips)."""


class QuickstartConfig(Config):
    """Settings of the `quickstart` recipe."""

    settings: tuple[Setting, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Each seed draws its own queries, answers and order of training."""
    messages: tuple[WorldMessage, ...]
    """Explained queries get one of them by share; `answer_message` belongs to the bare answers."""
    snapshots: tuple[float, ...] = ()
    """Shares of the training after which the first two arms are measured for a learning curve."""

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


class PhaseBudget(NamedTuple):
    """One phase of an arm's training."""

    rows: tuple[str, ...]
    budget: str
    """The setting that says how long."""
    share: float = 1.0
    is_gentle: bool = False


_TA, _TEACHER = "assisted", "taught"
_PHASES: dict[str, tuple[PhaseBudget, ...]] = {
    "base": (),
    "base-answers": (),
    "explanations": (PhaseBudget(("explained",), "tokens"),),
    "answers-tokens": (PhaseBudget(("answered",), "tokens"),),
    "answers-queries": (PhaseBudget(("answered",), "passes"),),
    "style": (PhaseBudget(("styled",), "tokens"),),
    "ta": (PhaseBudget((_TA,), "few_tokens"),),
    "teacher": (PhaseBudget((_TEACHER,), "few_tokens"),),
    "progressive": (
        PhaseBudget((_TA,), "few_tokens", 1 - TEACHER_FRAC),
        PhaseBudget((_TEACHER,), "few_tokens", TEACHER_FRAC, is_gentle=True),
    ),
    "mixed": (PhaseBudget((_TA, _TEACHER), "few_tokens"),),
}
_POLICIES = {"on-policy": 0, "off-policy": 1, "off-policy-3x": 3}
"""Arms after a training on the teacher's explanations of a few queries: how many times the tokens
of its corrections the teacher then writes whole answers with; 0 learns from the corrections."""
_MODEL_TAUGHT = {"divergence": 3, "imitation": 3, "imitation-3x": 1}
"""Arms that learn from the student of the arm `explanations`, on one of so many queries."""
_TEACHERS = {
    _TA: ("teaching assistant", world.TA),
    "styled": ("corrupted teacher", world.SolverConfig(corrupt=True)),
}
"""Who answers, if it is not the teacher; the seed draws its slips."""
TEACHERS = {
    "right": world.TEACHER,
    "slips": world.SolverConfig(slip_rate=0.15),
    "misconceptions": world.SolverConfig(misconceptions=True, slip_rate=0.02),
}
"""Teachers of the arms of several answers."""
ANSWERED_AT_ONCE, OWN_PASSES, TOP_K = 6, 1.0, 20
"""Of the arm `divergence`: responses of a step, passes over the queries, tokens compared."""
SEVERAL = Sampling(temperature=1.0, log_probability=True)
CAVEATS: dict[str, str] = table("recipes/caveats.toml")["quickstart"]


def quickstart(config: QuickstartConfig, name: str = "quickstart") -> Recipe:
    """The Orca loop in an embedded world: explanations, bare answers, style, and teacher order."""
    r, page = Recipe(name), Page()
    declared: dict[str, RecipeStep] = {}
    for setting in config.settings:
        base = starting_model(r, setting, world.TokenizerConfig())
        drawn = setting.problems(setting.num_items)
        items = r.add(f"{setting.name}.items", world.draw_items, drawn)
        pairs = [(each.first, each.second) for each in comparisons(setting.arms)]
        arms = pairs[0] if pairs else (setting.arms[0],) * 2
        declaration = SealConfig(arms=arms, smallest_difference=OF_INTEREST)
        sealed = r.add(f"{setting.name}.sealed", seal, declaration, items={"world": items})
        declared[setting.name] = sealed
        for seed in config.seeds:
            run = Experiment(r, setting, seed, base, items, page, {"sealed": sealed})
            kinds = [each for arm in setting.arms for phase in _phases(arm) for each in phase.rows]
            shown = [] if page.answers else ["explained"]
            rows = _answers(run, config.messages, dict.fromkeys([*kinds, *shown]))
            page.answers = page.answers or {"teacher": rows["explained"]}
            for arm in setting.arms:
                snapshots = config.snapshots if arm in ("explanations", "answers-tokens") else ()
                learn = _after_warm_up if arm in _POLICIES else _train
                learn = _from_model if arm in _MODEL_TAUGHT else learn
                trained = learn(run, arm, rows, snapshots)
                if arm in rows:
                    page.picked[f"{setting.name}.{arm}.{seed}.scores"] = rows[arm]
                message = config.text(ANSWER if "answers" in arm else STEPS)
                for share in (*snapshots, 1.0):
                    run.measure(arm, trained, message, share)
    audits = _audits(r, config, page)
    is_pretrained = all(isinstance(each.student, Path) for each in config.settings)
    caveats = (
        CAVEATS["pretrained" if is_pretrained else "caveat"],
        CAVEATS["shared" if len(config.seeds) > 1 else "one_seed"],
    )
    several = [arm for each in config.settings for arm in each.arms if arm not in _PHASES]
    names = list(dict.fromkeys([*_PHASES, *several]))
    page.add(r, names, caveats, audits=audits, sealed=declared)
    return r


def _audits(r: Recipe, config: QuickstartConfig, page: Page) -> dict[str, Ref]:
    """Add the imitation audit of the first setting's first student that reads explanations.

    Its judges are scripted: one rewards style alone, one checks the answers.
    """
    setting = config.settings[0]
    student = page.scores.get(f"{setting.name}.explanations.{config.seeds[0]}.scores")
    if student is None:
        return {}
    drawn = setting.problems(min(AUDITED_ITEMS, setting.num_items))
    items = {"world": r.add("audit.problems", world.draw_items, drawn)}
    start = Source(setting.student) if isinstance(setting.student, Path) else None
    base = Use(Local(name="base"), start or r.step(f"{setting.name}.base"))
    asked = asked_under(config.text(STEPS), setting)
    measured = r.add("audit.base", measure, asked, items=items, model=base)
    judges = [
        Use(world.Judge(name=f"that rewards {each}", rules=world.JudgeRules(rewards=each)))
        for each in get_args(world.Rewarded)
    ]
    return add_audits(r, judges, items, measured, student, page.answers)


def _phases(arm: str) -> tuple[PhaseBudget, ...]:
    if arm in _POLICIES or arm in _MODEL_TAUGHT:
        return (PhaseBudget((_TEACHER, "explained"), "few_tokens"),)
    return (PhaseBudget((arm,), "few_tokens"),) if pick_of(arm) else _PHASES[arm]


def _answers(
    run: Experiment[Setting], messages: tuple[WorldMessage, ...], kinds: Iterable[str]
) -> dict[str, RecipeStep]:
    """Add the answers that arms of one seed are trained on, and return them by kind."""
    setting = run.setting
    drawn = setting.problems(setting.num_queries, run.seed)
    queries = run.step("queries", world.draw_queries, drawn)
    prompts: dict[str, RecipeStep] = {}
    rows: dict[str, RecipeStep] = {}
    for kind in kinds:
        pick = pick_of(kind)
        style = "bare" if kind == "answered" else "explaining"
        if style not in prompts:
            shares = {m.id: m.share for m in messages if m.share > 0}
            shares = {ANSWER: 1.0} if style == "bare" else shares
            texts = tuple(SystemMessage(id=m.id, text=m.text) for m in messages if m.id in shares)
            pairing = PairConfig(messages=texts, shares={"*": shares}, seed=run.seed)
            prompts[style] = run.step(style, pair, pairing, queries=queries)
        asked, who = prompts[style], world.Solver()
        if kind == _TEACHER:
            size = SubsetConfig(num_rows=setting.teacher_queries, seed=run.seed)
            asked = run.step("few", draw_subset, size, prompts=asked)
        if pick:
            rows[kind] = _picked(run, kind, pick, asked)
            continue
        if kind in _TEACHERS:
            name, solver = _TEACHERS[kind]
            seeded = solver.model_copy(update={"seed": run.seed})
            who = world.Solver(name=name, solver=seeded)
        rows[kind] = run.step(kind, answer, AnswerConfig(), prompts=asked, teacher=Use(who))
    return rows


def _picked(run: Experiment[Setting], arm: str, pick: Pick, prompts: RecipeStep) -> RecipeStep:
    """Add several answers to each prompt, and those of them that an arm learns from."""
    end = "-usd" * (pick.is_equal_usd and pick.num > 1)
    sampled = run.find(f"sampled-{pick.num}{end}")
    if sampled is None:
        if end:
            size = SubsetConfig(num_rows=run.setting.num_queries // pick.num, seed=run.seed)
            prompts = run.step(f"few-{pick.num}", draw_subset, size, prompts=prompts)
        solver = TEACHERS[run.setting.teacher].model_copy(update={"seed": run.seed})
        how = AnswerConfig(num_samples=pick.num, sampling=SEVERAL)
        teacher = Use(world.Solver(solver=solver))
        sampled = run.step(
            f"sampled-{pick.num}{end}", answer, how, prompts=prompts, teacher=teacher
        )
    keep = PickConfig(keep=pick.keep)
    return run.step(f"{arm}.rows", pick_answers, keep, answers=sampled)


def _after_warm_up(
    run: Experiment[Setting],
    arm: ArmName,
    rows: dict[str, RecipeStep],
    snapshots: tuple[float, ...],
) -> list[RecipeStep]:
    """Add half a training on few explanations, and half on what `_POLICIES` read of all queries."""
    how = tuning(run.setting, tokens=run.setting.few_tokens // 2, seed=run.seed)
    warm = _warm(run, rows)
    read = run.find("corrected")
    if read is None:
        own = asked_under("", run.setting).sampling
        read = run.step(
            "corrected", correct_answers, CorrectConfig(student_sampling=own),
            prompts=rows["explained"].inputs["prompts"],
            student=Use(Local(name="student"), warm), teacher=Use(world.Solver()),
        )  # fmt: skip
    if times := _POLICIES[arm]:
        given = {"answers": rows["explained"], "like": read}
        read = run.step(f"{arm}.rows", match_tokens, MatchConfig(times=times), **given)
    rows[arm] = read
    return [warm, run.step(arm, tune, how, base=warm, answers={arm: read})]


def _from_model(
    run: Experiment[Setting],
    arm: ArmName,
    rows: dict[str, RecipeStep],
    snapshots: tuple[float, ...],
) -> list[RecipeStep]:
    """Add half a training on few explanations, and a phase with the student of `explanations`."""
    warm, teacher, setting = _warm(run, rows), run.find("explanations"), run.setting
    if teacher is None:
        raise RecipeError(f"the arm {arm!r} needs the arm 'explanations' before it: its teacher")
    size = SubsetConfig(num_rows=setting.num_queries // _MODEL_TAUGHT[arm], seed=run.seed)
    prompts = rows["explained"].inputs["prompts"]
    asked = run.step(f"{arm}.prompts", draw_subset, size, prompts=prompts)
    if arm == "divergence":
        how = tuning(setting, tokens=None, seed=run.seed).model_copy(update={
            "epochs": OWN_PASSES, "batch_tokens": ANSWERED_AT_ONCE * NEW_TOKENS,
            "optimizer": _slower(setting.optimizer), "objective": DivergenceConfig(
                divergence="reverse", top_k=TOP_K, max_new_tokens=NEW_TOKENS
            ),
        })  # fmt: skip
        last = run.step(arm, tune, how, base=warm, answers={arm: asked}, teacher=teacher)
        rows[arm] = last
        return [warm, last]
    sampled = AnswerConfig(sampling=Sampling(temperature=1.0, max_new_tokens=NEW_TOKENS))
    by = Use(Local(name="teacher model"), teacher)
    answered = run.step(f"{arm}.answers", answer, sampled, prompts=asked, teacher=by)
    rows[arm] = run.step(f"{arm}.rows", pick_answers, PickConfig(keep="all"), answers=answered)
    how = tuning(setting, tokens=setting.few_tokens // 2, seed=run.seed)
    return [warm, run.step(arm, tune, how, base=warm, answers={arm: rows[arm]})]


def _slower(optimizer: OptimizerConfig) -> OptimizerConfig:
    rates = optimizer.model_dump(include={"learning_rate", "muon_learning_rate"})
    slower = {name: rate and rate * TEACHER_RATE for name, rate in rates.items()}
    return optimizer.model_copy(update={**slower, "warmup_steps": TEACHER_WARMUP_STEPS})


def _warm(run: Experiment[Setting], rows: dict[str, RecipeStep]) -> RecipeStep:
    """Return half a training on the teacher's explanations of a few queries."""
    how = tuning(run.setting, tokens=run.setting.few_tokens // 2, seed=run.seed)
    return run.find("warm") or run.step(
        "warm", tune, how, base=run.base, answers={_TEACHER: rows[_TEACHER]}
    )


def _train(
    run: Experiment[Setting],
    arm: ArmName,
    rows: dict[str, RecipeStep],
    snapshots: tuple[float, ...],
) -> list[RecipeStep]:
    """Add the phases of an arm's training and return them; the last one is the student."""
    trained: list[RecipeStep] = []
    setting, phases = run.setting, _phases(arm)
    for number, phase in enumerate(phases, 1):
        changes: dict[str, object] = {"snapshots": snapshots}
        tokens = None
        if phase.budget == "passes":
            changes["epochs"] = setting.passes
        else:
            tokens = round(phase.share * getattr(setting, phase.budget))
        if len(phase.rows) > 1:
            changes["shares"] = (1 - TEACHER_FRAC, TEACHER_FRAC)
        if phase.is_gentle:  # it must not undo the phase before
            changes["optimizer"] = _slower(setting.optimizer)
        name = f"{setting.name}.{arm}.{run.seed}"
        how = tuning(setting, tokens=tokens, seed=run.seed).model_copy(update=changes)
        trained.append(
            run.r.add(
                name if number == len(phases) else f"{name}.{number}", tune, how,
                base=trained[-1] if trained else run.base,
                answers={kind: rows[kind] for kind in phase.rows},
            )
        )  # fmt: skip
    return trained
