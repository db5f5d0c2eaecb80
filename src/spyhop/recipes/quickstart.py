"""The Orca loop in miniature, with the controls that the paper lacks.

Every arm starts from the same model and differs in what it reads: `experiment.ARMS` has titles and
comparisons, `quickstart_config` rows and budgets. Further arms learn from several answers to a
query (`4-verified`), at equal queries or at equal dollars (`4-verified-usd`), from pairs of them
(`pairs`), from their own answers, corrected by the teacher (`on-policy`) or scored by a teacher
model (`divergence`), or from more queries where the arm `first` fails (`failures`).
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

from spyhop import world
from spyhop.augment import (
    AnswerConfig,
    CorrectConfig,
    MatchConfig,
    PickConfig,
    answer,
    correct_answers,
    keep_chosen,
    match_tokens,
    pick_answers,
)
from spyhop.collect import PairConfig, Stratum, SubsetConfig, SystemMessage, draw_subset, pair
from spyhop.curate import DrawFailingConfig, PreferConfig, draw_failing, prefer
from spyhop.evaluate import SealConfig, measure, seal
from spyhop.models import Local, Sampling
from spyhop.recipe.graph import Made, Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.evaluating import add_audits
from spyhop.recipes.experiment import (
    NEW_TOKENS,
    Experiment,
    Page,
    Pick,
    asked_under,
    comparisons,
    pick_of,
    starting_model,
    tuning,
)
from spyhop.recipes.orca_rounds import Rounds, RoundsConfig
from spyhop.recipes.quickstart_config import (
    ANSWER,
    MODEL_TAUGHT,
    PAIRED,
    PHASES,
    POLICIES,
    ROUND,
    STEPS,
    TA,
    TAUGHT,
    TEACHER_FRAC,
    PhaseBudget,
    QuickstartConfig,
    Setting,
    WorldMessage,
)
from spyhop.schema import NoConfig, RecipeError
from spyhop.text.tables import table
from spyhop.train import (
    DivergenceConfig,
    DPOConfig,
    OptimizerConfig,
    reference_config,
    score_pairs,
    tune,
)

OF_INTEREST = 0.05
"""Smallest difference in accuracy that is of interest."""
AUDITED_ITEMS = 100
"""Test problems that the starting model is asked, for the imitation audit."""
TEACHER_RATE, TEACHER_WARMUP_STEPS = 0.3, 30
"""Of the second phases of `progressive` and `divergence`: learning rates as a share of the first's,
warm-up."""
_TEACHERS = {
    TA: ("teaching assistant", world.TA),
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
NUM_PAIRED, BETA, PAIRS_RATE = 4, 0.1, 0.015
"""Of the arm `pairs`: answers to a query; of DPO the strength, and rates as a share of the first
training's (ADR 0041)."""
DEV_FRAC, LONG = 0.1, r"[e-h]\) "
"""Of a round: share of the queries on which errors are measured; a stratum, five steps or more."""
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
            kinds = [kind for arm in setting.arms for kind in _kinds(arm)]
            shown = [] if page.answers else ["explained"]
            rows = _answers(run, config.messages, dict.fromkeys([*kinds, *shown]))
            page.answers = page.answers or {"teacher": rows["explained"]}
            for arm in setting.arms:
                trained = _LATER.get(arm, _train)(run, arm, rows, config)
                if arm in rows:
                    page.picked[f"{setting.name}.{arm}.{seed}.scores"] = rows[arm]
                message = config.text(ANSWER if "answers" in arm else STEPS)
                for share in (*config.snapshots_of(arm), 1.0):
                    run.measure(arm, trained, message, share)
    audits = _audits(r, config, page)
    is_pretrained = all(isinstance(each.student, Path) for each in config.settings)
    caveats: tuple[str, ...] = (
        CAVEATS["pretrained" if is_pretrained else "caveat"],
        CAVEATS["shared" if len(config.seeds) > 1 else "one_seed"],
    )
    names = list(dict.fromkeys([*PHASES, *(each.arm for each in page.runs.values())]))
    caveats += (CAVEATS["pairs"],) if "pairs" in names else ()
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
    return (PhaseBudget((arm,), "few_tokens"),) if pick_of(arm) else PHASES[arm]


