"""`spyhop judge` end to end: served models and judges, ready answers, published verdicts."""

import json
import re
from pathlib import Path

import pytest

from command import Command, Done
from server import KEY, Call, Server
from spyhop.recipes import RECIPES
from spyhop.schema import Verdict

TEACHER = """
model = "{model}"
[[endpoints]]
url = "{url}"
key_env = "TOY_KEY"
"""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)


def _write(name: str, rows: list[object]) -> None:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _figures(folder: str = "out") -> dict[tuple[str, str], dict]:
    """Figures of all questions by model and measure."""
    rows = json.loads((Path(folder) / "results.json").read_text())
    return {(row["model"], row["measure"]): row for row in rows if row["part"] == "all"}


def _verdicts() -> list[Verdict]:
    lines = (Path("out") / "verdicts.jsonl").read_text().splitlines()
    return [Verdict.model_validate_json(line) for line in lines]


def _answers(num: int, length: int = 1) -> list[object]:
    return [{"prompt": f"What is {n}?", "response": f"It is {n}. " * length} for n in range(num)]


def _says(call: Call) -> str:
    """As a model: answer. As a judge: prefer the longer response, but cannot say on question 3."""
    asked = call.body["messages"][-1]["content"]
    if "[Response A]" not in asked:
        return "It is so. " * 5
    if "What is 3?" in asked:
        return "Both."
    first, second = re.findall(r"\[Response [AB]\]\n(.*)\n", asked)
    return f"Well.\nVerdict: {'A' if len(first) > len(second) else 'B'}"


def _judge(cli: Command, *options: str) -> Done:
    return cli("judge", "--suite", "own.jsonl", "--judge", "judge.toml", "--out", "out", *options)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    _write("own.jsonl", [{"prompt": f"What is {n}?"} for n in range(10)])
    _write("short.jsonl", _answers(10))
    with Server(answer=_says, models=("student", "judge")) as server:
        for name in ("student", "judge"):
            Path(f"{name}.toml").write_text(TEACHER.format(model=name, url=server.url))
        yield server


def test_a_limit_asks_a_sample_of_the_questions(cli: Command, served: Server):
    models = ("student.toml", "--reference", "short.jsonl")
    done = _judge(cli, *models, "--limit", "4")
    assert done.code == 0, done.stderr
    assert re.search(r"done questions +4 rows", done.stdout)
    assert 3 <= _figures()["student", "win rate"]["num"] <= 4
    refused = _judge(cli, *models, "--limit", "0")
    assert refused.code == 2 and "--limit" in refused.stderr


def test_a_served_model_is_compared_with_ready_answers(cli: Command, served: Server):
    plan = _judge(cli, "student.toml", "--reference", "short.jsonl", "--plan")
    assert plan.code == 0, plan.stderr
    assert not served.billed()
    done = _judge(cli, "student.toml", "--reference", "short.jsonl")
    assert done.code == 0, done.stderr
    found = _figures()
    rate = found["student", "win rate"]
    assert (rate["num"], rate["value"], rate["against"]) == (9, 1.0, "short")
    assert found["student", "missing verdicts"]["value"] == pytest.approx(2 / 22 + 1 / 22, abs=0.05)
    assert found["student", "flips"]["value"] == 0
    assert found["student", "shown first"]["value"] == 0.5
    assert {row.missing for row in _verdicts()} == {"", "no_verdict"}
    page = Path("out/runs/judge/report/report.html").read_text()
    assert "judge: student against short, n = 9: win rate 100.0 %" in page
    before = served.billed()
    assert _judge(cli, "student.toml", "--reference", "short.jsonl").code == 0
    assert served.billed() == before


def test_one_model_is_scored_and_several_judges_judge_at_once(cli: Command, served: Server):
    served.service.answer = lambda call: "Score: 8" if call.body["model"] == "judge" else "Score: 6"
    done = _judge(cli, "short.jsonl", "--judge", "second=student.toml")
    assert done.code == 0, done.stderr
    rows = json.loads(Path("out/results.json").read_text())
    grades = {row["judge"]: row["value"] for row in rows if row["measure"] == "mean grade / 10"}
    assert grades == pytest.approx({"judge": 0.8, "student": 0.6})


