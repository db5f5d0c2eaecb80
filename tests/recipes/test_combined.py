"""Both whales together: planned from the examples, run with a served teacher."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recipes.test_humpback import _pages
from server import KEY, Call, Server
from spyhop.recipe import resolve, run
from spyhop.recipe.load import read_recipe
from spyhop.recipes.combined import CombinedConfig, combined
from spyhop.recipes.humpback import humpback
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.schema import Answer, Pair, RecipeError
from spyhop.stage import Runtime

HUMPBACK = """
recipe = "humpback"
held_out_every_nth = 4
promote_by = "held_out"
rounds = 1
[[seeds]]
path = "seeds.jsonl"
read = { kind = "pairs" }
[pages]
inputs = ["pages"]
near = { threshold = 0.95 }
[student]
tokenizer = "words"
new = { format = "turns", hidden_size = 32, intermediate_size = 64, num_layers = 1, num_heads = 2 }
[train]
tokens = 12000
batch_tokens = 512
max_tokens = 2000
optimizer = { learning_rate = 0.01, muon_learning_rate = 0.02, warmup_steps = 2 }
[backtranslate]
filters = { min_chars = 1 }
sampling = { temperature = 0.7, max_new_tokens = 40 }
[rate]
by = "likelihood"
[keep]
min_score = 4.0
"""
ORCA = """
recipe = "orca"
[[collections]]
path = "cot"
[student]
tokenizer = "words"
[train]
epochs = 1.0
"""
TEACHER = """
model = "teacher"
[[endpoints]]
url = "{url}"
key_env = "TOY_KEY"
"""


def _write(folder: Path, url: str = "http://localhost:1/v1") -> CombinedConfig:
    rows = [
        {"instruction": f"Bake {n}?", "response": f"Warm the oven {n} times."} for n in range(40)
    ]
    (folder / "seeds.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    _pages(folder / "pages", 30)
    (folder / "cot").mkdir()
    lines = [f"What is {n} and {n}?\t{2 * n}\tTwice {n} is {2 * n}." for n in range(50)]
    (folder / "cot" / "sums.tsv").write_text("\n".join(lines))
    (folder / "words").mkdir(exist_ok=True)
    (folder / "words" / "tokenizer_config.json").touch()
    (folder / "humpback.toml").write_text(HUMPBACK)
    (folder / "orca.toml").write_text(ORCA)
    (folder / "teacher.toml").write_text(TEACHER.format(url=url))
    return CombinedConfig(
        humpback=folder / "humpback.toml",
        orca=folder / "orca.toml",
        teacher=folder / "teacher.toml",
        tokens=6000,
    )


def test_three_students_of_one_base_and_equal_tokens(tmp_path: Path):
    r = combined(_write(tmp_path))
    students = [r.step(f"student-{name}") for name in ("humpback", "orca", "combined")]
    assert {step.config.tokens for step in students} == {6000}
    assert {step.inputs["base"] for step in students} == {r.step("humpback.base")}
    assert r.step("explained").inputs["pairs"] is r.step("humpback.kept-1")
    assert r.step("queries").inputs["pairs"] == {"curated": r.step("humpback.kept-1")}
    asked = {
        name: r.step(f"held-out-{name}").config.system_message for name in ("orca", "humpback")
    }
    assert asked["orca"] == "" and asked["humpback"]


def test_its_nodes_are_those_of_the_humpback_recipe(tmp_path: Path):
    """What that run has made in the same store is not made again."""
    both = resolve(combined(_write(tmp_path)), tmp_path / "out")
    alone = humpback(read_recipe(tmp_path / "humpback.toml").config(HumpbackConfig))
    keys = resolve(alone, tmp_path / "out").keys
    for name in ("augmented", "rated-1", "kept-1", "m1"):
        assert both.keys[f"humpback.{name}"] == keys[name]


def test_rounds_of_the_orca_file_are_not_run(tmp_path: Path):
    """Its first student's answers are the same, without queries set aside for development."""
    config = _write(tmp_path)
    lines = 'num_queries = 20\nsuites = [{suite = "questions", path = "items.jsonl"}]\n'
    lines += '[[collections]]\npath = "cot"\n[teacher]\nfile = "teacher.toml"\n'
    lines += '[student]\ntokenizer = "words"\n[train]\nepochs = 1.0\n'
    rounds = "[rounds]\nadd_queries = 5\ndev_queries = 5\n"
    keys = []
    for more in ("", rounds):
        (tmp_path / "orca.toml").write_text('recipe = "orca"\n' + lines + more)
        keys.append(resolve(combined(config), tmp_path / "out").keys)
    assert keys[0] == keys[1] and "orca.sampled" in keys[0]


def test_another_recipes_file_is_refused(tmp_path: Path):
    config = _write(tmp_path)
    with pytest.raises(RecipeError, match=r"orca.toml: recipe = 'orca', not 'humpback'"):
        combined(config.model_copy(update={"humpback": config.orca}))


def _answer(call: Call) -> str:
    """Explain; of what is checked, every second text speaks against it at first."""
    if not call.text.startswith("A text from the web bears on"):
        return "Revised." if "speaks against your answer" in call.text else "An explanation."
    is_odd = int(re.findall(r"become (\d+) times", call.text)[0]) % 2
    is_against = is_odd and "Revised." not in call.text
    return f"So it is.\nVERDICT: {'CONTRADICTED' if is_against else 'SUPPORTED'}"


@pytest.mark.slow
def test_curated_instructions_are_explained_with_the_text_at_hand(
    tmp_path: Path, words: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOY_KEY", KEY)
    with Server(answer=_answer) as server:
        config = _write(tmp_path, server.url)
        (tmp_path / "words" / "tokenizer_config.json").unlink()
        words.save_pretrained(tmp_path / "words")
        made = run(resolve(combined(config), tmp_path / "out"), Runtime())
    kept = {row.id: row for row in made["humpback.kept-1"].rows(Pair)}
    rows = list(made["explained"].rows(Answer))
    assert {row.query_id for row in rows} == set(kept)
    assert {row.system_id for row in rows} <= {"6", "11", "16"}
    for row in rows:
        text = kept[row.query_id].response
        odd = int(re.findall(r"become (\d+) times", text)[0]) % 2
        assert row.outcome == ("revised" if odd else "supported")
        assert row.messages[-1].content == ("Revised." if odd else "An explanation.")
        assert row.messages[-2].content == kept[row.query_id].instruction
        assert text not in str(row.messages)
    tokens = [
        made[f"student-{name}"].record.counts["tokens"] for name in ("humpback", "orca", "combined")
    ]
    assert max(tokens) - min(tokens) < 1500  # the last row may exceed the budget
    html = (made["report"].path / "report.html").read_text()
    for text in ("Three data sets at equal tokens", "Checked against the texts", "combined"):
        assert text in html
