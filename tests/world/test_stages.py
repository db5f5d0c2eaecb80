"""The world's stages: distinct problems, splits that share nothing, a teacher behind a model."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from spyhop.augment import AnswerConfig, answer
from spyhop.collect import PairConfig, SystemMessage, pair
from spyhop.models import ModelUse
from spyhop.models.folder import load_tokenizer
from spyhop.render import SPECIAL_TOKENS
from spyhop.schema import Answer, Item, Query
from spyhop.store import Artifact
from spyhop.text.extract import final_answer, matches
from spyhop.world import (
    BY_ID,
    CORE,
    FAMILIES,
    TA,
    TEACHER,
    CopiesConfig,
    ProblemsConfig,
    Solver,
    TokenizerConfig,
    draw_copies,
    draw_items,
    draw_queries,
    parse,
    tokenizer_text,
    train_tokenizer,
)

NUM = 600


def _content(text: str) -> str:
    problem = parse(text)
    assert problem is not None
    return problem.content


def _prompts(root: Path, *, num_rows: int = NUM, seed: int = 0) -> Artifact:
    drawn = draw_queries.run(root, ProblemsConfig(num_rows=num_rows, seed=seed))
    messages = tuple(SystemMessage(id=m.id, text=m.text) for m in BY_ID.values())
    shares = {"*": {"answer": 0.2, "short": 0.2, "steps": 0.4, "simple": 0.2}}
    return pair.run(root, PairConfig(messages=messages, shares=shares), queries=drawn)


def _is_right(row: Answer) -> bool:
    return matches(final_answer(row.messages[-1].content), row.target)


@pytest.mark.parametrize("seed", [0, 3])
def test_training_and_test_problems_share_no_content(tmp_path: Path, seed: int):
    config = ProblemsConfig(families=tuple(FAMILIES), num_rows=NUM, seed=seed, steps=(1, 3))
    train = {_content(row.query) for row in draw_queries.run(tmp_path, config).rows(Query)}
    test = {_content(row.question) for row in draw_items.run(tmp_path, config).rows(Item)}
    assert train and test and not train & test


def test_problems_are_distinct_and_even_over_the_families(tmp_path: Path):
    config = ProblemsConfig(num_rows=NUM, steps=(1, 4))
    asked = list(draw_queries.run(tmp_path, config).rows(Query))
    measured = list(draw_items.run(tmp_path, config).rows(Item))
    assert len({row.query for row in asked}) == len({row.id for row in asked}) == NUM
    assert len({row.question for row in measured}) == len({row.id for row in measured}) == NUM
    assert Counter(row.task for row in asked) == dict.fromkeys(CORE, NUM // len(CORE))
    assert all(row.chance == pytest.approx(_chance(row)) for row in measured)


def _chance(row: Item) -> float:
    problem = parse(row.question)
    assert problem is not None and problem.target == row.target
    return problem.chance


def test_the_seed_and_nothing_else_decides(tmp_path: Path):
    for made_by in (draw_queries, draw_items):
        drawn = [
            made_by.run(tmp_path / place, ProblemsConfig(num_rows=50, seed=seed)).digest
            for place, seed in (("a", 1), ("b", 1), ("a", 2))
        ]
        assert drawn[0] == drawn[1] != drawn[2]
    copied = [draw_copies.run(tmp_path / place, CopiesConfig(num_rows=50)).digest for place in "ab"]
    assert copied[0] == copied[1]


def test_a_longer_draw_begins_as_a_shorter_one(tmp_path: Path):
    few, many = (
        [row.query for row in draw_queries.run(tmp_path, ProblemsConfig(num_rows=n)).rows(Query)]
        for n in (20, 60)
    )
    assert many[:20] == few


def test_the_teacher_answers_every_prompt_with_the_gold_answer(tmp_path: Path):
    prompts = _prompts(tmp_path)
    made = answer.run(tmp_path, AnswerConfig(), prompts=prompts, teacher=ModelUse(Solver()))
    rows = list(made.rows(Answer))
    assert len(rows) == NUM and all(_is_right(row) for row in rows)
    assert {row.model for row in rows} == {"teacher"}
    assert {row.system_id for row in rows} == {"answer", "short", "steps", "simple"}
    assert made.record.counts == {"ending/whole": NUM}
    assert made.record.usage["requests"] == NUM and made.record.usage["response_tokens"] > NUM


def test_the_assistant_is_right_as_often_as_the_readme_says(tmp_path: Path):
    """About 37 % over the core families: clearly worse than the teacher, and above guessing."""
    prompts = _prompts(tmp_path, num_rows=1_000)
    use = ModelUse(Solver(name="assistant", solver=TA))
    rows = list(answer.run(tmp_path, AnswerConfig(), prompts=prompts, teacher=use).rows(Answer))
    share = sum(_is_right(row) for row in rows) / len(rows)
    assert 0.33 < share < 0.42
    for family in CORE:
        some = [_is_right(row) for row in rows if row.task == family]
        assert 0.15 < sum(some) / len(some) < 0.6, family


def test_the_solvers_setting_is_its_identity():
    uses = [ModelUse(Solver()), ModelUse(Solver(solver=TA))]
    assert uses[0].key != uses[1].key
    assert ModelUse(Solver(solver=TEACHER, name="other")).key == uses[0].key


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("words")
    return load_tokenizer(train_tokenizer.run(root, TokenizerConfig()).path)


def test_special_tokens_are_one_token_each(words):
    ids = [words.encode(token, add_special_tokens=False) for token in SPECIAL_TOKENS]
    assert ids == [[place] for place in range(len(SPECIAL_TOKENS))]
    assert (words.pad_token, words.eos_token) == SPECIAL_TOKENS[:2] and words.bos_token is None
    assert len(words) <= TokenizerConfig().vocabulary + len(SPECIAL_TOKENS)


def test_the_tokenizer_gives_its_text_back(words):
    texts = list(tokenizer_text(Random("another draw"), num_problems=3))
    texts += ["caf\u00e9 \U0001f433 <b>\n\n  two  spaces\ttab ", "", " ", "0123 4.5"]
    for text in texts:
        ids = words.encode(text, add_special_tokens=False)
        assert words.decode(ids, clean_up_tokenization_spaces=False) == text


def test_words_of_the_world_are_one_token(words):
    for text in (" heads", " tails", " north", " flips", " left", " cup"):
        assert len(words.encode(text, add_special_tokens=False)) == 1, text