def test_failed_calls_are_asked_again_when_wanted(cli: Command, served: Server):
    _write("long.jsonl", _answers(10, 3))
    plain = served.service.answer
    served.service.answer = lambda call: (
        "" if "What is 5?" in str(call.body) else plain(call)
    )  # an empty reply has no verdict
    assert _judge(cli, "short.jsonl", "long.jsonl", "--set", "judge.attempts=1").code == 0
    assert {row.missing for row in _verdicts() if row.missing} == {"empty", "no_verdict"}
    served.service.answer = plain
    before = sum(served.billed().values())
    assert _judge(cli, "short.jsonl", "long.jsonl", "--set", "judge.attempts=2").code == 0
    assert {row.missing for row in _verdicts() if row.missing} == {"no_verdict"}
    assert sum(served.billed().values()) - before == 4  # two verdicts each on questions 3 and 5


def test_two_forms_of_one_judge_are_told_apart(cli: Command, served: Server):
    _write("long.jsonl", _answers(10, 3))
    served.service.answer = lambda call: "9 6" if "two numbers" in str(call.body) else _says(call)
    done = _judge(cli, "short.jsonl", "long.jsonl", "--form", "pairwise", "--form", "graded_pairs")
    assert done.code == 0, done.stderr
    rows = json.loads(Path("out/results.json").read_text())
    rates = {row["judge"]: row["value"] for row in rows if row["measure"] == "win rate"}
    assert rates == {"judge pairwise": 1.0, "judge graded_pairs": 0.5}


def test_a_judge_that_is_the_teacher_or_the_model_is_flagged(cli: Command, served: Server):
    done = _judge(cli, "student.toml", "judge.toml", "--teacher", "judge.toml")
    assert done.code == 0, done.stderr
    page = Path("out/runs/judge/report/report.html").read_text()
    assert "the judge judge is the teacher" in page
    assert "the judge judge judges its own responses (judge)" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "nosuch"], "no suite 'nosuch'; known: alpaca-eval"),
        (["--suite", "vicuna"], "where the files of vicuna are; set `data`, or add --data "),
        (["--form", "best"], "forms"),
        (["short.jsonl", "folder/short.jsonl"], "write NAME="),
        (["--reference", "nosuch.jsonl"], "nosuch.jsonl"),
    ],
)
def test_wrong_options_are_one_line(cli: Command, served: Server, options: list[str], message: str):
    done = _judge(cli, "short.jsonl", *options)
    assert done.code == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_rows_of_other_questions_are_no_answers(cli: Command, served: Server):
    _write("short.jsonl", [{"prompt": "What else?", "response": "This."}])
    done = _judge(cli, "student.toml", "short.jsonl")
    assert done.code == 2 and "ids of answers must be those of the questions" in done.stderr


def test_a_judge_is_measured_on_your_own_labelled_pairs(cli: Command, served: Server):
    """It prefers the longer response; people prefer the first."""
    rows = [
        {
            "question": f"What is {n}?", "label": "a",
            "response_a": "Yes. " * (1 + n % 2), "response_b": "No. " * (2 - n % 2),
        }
        for n in range(10)
    ]  # fmt: skip
    _write("own.jsonl", rows)
    done = _judge(cli, "--check")
    assert done.code == 0, done.stderr
    found = {row["measure"]: row for row in json.loads(Path("out/results.json").read_text())}
    assert found["length bias"]["value"] == pytest.approx(5 / 9)
    assert found["position bias"]["value"] == 0
    assert "length bias" in Path("out/runs/judge/report/report.html").read_text()


def test_the_recipe_is_known_by_its_name():
    assert RECIPES["judge"].summary.startswith("Judge models' responses")


