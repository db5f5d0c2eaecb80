"""The audit as steps of a recipe: real scores, verdicts of a scripted judge, the page's section."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from spyhop import world
from spyhop.augment import AnswerConfig, answer
from spyhop.collect import PairConfig, SystemMessage, pair
from spyhop.evaluate import MeasureConfig, measure
from spyhop.evaluate.audit import AUDIT, AuditConfig, audit
from spyhop.recipe import Recipe, resolve, run
from spyhop.recipe.graph import Use
from spyhop.recipe.plan import plan
from spyhop.recipes.evaluating import add_audits
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.orca import OrcaConfig, orca
from spyhop.report.html import prose
from spyhop.report.sections import audit_section, sentences
from spyhop.runtime import Runtime
from spyhop.store import Artifact

FAMILIES = ("lift", "count", "days", "letters", "sums")
NUM = 30


def _recipe() -> Recipe:
    """A student with the teacher's form and as many wrong steps as its base."""
    r = Recipe("audited")
    drawn = world.ProblemsConfig(families=FAMILIES, num_rows=NUM)
    items = {"world": r.add("items", world.draw_items, drawn)}
    scores = {}
    for seed, (name, style) in enumerate((("base", "short"), ("student", "steps"))):
        weak = Use(world.Solver(name=name, solver=world.SolverConfig(slip_rate=0.5, seed=seed)))
        asked = MeasureConfig(system_message=world.BY_ID[style].text)
        scores[name] = r.add(f"scores-{name}", measure, asked, items=items, model=weak)
    queries = r.add("queries", world.draw_queries, drawn)
    told = SystemMessage(id="steps", text=world.BY_ID["steps"].text)
    pairing = PairConfig(messages=(told,), shares={"*": {"steps": 1.0}})
    prompts = r.add("prompts", pair, pairing, queries=queries)
    teacher = r.add("answers", answer, AnswerConfig(), prompts=prompts, teacher=Use(world.Solver()))
    judges = [
        Use(world.Judge(name=each, rules=world.JudgeRules(rewards=each)))
        for each in ("style", "answers")
    ]
    add_audits(r, judges, items, scores["base"], scores["student"], {"teacher": teacher})
    return r


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return run(resolve(_recipe(), tmp_path_factory.mktemp("audited")), Runtime())


def test_a_student_of_style_is_told_under_both_judges(made: dict[str, Artifact]):
    found = {n: json.loads(made[n].file(AUDIT).read_text()) for n in ("audit", "audit-2")}
    assert {each["conclusion"] for each in found.values()} == {"style"}
    by_style, by_answers = (each["gains"]["judged preference"]["value"] for each in found.values())
    assert by_style > 0.7 > 0.4 > abs(by_answers)
    for each in found.values():
        assert each["n"] == each["num_judged"] == NUM and each["missing"] == 0


def test_every_verdict_is_planned_and_asked_in_both_orders(
    made: dict[str, Artifact], tmp_path: Path
):
    (line,) = [
        each for each in plan(resolve(_recipe(), tmp_path)) if each.step.name == "audit.verdicts"
    ]
    planned = line.estimate.calls["judge"].requests
    assert planned == 2 * NUM * 1.1
    assert planned == made["audit.verdicts"].num_rows


def test_the_page_shows_each_judge_or_says_that_there_is_none(made: dict[str, Artifact]):
    audits = {"one": made["audit"], "two": made["audit-2"]}
    section = audit_section(audits)
    text = "".join(section.blocks)
    assert text.count("<svg") == 2 and "Judge: one. Style:" in text
    assert sentences(audits)["two"].startswith("Style:")
    assert prose("no_audit")[:40] in "".join(audit_section({}).blocks)


def test_without_a_judge_accuracy_and_form_decide(made: dict[str, Artifact], tmp_path: Path):
    pair = {name: made[f"scores-{name}"] for name in ("base", "student")}
    alone = audit.run(tmp_path, AuditConfig(), teacher={"teacher": made["answers"]}, **pair)
    text = "".join(audit_section({"none": alone}).blocks)
    assert "Judge: none. Style: accuracy moves by" in text and prose("no_judge")[:40] in text
    assert "the judge prefers" not in text and "both orders" not in text


def test_a_judge_needs_items():
    settings = {"collections": [{"path": "x"}], "student": {"base": "y"}, "judge": "judge.toml"}
    with pytest.raises(ValidationError, match=r"needs items: add \[\[suites\]\]"):
        OrcaConfig.model_validate(settings)
    assert "judge" in HumpbackConfig.model_fields


def test_orca_audits_its_student_where_a_judge_is_named(tmp_path: Path):
    judge = tmp_path / "judge.toml"
    judge.write_text('model = "judge"\n[[endpoints]]\nurl = "http://127.0.0.1:9/v1"\n')
    (tmp_path / "q.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    settings = {
        "collections": [{"path": tmp_path}],
        "student": {"base": tmp_path},
        "suites": [{"suite": "questions", "path": tmp_path / "q.jsonl"}],
    }
    plain = orca(OrcaConfig.model_validate(settings))
    audited = orca(OrcaConfig.model_validate({**settings, "judge": judge}))
    new = {step.name for step in audited.steps} - {step.name for step in plain.steps}
    assert new == {"audit.items", "audit.verdicts"}
    assert list(audited.step("report").inputs["audits"]) == ["judge"]
    assert list(plain.step("report").inputs["audits"]) == ["none"]
