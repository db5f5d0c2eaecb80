"""The world as stages and as a model: queries, items, texts to copy, a tokenizer, a teacher."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from random import Random
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from spyhop.lazy import tokenizers, transformers
from spyhop.models.base import Backend, ModelConfig
from spyhop.models.calls import Reply, Request, Sampling
from spyhop.render import SPECIAL_TOKENS
from spyhop.runtime import Runtime
from spyhop.schema import Answer, Config, Item, Message, Query, prompt_turns
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact, row_id
from spyhop.world.family import CAST, CORE, FAMILIES, SLOT
from spyhop.world.judge import JudgeRules, verdict
from spyhop.world.problem import LETTERS, Problem, Split, draw, draw_split
from spyhop.world.solver import SYSTEM_MESSAGES, TEACHER, SolverConfig, correct, respond, solve

WORD = r" ?\d| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\n| +"
"""How text is cut before pairs are merged: a word, a digit or a sign each ends up as one token."""
COPY_SYSTEM = "Copy the list."
"""System message of the copying stage."""


def _known(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"{name!r} is not a family; known: {', '.join(FAMILIES)}")
    return name


def _rising(steps: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= steps[0] <= steps[1] <= len(LETTERS):
        raise ValueError(f"need 1 <= least <= greatest <= {len(LETTERS)}")
    return steps


FamilyName = Annotated[str, AfterValidator(_known)]
Steps = Annotated[tuple[int, int], AfterValidator(_rising)]
"""Least and greatest number of steps of a problem: its difficulty."""


class ProblemsConfig(Config):
    """Which problems are drawn."""

    families: tuple[FamilyName, ...] = CORE
    num_rows: int = Field(gt=0)
    """Distinct problems in all, as evenly over the families as can be."""
    steps: Steps = (3, 6)
    seed: int = 0


class CopiesConfig(Config):
    """How many lists are drawn for copying."""

    num_rows: int = Field(gt=0)
    seed: int = 0


class TokenizerConfig(Config):
    """Size of the tokenizer's vocabulary; fewer where the text has fewer words."""

    vocabulary: int = Field(4096, gt=300)
    texts: tuple[str, ...] = ()
    """Further texts whose words become tokens, such as your own system messages."""
    seed: int = 0


class Solver(ModelConfig):
    """The embedded teacher: it reads the prompt's text and solves what it says."""

    kind: Literal["solver"] = "solver"
    name: str = "teacher"
    solver: SolverConfig = SolverConfig()

    def connect(self, folder: Artifact | None, runtime: Runtime) -> Backend:
        """Return the solver; there is nothing to load."""
        return _RuleBackend(lambda system, query, n: solve(self.solver, system, query, n))


class Judge(ModelConfig):
    """A scripted judge of the embedded world: it reads spyhop's own pairwise prompt."""

    kind: Literal["world_judge"] = "world_judge"
    name: str = "judge"
    rules: JudgeRules

    def connect(self, folder: Artifact | None, runtime: Runtime) -> Backend:
        """Return the judge; there is nothing to load."""
        return _RuleBackend(lambda system, query, sample: (verdict(self.rules, query), None))


class _RuleBackend(Backend):
    """Answers by a function of system message, user turn and sample; greedily all are the first."""

    def __init__(self, answer: Callable[[str, str, int], tuple[str, float | None]]) -> None:
        self._answer = answer

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        replies = []
        for request in batch:
            system = "".join(turn.content for turn in request.messages if turn.role == "system")
            turns = [turn.content for turn in request.messages if turn.role != "system"]
            is_correction = len(turns) > 2 and "KEEP:" in turns[-1]
            query = turns[0] if is_correction else turns[-1]
            sample = 0 if sampling.is_greedy else request.sample_index
            text, log_probability = self._answer(system, query, sample)
            text = correct(turns[1], text) if is_correction else text
            read = " ".join([system, *(turns if is_correction else [query])])
            replies.append(Reply(
                id=request.id, text=text, finish_reason="stop",
                log_probability=log_probability if sampling.log_probability else None,
                prompt_tokens=len(read.split()), response_tokens=len(text.split()),
            ))  # fmt: skip
        return replies


def _plan_rows(config: ProblemsConfig | CopiesConfig) -> Estimate:
    return Estimate(rows=config.num_rows, seconds=config.num_rows / 2000)