def test_published_verdicts_of_alpaca_eval_by_the_command(cli: Command, data_dir: Path):
    """The annotations hold the responses that were judged; today's file of the reference has
    others. Without difficulties and gamed models, the length-controlled rates are these."""
    published = {
        "alpaca-7b": (805, 26.46, 25.68, 26.29),
        "vicuna-13b": (805, 70.43, 50.00, 50.00),
        "gpt-3.5-turbo-0301": (804, 89.37, 77.23, 79.18),
    }
    folder = data_dir / "alpaca_eval"
    files = {name: folder / name / "alpaca_eval_gpt4" / "annotations.json" for name in published}
    done = cli(
        "judge", *(f"{name}={path}" for name, path in files.items()), "--reference",
        f"text_davinci_003={files['alpaca-7b']}", "--suite", "alpaca-eval", "--data",
        f"alpaca-eval={files['alpaca-7b']}", "--out", "out",
        *(word for name, path in files.items() for word in ("--judge", f"{name}={path}")),
    )  # fmt: skip
    assert done.code == 0, done.stderr
    found = _figures()
    for name, (num, rate, controlled, theirs) in published.items():
        plain, equal = found[name, "win rate"], found[name, "length-controlled win rate"]
        assert (plain["num"], round(100 * plain["value"], 2)) == (num, rate)
        assert round(100 * equal["value"], 2) == controlled
        assert equal["low"] <= theirs / 100 <= equal["high"]
    assert found["gpt-3.5-turbo-0301", "missing verdicts"]["value"] == pytest.approx(1 / 805)
    page = Path("out/runs/judge/report/report.html").read_text()
    for group in ("non-distilled", "distilled", "proprietary", "161,000"):
        assert group in page


def test_judges_are_measured_against_people(cli: Command, data_dir: Path):
    """Published verdicts of two judges on PandaLM's pairs, and a served one on five of them."""
    folder = data_dir / "pandalm"
    judges = ("gpt-3.5-turbo", "pandalm-7b")
    files = (word for name in judges for word in ("--judge", folder / f"{name}-testset-v1.json"))
    done = cli("judge", "--check", "--data", f"pandalm={folder}", "--out", "out", *files)
    assert done.code == 0, done.stderr
    rows = json.loads(Path("out/results.json").read_text())
    kappas = {
        row["judge"].removesuffix("-testset-v1"): (row["num"], round(row["value"], 2))
        for row in rows if row["measure"].startswith("agreement") and row["part"] == "all"
    }  # fmt: skip
    assert kappas == {"gpt-3.5-turbo": (974, 0.49), "pandalm-7b": (999, 0.44)}
    parts = {row["part"] for row in rows}
    assert {"language en", "similar lengths", "lengths differ"} <= parts
    people = [row["value"] for row in rows if row["measure"].startswith("people among")]
    assert len(people) == 6 and min(people) > 0.8


def test_vicunas_share_of_chatgpts_grades_is_the_published_one(cli: Command, data_dir: Path):
    """92 % in Figure 1 and Table 7 of Orca."""
    folder = data_dir / "vicuna80_answers_reviews"
    answers = (folder / "answer" / f"answer_{name}.jsonl" for name in ("gpt35", "vicuna-13b"))
    review = "vicuna-13b_20230322-clean-lang/review_gpt35_vicuna-13b.jsonl"
    done = cli(
        "judge", *answers, "--suite", "vicuna", "--data", f"vicuna={folder}", "--out", "out",
        "--judge", folder / "review" / review,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    figure = _figures()["answer_vicuna-13b", "share of the other's grades"]
    assert round(100 * figure["value"]) == 92 and figure["num"] == 80


def test_a_judge_is_needed(cli: Command, tmp_path: Path):
    done = cli("judge", "a.jsonl", "--suite", "vicuna", "--data", f"vicuna={tmp_path}")
    assert done.code == 2 and "name at least one judge: --judge FILE" in done.stderr


@pytest.mark.parametrize(("reply", "why"), [("Both.", "no_verdict"), ("", "empty")])
def test_a_judge_without_a_readable_verdict_is_an_error(
    cli: Command, served: Server, reply: str, why: str
):
    _write("long.jsonl", _answers(10, length=4))
    with Server(answer=lambda call: reply, models=("judge",)) as server:
        Path("judge.toml").write_text(TEACHER.format(model="judge", url=server.url))
        done = _judge(cli, "short.jsonl", "--reference", "long.jsonl")
    assert done.code == 2 and "verdicts.jsonl" in done.stdout
    assert re.search(rf"judge: all \d+ verdicts of this judge are missing \({why}", done.stderr)
