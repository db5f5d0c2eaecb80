"""The Orca recipe on the real files of FLAN-CoT, BBH and AGIEval, in small."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from server import KEY, MODEL, Server
from spyhop.augment import VerifyConfig
from spyhop.models import Sampling
from spyhop.recipe import resolve, run
from spyhop.recipe.load import read_recipe
from spyhop.recipe.plan import plan
from spyhop.recipes import INIT_FILES, write_example
from spyhop.recipes.orca import OrcaConfig, orca
from spyhop.schema import Answer, Query, RecipeError, Score
from spyhop.stage import Runtime


@pytest.fixture
def neox_folder(words: Any, tmp_path: Path) -> Path:
    """A small random model that is no Llama, with a tokenizer of bytes."""
    folder = tmp_path / "neox"
    shape = GPTNeoXConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=2048,
    )
    GPTNeoXForCausalLM(shape).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _config(data_dir: Path, **changes) -> OrcaConfig:
    settings = {
        "collections": [{"path": data_dir / "flan_cot" / "cot_data"}],
        "num_queries": 60,
        "train": {"epochs": 1.0, "batch_tokens": 2048, "max_tokens": 1024},
        "suites": [
            {"suite": "bbh", "path": data_dir / "bbh" / "bbh", "limit": 2},
            {"suite": "agieval", "path": data_dir / "agieval" / "v1", "limit": 2},
        ],
        "measure": {"sampling": {"max_new_tokens": 8}},
    }
    return OrcaConfig.model_validate({**settings, **changes})


@pytest.mark.slow
def test_flan_cot_to_scores_with_the_llama_2_tokenizer(data_dir: Path, tmp_path: Path):
    student = {
        "tokenizer": data_dir / "tok_llama2",
        "new": {"hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 2},
    }
    recipe = orca(_config(data_dir, student=student))
    made = run(resolve(recipe, tmp_path), Runtime())
    assert made["queries-cot"].num_rows == 33_443
    assert made["base"].record.counts["vocabulary"] == 32_001
    answers = list(made["answers"].rows(Answer))
    assert len(answers) == 60 and all(row.error is None for row in answers)
    assert {row.system_id for row in answers} == {"6", "11", "16"}
    scores = list(made["scores-student"].rows(Score))
    assert len(scores) == 2 * (23 + 8)
    results = json.loads((made["report"].path / "results.json").read_text())
    assert {row["verdict"] for row in results} <= {"near", "below"}
    assert "Not above chance" in (made["report"].path / "report.html").read_text()


@pytest.mark.slow
def test_a_base_of_another_class_is_trained_and_measured(
    data_dir: Path, tmp_path: Path, neox_folder: Path
):
    train = {"epochs": 1.0, "batch_tokens": 4096, "max_tokens": 2048}
    config = _config(data_dir, student={"base": neox_folder}, suites=[], train=train)
    made = run(resolve(orca(config), tmp_path), Runtime())
    saved = json.loads((made["student"].path / "config.json").read_text())
    assert saved["architectures"] == ["GPTNeoXForCausalLM"]
    assert made["student"].record.counts["rows/trained"] > 50


EXAMPLES = Path(__file__).parents[2] / "examples"


def _plan(path: Path, root: Path, *changes: str) -> dict[str, Any]:
    file = read_recipe(path, changes)
    built = orca(file.config(OrcaConfig))
    resolved = resolve(built, root, without_missing=True)
    return {line.step.name: line.estimate for line in plan(resolved)}


def test_the_papers_mixture_is_planned(tmp_path: Path):
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    lines = _plan(tmp_path / "orca.toml", tmp_path / "out")
    drawn = {name: each.rows for name, each in lines.items() if name.startswith("drawn-")}
    assert drawn["drawn-niv2"] == 440_000 and drawn["drawn-flan2021"] == 2_500_000
    assert lines["prompts"].rows == lines["assisted"].rows == sum(drawn.values()) == 5_090_000
    assert lines["answers"].rows == 1_000_000
    assert lines["answers"].calls["teacher"].requests == 1_000_000
    assert lines["clean"].rows == 5_090_000 and {"scores-base", "scores-student", "shared"} < {
        *lines
    }


def _flan_folder(folder: Path) -> None:
    """Files as the public collection has them: one folder per sub-mixture and template style."""
    sizes = {"cot": 40, "niv2": 700, "flan": 900, "t0": 500, "dialog": 30}
    for name, num in sizes.items():
        for style in ("zsopt", "zsnoopt", "fsopt"):
            if style == "zsnoopt" and name in ("cot", "niv2", "dialog"):
                continue
            rows = [
                {
                    "inputs": f"{name} {style}: which is number {n}?\nOPTIONS:\n- one\n- two",
                    "targets": "one",
                    "_template_idx": n % 10,
                    "_task_source": {"flan": "Flan2021", "t0": "P3"}.get(name, name),
                    "_task_name": ("bigbench:x" if n % 50 == 49 else f"{name}_task:{n % 3}:1.0.0"),
                    "_template_type": {"zsopt": "zs_opt", "zsnoopt": "zs_noopt"}.get(style, "fs"),
                }
                for n in range(num)
            ]
            place = folder / f"{name}_{style}_data"
            place.mkdir(parents=True)
            for part in range(2):
                table = pa.Table.from_pylist(rows[part::2])
                pq.write_table(table, place / f"part.{part}.parquet")


def test_the_papers_mixture_is_drawn_from_files_of_flans_shape(tmp_path: Path):
    _flan_folder(tmp_path / "flan")
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    text, *_ = (EXAMPLES / "orca.toml").read_text().partition("[[suites]]")
    text = text.replace("hf://datasets/Open-Orca/FLAN", f"file://{tmp_path / 'flan'}")
    for asked, small in (("440_000", "600"), ("2_500_000", "900"), ("2_000_000", "400")):
        text = text.replace(f"num_rows = {asked}", f"num_rows = {small}")
    assert text.count("num_rows = ") == 3
    path = tmp_path / "examples" / "small.toml"
    path.write_text(text)
    built = orca(read_recipe(path).config(OrcaConfig))
    names = [step.name for step in built.steps]
    built.steps = built.steps[: names.index("prompts") + 1]
    made = run(resolve(built, tmp_path / "out"), Runtime())
    drawn = {name: made[f"drawn-{name}"] for name in ("cot", "niv2", "flan2021", "t0")}
    assert {name: each.num_rows for name, each in drawn.items()} == {
        "cot": 40, "niv2": 600, "flan2021": 900, "t0": 400
    }  # fmt: skip
    for name, each in drawn.items():
        rows = list(each.rows(Query))
        assert {row.collection for row in rows} == {name}
        assert not any("fsopt" in row.query for row in rows)
        assert {row.multiple_choice for row in rows} == (
            {True, False} if name in ("flan2021", "t0") else {True}
        )
        assert {row.licence for row in rows} == {"cc-by-4.0"}
    assert not any("bigbench" in row.task for row in drawn["t0"].rows(Query))
    per_task = Counter(row.task for row in drawn["niv2"].rows(Query))
    assert max(per_task.values()) <= 300
    assert made["prompts"].num_rows == 1940


def _mini(tmp_path: Path, **changes: Any) -> OrcaConfig:
    (tmp_path / "cot").mkdir(exist_ok=True)
    (tmp_path / "cot" / "a.tsv").write_text("Question?\tyes\tBecause.\n")
    (tmp_path / "words").mkdir(exist_ok=True)
    settings = {
        "collections": [{"path": tmp_path / "cot"}],
        "assistant": {"recorded": "targets"},
        "student": {"tokenizer": tmp_path / "words"},
    }
    return OrcaConfig.model_validate({**settings, **changes})


def test_ablations_share_the_nodes_of_the_student(tmp_path: Path):
    plain = {step.name for step in orca(_mini(tmp_path)).steps}
    ablated = orca(_mini(tmp_path, ablate=["order", "answers", "messages", "size", "teacher"]))
    names = [step.name for step in ablated.steps]
    assert plain < set(names)
    added = set(names) - plain
    assert {"reversed", "reversed.1", "mixed", "answers-only", "teacher-only", "bare"} <= added
    assert {"message-6", "message-11", "message-16"} <= added and "message-3" not in added
    assert {"one-of-16", "one-of-2"} <= added
    reverse = ablated.step("reversed.1").inputs["answers"]
    assert reverse == {"teacher": ablated.step("answers")}


def test_controls_of_style_and_of_equal_queries(tmp_path: Path):
    recipe = orca(_mini(tmp_path, assistant=None, ablate=["queries", "style"]))
    once, styled = recipe.step("answers-once"), recipe.step("style-only")
    assert (once.config.tokens, once.config.epochs) == (None, 1.0)
    assert once.inputs["answers"] == {"bare": recipe.step("bare")}
    assert styled.config == recipe.step("student").config
    assert recipe.step("styled-recorded").config.of_others
    assert not recipe.step("answers-recorded").config.of_others


def test_human_explanations_are_compared_with_the_model_on_the_same_queries(tmp_path: Path):
    (tmp_path / "teacher.toml").write_text('model = "m"\n[[endpoints]]\nurl = "http://h:1/v1"\n')
    teacher = {"file": tmp_path / "teacher.toml"}
    recipe = orca(_mini(tmp_path, assistant=None, teacher=teacher, ablate=["humans"]))
    kept = recipe.step("human-prompts")
    assert kept.inputs["prompts"] is recipe.step("answers").inputs["prompts"]
    assert recipe.step("human").inputs["prompts"] is kept
    human, model = recipe.step("human-explanations"), recipe.step("model-explanations")
    assert human.inputs["answers"] == {"human": recipe.step("human")}
    (same,) = model.inputs["answers"].values()
    assert same.inputs == {"answers": recipe.step("answers"), "like": kept}
    assert human.config == model.config


def test_as_many_rows_come_from_all_tasks_or_from_few(tmp_path: Path):
    recipe = orca(_mini(tmp_path, assistant=None, ablate=["size", "coverage"]))
    for size in (4, 16):
        (few,) = recipe.step(f"tasks-of-{size}").inputs["answers"].values()
        (rows,) = recipe.step(f"one-of-{size}").inputs["answers"].values()
        assert (few.config.tasks_nth, few.config.every_nth) == (size, 1)
        assert (rows.config.tasks_nth, rows.config.every_nth) == (1, size)


def test_one_data_set_is_tried_on_several_bases(tmp_path: Path):
    for name in ("One", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "q.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    suites = [{"suite": "gsm8k", "path": tmp_path / "q.jsonl"}]
    bases = [tmp_path / "One", tmp_path / "two"]
    recipe = orca(_mini(tmp_path, assistant=None, bases=bases, suites=suites))
    for base, name in zip(bases, ("one", "two"), strict=True):
        student = recipe.step(f"student-{name}")
        assert student.inputs["answers"] == recipe.step("student").inputs["answers"]
        assert student.inputs["base"].path == base
        assert recipe.step(f"scores-base-{name}").inputs["model"].folder.path == base
        assert recipe.step(f"scores-student-{name}").inputs["model"].folder is student
    report = recipe.step("report")
    assert report.config.phases["student-two"] == ("student-two",)
    with pytest.raises(RecipeError, match="two of bases have the same name"):
        orca(_mini(tmp_path, bases=[tmp_path / "One", tmp_path / "words" / "one"]))


SEALED = {"arms": ["base", "student"], "smallest_difference": 0.05, "metric": "acc_norm"}


def test_a_declaration_rests_on_the_suites_with_its_metric(tmp_path: Path):
    (tmp_path / "q.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    suites = [{"suite": name, "path": tmp_path / "q.jsonl"} for name in ("piqa", "gsm8k")]
    recipe = orca(_mini(tmp_path, suites=suites, sealed=SEALED))
    assert list(recipe.step("sealed").inputs["items"]) == ["piqa"]
    names = [step.name for step in recipe.steps]
    assert names.index("scores-base") < names.index("student")
    for name in ("scores-base", "scores-student", "report"):
        assert recipe.step(name).inputs["sealed"] == recipe.step("sealed")
    with pytest.raises(RecipeError, match=r"sealed\.metric = 'f1': piqa has 'acc_norm'; gsm8k has"):
        orca(_mini(tmp_path, suites=suites, sealed={**SEALED, "metric": "f1"}))
    with pytest.raises(RecipeError, match=r"sealed\.arms: 'mixed' is none of base, student"):
        orca(_mini(tmp_path, suites=suites, sealed={**SEALED, "arms": ["base", "mixed"]}))


def test_a_student_that_needs_an_assistant_says_so(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"'reversed' needs an assistant; set \[assistant\]"):
        orca(_mini(tmp_path, assistant=None, ablate=["order"]))


@pytest.mark.slow
def test_every_step_from_collections_to_a_data_set(data_dir: Path, tmp_path: Path):
    changes = {
        "suites": [
            {
                "suite": "agieval",
                "path": data_dir / "agieval" / "v1",
                "tasks": ["aqua-rat"],
            }
        ],
        "measure": {"method": "likelihood"},
        "num_queries": 300,
        "ablate": ["order"],
        "assistant": {"recorded": "targets"},
        "teacher": {"recorded": "rationales"},
        "student": {
            "tokenizer": data_dir / "tok_llama2",
            "new": {"hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 2},
        },
        "collections": [
            {"path": data_dir / "flan_cot" / "cot_data", "pattern": "aqua_train.tsv"},
            {
                "kind": "natural_instructions",
                "pattern": "task0*.json",
                "path": data_dir / "natural_instructions_en" / "tasks",
                "max_per_task": 300,
            },
        ],
        "ready": [
            {
                "path": data_dir / "orca_dpo_sample" / "orca_dpo_pairs",
                "read": {"pattern": "validation.jsonl", "model": "gpt-4"},
            }
        ],
    }
    made = run(resolve(orca(_config(data_dir, **changes)), tmp_path), Runtime(max_error_frac=1.0))
    counts = made["drawn-niv2"].record.counts
    assert max(num for name, num in counts.items() if name.startswith("drawn/")) == 300
    assert made["clean"].record.dropped == {"contaminated/agieval": 2}
    assert {"reversed", "mixed"} <= set(made)
    page_text = (made["report"].path / "report.html").read_text()
    for word in (
        "Mixture",
        "response length",
        "contaminated/agieval",
        "Requests, tokens",
        "gold answers",
    ):
        assert word in page_text
    assert "unknown" in (made["dataset"].path / "README.md").read_text()


LIVE = """
model = "m"
[[endpoints]]
url = "http://localhost:1/v1"
"""


def _live(tmp_path: Path, **changes: Any) -> OrcaConfig:
    for name in ("assistant", "teacher"):
        (tmp_path / f"{name}.toml").write_text(LIVE.replace('"m"', f'"{name}"'))
    settings = {
        "assistant": {"file": tmp_path / "assistant.toml"},
        "teacher": {"file": tmp_path / "teacher.toml"},
        "teacher_queries": 5,
    }
    return _mini(tmp_path, **{**settings, **changes})


def _asked(recipe: Any, step: str, name: str) -> str:
    use = recipe.step(step).inputs[name]
    assert use.service is not None and use.folder is None
    return use.config.label


def test_the_teacher_answers_what_the_assistant_got_wrong_and_is_checked(tmp_path: Path):
    recipe = orca(_live(tmp_path, teacher_takes="wrong", verify={}))
    assert recipe.step("for-teacher").stage.name == "curate.select_hardest"
    assert recipe.step("for-teacher").inputs["answers"] == {"assistant": recipe.step("assisted")}
    assert recipe.step("answers").stage.name == "augment.verify"
    assert recipe.step("answers").inputs["prompts"] == recipe.step("for-teacher")
    assert _asked(recipe, "assisted", "teacher") == "assistant"
    assert _asked(recipe, "answers", "teacher") == "teacher"
    assert recipe.step("student.1").inputs["answers"] == {"assistant": recipe.step("assisted")}
    assert recipe.step("student").inputs["answers"] == {"teacher": recipe.step("answers")}


def test_the_assistant_questions_the_teacher(tmp_path: Path):
    recipe = orca(_live(tmp_path, dialogue={}))
    assert recipe.step("for-teacher").stage.name == "collect.draw_subset"
    assert recipe.step("answers").stage.name == "augment.discuss"
    assert _asked(recipe, "answers", "assistant") == "assistant"


def test_a_choice_among_several_answers_is_a_step_of_its_own(tmp_path: Path):
    sampling = {"temperature": 0.7, "log_probability": True}
    teacher = {"file": tmp_path / "teacher.toml"}
    several = {"num_samples": 4, "sampling": sampling}
    recipe = orca(_live(tmp_path, teacher={**teacher, "answers": several}, pick="likely"))
    assert recipe.step("answers").config.num_samples == 4
    assert recipe.step("picked").inputs == {"answers": recipe.step("answers")}
    assert recipe.step("student").inputs["answers"] == {"teacher": recipe.step("picked")}
    with pytest.raises(ValidationError, match=r"needs teacher\.answers\.sampling\.log_prob"):
        _live(tmp_path, teacher=teacher, pick="likely")


def test_a_model_in_two_roles_is_paid_for_both(tmp_path: Path):
    config = _live(tmp_path, dialogue={}, assistant={"file": tmp_path / "teacher.toml"})
    priced = f"{LIVE}usd_per_million_response = 1e6\n".replace('"m"', '"teacher"')
    (tmp_path / "teacher.toml").write_text(priced)
    built = orca(config)
    names = [step.name for step in built.steps]
    built.steps = built.steps[: names.index("answers") + 1]
    line = plan(resolve(built, tmp_path / "out"))[-1]
    tokens = {name: each.response_tokens for name, each in line.estimate.calls.items()}
    assert {name: each.usd for name, each in line.demands.items()} == {
        "teacher": tokens["teacher"], "teacher as assistant": tokens["assistant"]
    }  # fmt: skip
    assert line.usd == sum(tokens.values()) > tokens["teacher"] > 0


def _teaching(tmp_path: Path, how: str, own: dict[str, Any], plain: dict[str, Any]) -> Any:
    teacher = {"file": tmp_path / "teacher.toml", "answers": plain}
    return orca(_live(tmp_path, teacher=teacher, **{how: own})).step("answers").config


@pytest.mark.parametrize("how", ["verify", "dialogue"])
def test_checked_and_discussed_answers_are_asked_for_as_plain_ones(tmp_path: Path, how: str):
    plain = {"sampling": {"max_new_tokens": 700, "top_p": 0.5}}
    found = _teaching(tmp_path, how, {}, plain)
    temperature = {"verify": 0.7, "dialogue": 0.0}[how]  # their own, for plain has none
    assert found.sampling == Sampling(max_new_tokens=700, top_p=0.5, temperature=temperature)
    own = {"sampling": {"max_new_tokens": 90, "temperature": 1.0}}
    found = _teaching(tmp_path, how, own, plain)
    assert found.sampling == Sampling(max_new_tokens=90, top_p=0.5, temperature=1.0)
    assert _teaching(tmp_path, how, own, {}) == type(found)(**own)


def test_a_temperature_that_checking_cannot_have_is_told(tmp_path: Path):
    with pytest.raises(ValidationError, match="at temperature 0 repeat the first"):
        _teaching(tmp_path, "verify", {}, {"sampling": {"temperature": 0.0}})


def test_what_init_writes_can_be_checked(tmp_path: Path):
    for name in INIT_FILES:
        write_example(tmp_path, name)
    path = tmp_path / INIT_FILES[0]
    path.write_text(f"{path.read_text().replace('512', '700')}\n[verify]\nmax_samples = 2\n")
    found = orca(read_recipe(path).config(OrcaConfig)).step("answers").config
    assert isinstance(found, VerifyConfig)
    assert (found.max_samples, found.sampling.max_new_tokens) == (2, 700)


def test_a_served_teacher_is_asked_the_items_too(tmp_path: Path):
    (tmp_path / "q.jsonl").write_text('{"question": "Q?", "answer": "A"}\n')
    suites = [{"suite": "questions", "path": tmp_path / "q.jsonl"}]
    recipe = orca(_live(tmp_path, suites=suites, measure_teacher=True))
    assert _asked(recipe, "scores-teacher", "model") == "teacher"
    assert list(recipe.step("report").inputs["scores"]) == ["base", "student", "teacher"]


def test_stages_of_training_have_settings_of_their_own(tmp_path: Path):
    first = {"epochs": 3.0}
    recipe = orca(_live(tmp_path, train_assistant=first, ablate=["assistant", "order"]))
    epochs = {
        name: recipe.step(name).config.epochs
        for name in ("student.1", "student", "reversed.1", "reversed", "mixed", "assistant-only")
    }
    assert epochs == {
        "student.1": 3.0, "student": 1.0, "reversed.1": 1.0, "reversed": 3.0, "mixed": 1.0,
        "assistant-only": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"assistant": None}, r"teacher_queries need an \[assistant\]"),
        ({"verify": {}, "dialogue": {}}, "verify or dialogue, not both"),
        ({"teacher": {}}, "exactly one of file and recorded"),
        ({"teacher_takes": "wrong", "teacher_queries": None}, "'wrong' needs teacher_queries"),
        (
            {"assistant": None, "teacher_queries": None, "train_assistant": {"epochs": 1}},
            r"train_assistant needs an \[assistant\]",
        ),
        ({"student": {"base": "b", "new": {"num_layers": 1}}}, "the shape of a new model"),
        (
            {"verify": {}, "teacher": {"file": "t", "answers": {"num_samples": 2}}},
            r"\[verify\] does not know teacher\.answers\.num_samples",
        ),
        (
            {"dialogue": {}, "teacher": {"file": "t", "answers": {"outcomes": {"cut": "drop"}}}},
            r"\[dialogue\] does not know teacher\.answers\.outcomes",
        ),
    ],
)
def test_settings_that_do_not_go_together(tmp_path: Path, changes: dict[str, Any], text: str):
    with pytest.raises(ValidationError, match=text):
        _live(tmp_path, **changes)


@pytest.mark.parametrize("by", ["errors", "loss"])
def test_a_pilot_makes_strata_by_difficulty(tmp_path: Path, tiny_folder: Path, by: str):
    lines = [json.dumps({"inputs": f"{n} + 1?", "targets": str(n + 1)}) for n in range(40)]
    (tmp_path / "sums.jsonl").write_text("\n".join(lines))
    sums = {
        "kind": "records",
        "name": "sums",
        "path": tmp_path / "sums.jsonl",
        "columns": {"task": ""},
        "num_rows": 10,
        "strata": [{"by": "difficulty", "edges": [0.5 if by == "errors" else 6.5]}],
    }
    with pytest.raises(ValidationError, match=r"strata by difficulty and a \[pilot\] belong"):
        _mini(tmp_path, collections=[sums])
    answers = {"sampling": {"max_new_tokens": 4}}
    pilot = {"file": tiny_folder, "by": by, "num_rows": 30, "answers": answers}
    teacher = {"recorded": "targets"}
    built = orca(_mini(tmp_path, collections=[{**sums, "pilot": pilot}], teacher=teacher))
    names = [step.name for step in built.steps]
    assert "hard-sums" in names
    built.steps = built.steps[: names.index("distinct")]
    made = run(resolve(built, tmp_path / "out"), Runtime(device="cpu"))
    assert made["pilot-sums"].num_rows == 30
    drawn = made["drawn-sums"]
    assert drawn.num_rows == 10
    assert {row.id for row in drawn.rows(Query)} < {
        row.id for row in made["pilot-sums"].rows(Query)
    }
    counts = drawn.record.counts
    assert sum(num for name, num in counts.items() if name.startswith("stratum/")) == 10
    if by == "errors":
        assert counts["stratum/difficulty from 0.5"] == 10  # a random model gets nothing right


@pytest.mark.slow
def test_what_init_writes_runs_with_a_teacher_and_a_base(
    tmp_path: Path, neox_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in INIT_FILES:
        write_example(tmp_path / "mine", name)
    recipe = tmp_path / "mine" / INIT_FILES[0]
    text = recipe.read_text()
    assert text.count('base = "base"') == 1 and len(text.splitlines()) < 50
    recipe.write_text(text.replace('base = "base"', f'base = "{neox_folder}"'))
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with Server() as server:
        (tmp_path / "mine" / "teacher.toml").write_text(
            f'model = "{MODEL}"\nbudget_usd = 1\n[[endpoints]]\nurl = "{server.url}"\n'
            'key_env = "TEACHER_KEY"\nusd_per_million_prompt = 1000\n'
            "usd_per_million_response = 1000\n"
        )
        built = orca(read_recipe(recipe).config(OrcaConfig))
        made = run(resolve(built, tmp_path / "out"), Runtime())
        assert set(server.billed().values()) == {1}
    results = json.loads((made["report"].path / "results.json").read_text())
    assert {row["model"] for row in results} == {"base", "student", "teacher"}
    assert all(row["in_training"]["num_clean"] == row["n"] for row in results)
    html = (made["report"].path / "report.html").read_text()
    assert "student minus base" in html and "student minus teacher" in html
    usd = sum(made[name].record.usage["usd"] for name in ("answers", "scores-teacher"))
    assert usd > 0 and f"{usd:,.4f}" in html
    assert len((made["dataset"].path / "train.jsonl").read_text().splitlines()) == 5