@stage(version=2, writes=Query, plan=_plan_rows)
def draw_queries(ctx: Context, config: ProblemsConfig) -> Iterator[Query]:
    """Draw distinct training problems. No problem of the test split is among them."""
    for problem in ctx.track(draw_problems(config, "train"), "drawing", total=config.num_rows):
        ctx.count(f"family/{problem.family}")
        yield Query(
            id=row_id("world", problem.text),
            collection="world",
            task=problem.family,
            query=problem.text,
            target=problem.target,
            origin="spyhop.world",
        )


@stage(version=1, writes=Item, plan=_plan_rows)
def draw_items(ctx: Context, config: ProblemsConfig) -> Iterator[Item]:
    """Draw distinct test problems as evaluation items."""
    for problem in ctx.track(draw_problems(config, "test"), "drawing", total=config.num_rows):
        ctx.count(f"family/{problem.family}")
        yield Item(
            id=row_id("world", problem.text),
            task=problem.family,
            suite="world",
            question=problem.text,
            target=problem.target,
            chance=problem.chance,
        )


@stage(version=2, writes=Answer, plan=_plan_rows)
def draw_copies(ctx: Context, config: CopiesConfig) -> Iterator[Answer]:
    """Draw lists to copy: what a starting model learns instead of a pre-training."""
    random = Random(f"copies/{config.seed}")
    for number in range(config.num_rows):
        query, response = copy_example(random)
        yield Answer(
            id=row_id("copy", str(number), query),
            query_id=row_id("copy", query),
            collection="world",
            task="copy",
            system_id="copy",
            messages=[
                *prompt_turns(query, COPY_SYSTEM),
                Message(role="assistant", content=response),
            ],
            model="spyhop.world",
            finish_reason="stop",
        )


@stage(version=1, writes=FOLDER, plan=lambda config: Estimate(seconds=3), needs="local")
def train_tokenizer(ctx: Context, config: TokenizerConfig) -> None:
    """Train a byte-level BPE on the world's own text and write it as a Hugging Face folder."""
    pre = tokenizers.pre_tokenizers
    words = tokenizers.Tokenizer(tokenizers.models.BPE())
    cut = pre.Split(tokenizers.Regex(WORD), "isolated")
    words.pre_tokenizer = pre.Sequence(
        [cut, pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    words.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre.ByteLevel.alphabet(),
        show_progress=False,
    )
    told = tokenizer_text(Random(f"tokenizer/{config.seed}"))
    further = (f"{text} {text}" for text in config.texts)  # a word counts from its second time on
    words.train_from_iterator(chain(told, further), trainer)
    pad, end, *marks = SPECIAL_TOKENS
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad, eos_token=end, additional_special_tokens=marks
    ).save_pretrained(ctx.out)
    ctx.count("vocabulary", words.get_vocab_size())


def draw_problems(config: ProblemsConfig, split: Split) -> Iterator[Problem]:
    """Draw problems whose texts differ, one family after the other in turn."""
    random = Random(f"{split}/{config.seed}")
    seen: set[str] = set()
    for number in range(config.num_rows):
        family = config.families[number % len(config.families)]
        problem = draw_split(family, random, split, config.steps)
        while problem.text in seen:
            problem = draw_split(family, random, split, config.steps)
        seen.add(problem.text)
        yield problem


@cache
def vocabulary() -> tuple[str, ...]:
    """Return every word of every template, sorted."""
    words = set(CAST)
    for rules in FAMILIES.values():
        told = (form for forms in rules.phrases.values() for form in forms)
        for form in (*rules.openings, *told, *rules.plain.values(), *rules.questions):
            words.update(SLOT.sub(" ", form).replace(",", " ").strip(".?").split())
        for choices in (*rules.words.values(), rules.states):
            words.update(choices)
    return tuple(sorted(words))


def copy_example(rng: Random) -> tuple[str, str]:
    """Draw a lettered list of random words and its copy: a query and the response to it."""
    words = vocabulary()
    first = rng.choice(words)
    items = [" ".join(rng.choices(words, k=rng.randint(1, 5))) for _ in range(rng.randint(3, 6))]
    listed = " ".join(f"{LETTERS[i]}) {item}." for i, item in enumerate(items))
    return f"First {first}. {listed}", f"Start: {first}. {listed}"


def tokenizer_text(rng: Random, num_problems: int = 200) -> Iterator[str]:
    """Yield texts to train a tokenizer on: each family in each style, lists, the vocabulary."""
    for name in FAMILIES:
        for _ in range(num_problems):
            query = draw(name, rng).text
            yield query
            for message in SYSTEM_MESSAGES:
                yield message.text
                yield respond(TEACHER, message.text, query)
    for _ in range(num_problems):
        yield COPY_SYSTEM
        yield from copy_example(rng)
    for word in vocabulary():
        yield f"{word} {word}"