def _kinds(arm: str) -> list[str]:
    """Return the kinds of answers that an arm needs."""
    if arm in _LATER:
        return [TAUGHT, *(["explained"] if arm in POLICIES or arm in MODEL_TAUGHT else [])]
    return [kind for phase in _phases(arm) for kind in phase.rows]


def _answers(
    run: Experiment[Setting], messages: tuple[WorldMessage, ...], kinds: Iterable[str]
) -> dict[str, RecipeStep]:
    """Add the answers that arms of one seed are trained on.

    Returns:
        The answers by kind, and the prompts by style.
    """
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
        if kind == TAUGHT:
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
    return rows | prompts


def _picked(run: Experiment[Setting], arm: str, pick: Pick, prompts: RecipeStep) -> RecipeStep:
    """Add several answers to each prompt, and those of them that an arm learns from."""
    keep, answers = PickConfig(keep=pick.keep), _sampled(run, pick, prompts)
    return run.step(f"{arm}.rows", pick_answers, keep, answers=answers)


def _sampled(run: Experiment[Setting], pick: Pick, prompts: RecipeStep) -> RecipeStep:
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
    return sampled


def _after_warm_up(
    run: Experiment[Setting], arm: str, rows: dict[str, RecipeStep], config: QuickstartConfig
) -> list[RecipeStep]:
    """Add half a training on few explanations, and half on what `POLICIES` read of all queries."""
    how = tuning(run.setting, tokens=run.setting.few_tokens // 2, seed=run.seed)
    warm = _warm(run, rows)
    read = run.find("corrected")
    if read is None:
        own = asked_under("", run.setting).sampling
        read = run.step(
            "corrected", correct_answers, CorrectConfig(student_sampling=own),
            prompts=rows["explaining"],
            student=Use(Local(name="student"), warm), teacher=Use(world.Solver()),
        )  # fmt: skip
    if times := POLICIES[arm]:
        given = {"answers": rows["explained"], "like": read}
        read = run.step(f"{arm}.rows", match_tokens, MatchConfig(times=times), **given)
    rows[arm] = read
    return [warm, run.step(arm, tune, how, base=warm, answers={arm: read})]


def _from_model(
    run: Experiment[Setting], arm: str, rows: dict[str, RecipeStep], config: QuickstartConfig
) -> list[RecipeStep]:
    """Add half a training on few explanations, and a phase with the student of `explanations`."""
    warm, teacher, setting = _warm(run, rows), run.find("explanations"), run.setting
    if teacher is None:
        raise RecipeError(f"the arm {arm!r} needs the arm 'explanations' before it: its teacher")
    size = SubsetConfig(num_rows=setting.num_queries // MODEL_TAUGHT[arm], seed=run.seed)
    asked = run.step(f"{arm}.prompts", draw_subset, size, prompts=rows["explaining"])
    if arm == "divergence":
        how = tuning(setting, tokens=None, seed=run.seed).model_copy(update={
            "epochs": OWN_PASSES, "batch_tokens": ANSWERED_AT_ONCE * NEW_TOKENS,
            "optimizer": _slower(setting), "objective": DivergenceConfig(
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


def _from_pairs(
    run: Experiment[Setting], arm: str, rows: dict[str, RecipeStep], config: QuickstartConfig
) -> list[RecipeStep]:
    """Add half a training on few explanations, then DPO on pairs, or their right answers alone."""
    warm, setting = _warm(run, rows), run.setting
    if arm == "start":
        return [warm]
    how = tuning(setting, tokens=setting.few_tokens // 2, seed=run.seed)
    sampled = _sampled(run, Pick(NUM_PAIRED, "all", is_equal_usd=False), rows["explaining"])
    pairs = run.find("paired") or run.step(
        "paired", prefer, PreferConfig(), chosen={"answers": sampled}
    )
    if arm == "chosen":
        both = {"answers": sampled, "pairs": pairs}
        read = rows[arm] = run.step("chosen.rows", keep_chosen, NoConfig(), **both)
        return [warm, run.step(arm, tune, how, base=warm, answers={arm: read})]
    changes = {"optimizer": _slower(setting, PAIRS_RATE), "objective": DPOConfig(beta=BETA)}
    how = how.model_copy(update=changes)
    reference = run.step(
        "pairs.reference", score_pairs, reference_config(how), base=warm, pairs={arm: pairs}
    )
    return [warm, run.step(arm, tune, how, base=warm, answers={arm: pairs}, reference=reference)]


def _in_round(
    run: Experiment[Setting], arm: str, rows: dict[str, RecipeStep], config: QuickstartConfig
) -> list[RecipeStep]:
    """Add a round after the student `first` and its control, each once; return the arm's."""
    setting, first, few = run.setting, run.find("first"), rows[TAUGHT].inputs["prompts"]
    if (added := run.find(arm)) is not None:
        return [added]
    if first is None or not isinstance(few, RecipeStep):
        raise RecipeError(f"the arm {arm!r} needs the arm 'first' before it")
    text, pool = config.text(STEPS), rows["explaining"]
    how = tuning(setting, tokens=setting.few_tokens, seed=run.seed)

    def teach(r: Recipe, prompts: Made) -> RecipeStep:
        return r.add(
            "answers", answer, AnswerConfig(), prompts=prompts, teacher=Use(world.Solver())
        )

    def train(name: str, taught: Made) -> list[RecipeStep]:
        return [run.step(ROUND[name], tune, how, base=run.base, answers={TAUGHT: taught})]

    def score(name: str, model: RecipeStep) -> RecipeStep:
        return run.measure(ROUND[name], [model], text)

    name, num_dev = f"{setting.name}.{run.seed}", max(1, round(DEV_FRAC * setting.num_queries))
    part = run.r.within(f"{name}.")
    some = DrawFailingConfig(num_rows=num_dev, seed=run.seed)
    dev = part.add("dev", draw_failing, some, prompts=pool, known={"taken": few})
    how_many = RoundsConfig(
        add_queries=setting.teacher_queries,
        dev_queries=num_dev,
        strata=(Stratum(by="topic", topics=(LONG,)),),
    )
    own = asked_under("", setting).sampling
    rounds = Rounds(part, how_many, run.seed, own, pool, dev, teach, train, score)
    rounds.add(few, rows[TAUGHT], first, run.measure("first", [first], text))
    for drawn, ref in rounds.draws.items():
        run.page.rounds[drawn.replace("round-1", name)] = ref
    run.page.promotions[name] = rounds.promotions["round-1"]
    return [run.r.step(f"{setting.name}.{arm}.{run.seed}")]


def _slower(setting: Setting, share: float = TEACHER_RATE) -> OptimizerConfig:
    rates = setting.optimizer.model_dump(include={"learning_rate", "muon_learning_rate"})
    slower = {name: rate and rate * share for name, rate in rates.items()}
    return setting.optimizer.model_copy(update={**slower, "warmup_steps": TEACHER_WARMUP_STEPS})


def _warm(run: Experiment[Setting], rows: dict[str, RecipeStep]) -> RecipeStep:
    """Return half a training on the teacher's explanations of a few queries."""
    how = tuning(run.setting, tokens=run.setting.few_tokens // 2, seed=run.seed)
    return run.find("warm") or run.step(
        "warm", tune, how, base=run.base, answers={TAUGHT: rows[TAUGHT]}
    )


def _train(
    run: Experiment[Setting], arm: str, rows: dict[str, RecipeStep], config: QuickstartConfig
) -> list[RecipeStep]:
    """Add the phases of an arm's training and return them; the last one is the student."""
    trained: list[RecipeStep] = []
    setting, phases = run.setting, _phases(arm)
    for number, phase in enumerate(phases, 1):
        changes: dict[str, object] = {"snapshots": config.snapshots_of(arm)}
        tokens = None
        if phase.budget == "passes":
            changes["epochs"] = setting.passes
        else:
            tokens = round(phase.share * getattr(setting, phase.budget))
        if len(phase.rows) > 1:
            changes["shares"] = (1 - TEACHER_FRAC, TEACHER_FRAC)
        if phase.is_gentle:  # it must not undo the phase before
            changes["optimizer"] = _slower(setting)
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


_Learn = Callable[
    [Experiment[Setting], str, dict[str, RecipeStep], QuickstartConfig], list[RecipeStep]
]
_LATER: dict[str, _Learn] = {
    **dict.fromkeys(POLICIES, _after_warm_up),
    **dict.fromkeys(MODEL_TAUGHT, _from_model),
    **dict.fromkeys(PAIRED, _from_pairs),
    **dict.fromkeys(ROUND.values(), _in_round),
}
"""How arms learn that begin from another one's student, or from what it fails at."""
