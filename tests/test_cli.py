import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main

import spyhop
from command import Done
from corpus.pages import write_articles
from spyhop.cli import app, commands
from spyhop.recipe import resolve, run
from spyhop.recipe.load import read_recipe
from spyhop.recipes import INIT_FILES, RECIPES, write_example
from spyhop.recipes.orca import OrcaConfig, orca
from spyhop.runtime import Runtime
from spyhop.schema import Prompt

HEAVY = {
    "aiohttp", "duckdb", "jinja2", "numpy", "pandas", "pyarrow", "ray", "scipy",
    "sentencepiece", "torch", "transformers",
}  # fmt: skip
SPYHOP = Path(sys.executable).with_name("spyhop")
COMMANDS = {
    "answer": {"--out", "--plan", "--retry-errors", "--set", "--settle", "--teacher", "prompts"},
    "backtranslate": {"--model", "--out", "--plan", "--set", "--settle", "segments"},
    "batches": {"--cancel", "--fetch", "--out"},
    "serve": {"--gpus", "--hours", "--options", "--replicas", "--slurm", "--urls", "model"},
    "chat": {"--device", "--max-new-tokens", "--system", "--temperature", "models"},
    "clean": {"--free", "--journals", "--out", "--partial"},
    "compare": {
        "--anyway",
        "--by",
        "--html",
        "--json",
        "--metric",
        "--rows",
        "--task",
        "first",
        "second",
    },
    "export": {"--dataset", "--out", "--to", "scores"},
    "curate": {"--judge", "--out", "--plan", "--set", "--settle", "pairs"},
    "delta": set(),
    "doctor": {"--out", "--quick", "teacher"},
    "eval": {
        "--data",
        "--limit",
        "--out",
        "--plan",
        "--rescore",
        "--rows",
        "--samples",
        "--set",
        "--shots",
        "--suite",
        "--system-messages",
        "models",
    },
    "init": {"folder"},
    "plan": {"--ablate", "--json", "--out", "--set", "--within-days", "recipe"},
    "push": {"--out", "--public", "--to", "--yes", "run"},
    "quickstart": {"--out", "--set", "--thorough", "--workers", "loop"},
    "recipes": {"--schema", "name"},
    "report": {"--ablate", "--out", "--set", "recipe"},
    "reproduce": {"--out", "--set", "--yes", "card"},
    "run": {
        "--ablate",
        "--out",
        "--retry-errors",
        "--set",
        "--settle",
        "--shard",
        "--workers",
        "recipe",
    },
    "sbatch": {
        "--ablate",
        "--gpus",
        "--nodes",
        "--options",
        "--out",
        "--rounds",
        "--set",
        "--shards",
        "recipe",
    },
    "scale": {
        "--base",
        "--data",
        "--held-out",
        "--judge",
        "--out",
        "--plan",
        "--seeds",
        "--set",
        "--suite",
        "sets",
    },
    "segment": {"--on", "--out", "--processes", "--set", "inputs"},
    "show": {
        "--ablate",
        "--dropped",
        "--format",
        "--json",
        "--mask",
        "--out",
        "--recipe",
        "--rows",
        "--set",
        "--train-on",
        "-n",
        "artifact",
    },
    "judge": {
        "--check",
        "--data",
        "--form",
        "--judge",
        "--limit",
        "--out",
        "--plan",
        "--reference",
        "--retry-errors",
        "--set",
        "--settle",
        "--suite",
        "--teacher",
        "models",
    },
    "studio": {"--host", "--model", "--port", "--token", "stores"},
    "tasks": {"--data", "--shots", "--tokenizer", "suite"},
    "train": {"--base", "--data", "--out", "--plan", "--set", "--settings", "--suite", "rows"},
    "vote": set(),
    "why": {"--ablate", "--json", "--out", "--set", "recipe", "step"},
}
RECIPE = """
recipe = "orca"
name = "toy"
[[collections]]
path = "cot"
[student]
base = "model"
[train]
epochs = 2.0
batch_tokens = 400
max_tokens = 90
[train.optimizer]
learning_rate = 1e-3
[runtime]
device = "cpu"
checkpoint_s = 0.05
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> Path:
    (tmp_path / "cot").mkdir()
    lines = [f"What is {n}?\t{n}\tIt is so." for n in range(40)]
    (tmp_path / "cot" / "toy_train.tsv").write_text("\n".join(lines))
    shutil.copytree(tiny_folder, tmp_path / "model")
    path = tmp_path / "toy.toml"
    path.write_text(RECIPE)
    return path


def _refused(done: Done, text: str) -> None:
    assert done.code == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("spyhop: ") and re.search(text, line), line


def _changed(recipe: Path, old: str, new: str) -> Path:
    assert old in RECIPE
    recipe.write_text(RECIPE.replace(old, new))
    return recipe


def _commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {name: group.get_command(None, name) for name in group.list_commands(None)}


def test_the_commands_and_options_are_these():
    found: dict[str, set[str]] = {}
    for name, command in _commands().items():
        options: set[str] = set()
        for parameter in command.params:
            names: Sequence[str] = [*parameter.opts, *parameter.secondary_opts]
            options |= set(names)
        found[name] = options - {"--help"}
    assert found == COMMANDS


def test_help_imports_no_heavy_library_and_no_room_but_the_command_lines_own():
    light = {"cli", "lazy", "schema"}
    code = "import spyhop.cli as m; m.main()"
    ask = (
        f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code}"
    )
    for arguments in ([], ["--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", ask, *arguments], capture_output=True, text=True, check=True
        )
        loaded = set(done.stderr.split())
        assert {m.split(".")[1] for m in loaded if m.startswith("spyhop.")} <= light
        assert not {m.split(".")[0] for m in loaded} & HEAVY


def test_no_command_imports_what_only_weights_and_pages_of_others_need(tmp_path: Path):
    code = (
        "import sys, spyhop.cli.recipes, spyhop.cli.tasks, spyhop.cli.training, spyhop.cli.upkeep"
    )
    later = sorted(HEAVY - {"aiohttp", "jinja2", "numpy", "pyarrow"})
    ask = f"{code}; print([name for name in {later!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_commands_in_sections_and_truncates_nothing(cli):
    done = cli("--help")
    lines = done.stdout.splitlines()
    assert done.code == 0 and "..." not in done.stdout.partition("Options:")[2]
    assert max(map(len, lines)) <= 80
    for title, section in commands.COMMANDS.items():
        assert f"{title}:" in lines
        for name, (_, summary) in section.items():
            assert any(line.split() == [name, *summary.split()] for line in lines), name
    assert cli().stdout == done.stdout


def test_a_summary_is_the_first_line_of_the_commands_own_help():
    table = {n: text for section in commands.COMMANDS.values() for n, (_, text) in section.items()}
    assert {n: c.help.partition("\n")[0] for n, c in _commands().items()} == table


def test_the_version_is_the_packages(cli):
    assert cli("--version") == (0, f"spyhop {spyhop.__version__}\n", "")


def test_the_installed_command_and_the_module_do_the_same(tmp_path: Path):
    for start in ([str(SPYHOP)], [sys.executable, "-m", "spyhop"]):
        done = subprocess.run([*start, "frob"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("spyhop: No such command 'frob'.")


def test_recipes_are_a_short_list_and_one_shows_its_settings(cli):
    lines = cli("recipes").stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(RECIPES)
    assert all(line.split(maxsplit=1)[1] == RECIPES[line.split()[0]].summary for line in lines[:-1])
    lines = cli("recipes", "orca").stdout.splitlines()
    assert lines[0] == f"orca: {RECIPES['orca'].summary}"
    names = {line.split()[0] for line in lines}
    assert {"collections", "batch_tokens", "learning_rate", "runtime", "checkpoint_s"} <= names
    assert "seeds" not in names
    (arms,) = [line for line in lines if line.split()[0] == "ablate"]
    wanted = "teacher, assistant, order, answers, queries, style, messages, size, humans, coverage"
    assert arms.partition("any of ")[2].partition("  ")[0] == wanted
    _refused(cli("recipes", "orka"), r"'orka': no such recipe; known: answer, ")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            'recipe = "orca"',
            'recipe = "orka"',
            r"recipe = 'orka' is unknown; known: \['answer', ",
        ),
        ('recipe = "orca"', "", r"toy\.toml: the line `recipe = "),
        ("epochs = 2.0", "epochs =", r"toy\.toml: not TOML: .*line"),
        ("epochs = 2.0", "epoch = 2.0", r"train\.epoch is not a setting; did you mean 'epochs'"),
        ("epochs = 2.0", "epochs = 'x'", r"train\.epochs = 'x': Input should be a valid number"),
        (
            'device = "cpu"',
            "[measure.sampling]\ntemperature = 'hot'",
            r"measure\.sampling\.temperature = 'hot': Input should be a valid number",
        ),
        ('name = "toy"', 'name = "../up"', r"'\.\./up' cannot name a recipe"),
        ('device = "cpu"', "divice = 1", r"runtime\.divice is not a setting; did you mean"),
    ],
    ids=["recipe", "no recipe", "no TOML", "key", "type", "type of several", "name", "runtime"],
)
def test_a_wrong_file_is_one_line(cli, recipe: Path, old: str, new: str, text: str):
    _refused(cli("plan", _changed(recipe, old, new)), text)


def test_a_missing_folder_is_named_by_a_plan_and_refused_by_a_run(cli, recipe: Path):
    lost = _changed(recipe, 'path = "cot"', 'path = "nowhere"')
    _refused(cli("run", lost), r"nowhere: no such file or folder")
    assert "nowhere: not found yet" in cli("plan", lost).stdout


def test_wrong_arguments_are_one_line(cli, recipe: Path, tmp_path: Path):
    _refused(cli("run", "absent.toml"), r"absent\.toml: cannot be read \(No such file")
    _refused(cli("plan", recipe, "--set", "train"), r"--set train: write it as key\.sub=value")
    _refused(cli("why", recipe, "nowhere"), r"no step 'nowhere'; known: queries-cot, ")
    (tmp_path / "here").mkdir()
    _refused(cli("show", "nothing", "--out", "here"), r"nothing: no finished artifact of that name")
    there = ("--recipe", recipe, "--out", "here")
    _refused(
        cli("show", "queries-cot", *there), r"queries-cot has not run yet in here; `spyhop run`"
    )
    _refused(cli("run", recipe, "--out", recipe), r"cannot be written")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["frob"], "No such command 'frob'."),
        (["run"], "Missing argument"),
        (["run", "--bad"], "No such option: --bad"),
        (["run", "a.toml", "--workers", "many"], "Invalid value for '--workers'"),
    ],
)
def test_a_misspelt_command_is_one_line(cli, arguments: list[str], text: str):
    _refused(cli(*arguments), text)


def test_names_that_no_file_can_have_are_one_line(cli, recipe: Path):
    long = "n" * 300
    _refused(cli("run", f"{long}.toml"), "File name too long")
    _refused(cli("run", recipe, "--out", long), "File name too long")
    _refused(cli("run", recipe, "--out", "~nosuchuser/x"), "no such user's home folder")
    _refused(cli("run", recipe, "--set", f"name={long}"), "cannot name a recipe; use at most 100")
    _refused(
        cli("show", long, "--out", recipe.parent), "no finished artifact of that name|too long"
    )


def test_too_few_file_handles_are_one_line(recipe: Path, tmp_path: Path):
    limited = ["sh", "-c", 'ulimit -n 9; exec "$@"', "sh", str(SPYHOP)]
    done = subprocess.run(
        [*limited, "run", str(recipe), "--out", "out"], cwd=tmp_path, capture_output=True, text=True
    )
    _refused(
        Done(done.returncode, done.stdout, done.stderr), "too many open files; raise the limit"
    )


def test_damaged_things_are_one_line(cli, recipe: Path, tmp_path: Path):
    (tmp_path / "cot" / "toy_train.tsv").write_text("one field\n")
    _refused(cli("run", recipe, "--out", "out"), r"toy_train\.tsv: line 1 has 1 fields")
    (tmp_path / "cot" / "toy_train.tsv").write_text("a\tb\tc\n")
    (tmp_path / "model" / "config.json").write_text("{}")
    _refused(cli("run", recipe, "--out", "out"), r"model: not a Hugging Face model folder")
    (made,) = (tmp_path / "out").glob("collect.pair-*")
    (made / "record.json").write_text('{"key"')
    _refused(cli("run", recipe, "--out", "out"), r"record\.json: .*delete that folder")
    _refused(cli("clean", "--out", "out"), r"record\.json: .*delete that folder")


def test_a_worker_names_the_node_of_its_error(cli, recipe: Path, tmp_path: Path):
    (tmp_path / "cot" / "toy_train.tsv").write_text("one field\n")
    done = cli("run", recipe, "--workers", 2)
    _refused(done, r"(queries-cot|answers-recorded): .*toy_train\.tsv: line 1 has 1 fields")


def test_a_store_that_is_not_there_is_one_line(cli, recipe: Path):
    for command in (
        ["clean"],
        ["clean", "--free"],
        ["show", "x"],
        ["show", "x", "--recipe", recipe],
    ):
        _refused(
            cli(*command),
            r"spyhop-out: no such folder; name the output folder of your run: --out",
        )
    _refused(cli("clean", "--out", "elsewhere"), r"elsewhere: no such folder; .* --out")


def test_a_report_makes_nothing_else(cli, recipe: Path, tmp_path: Path):
    _refused(
        cli("report", recipe),
        r"toy\.toml: steps not finished: queries-cot, .*, \.\.\.; `spyhop run`",
    )
    assert not list(tmp_path.glob("spyhop-out/*.*-*"))


@pytest.mark.parametrize("shipped", ["quickstart.toml", "thorough.toml"])
def test_shipped_recipes_are_planned(cli, tmp_path: Path, shipped: str):
    done = cli("plan", write_example(tmp_path, shipped))
    assert done.code == 0 and re.search(r"^core\.tokenizer\s+world\.train_token", done.stdout, re.M)


@pytest.mark.parametrize(
    ("shipped", "base"), [("orca.toml", "llama-13b"), ("humpback.toml", "llama-7b")]
)
def test_a_plan_needs_no_weights_and_a_run_does(cli, tmp_path: Path, shipped: str, base: str):
    shutil.copytree(Path(__file__).parents[1] / "examples", tmp_path, dirs_exist_ok=True)
    done = cli("plan", tmp_path / shipped)
    assert done.code == 0 and re.search(
        rf"models/{base}: not found yet; excluded from this", done.stdout
    )
    _refused(cli("run", tmp_path / shipped), "no such file or folder")


def test_a_plan_tells_how_many_endpoints_make_it_in_time(cli, tmp_path: Path):
    shutil.copytree(Path(__file__).parents[1] / "examples", tmp_path, dirs_exist_ok=True)
    told = {}
    for days in (7, 21):
        said = cli("plan", tmp_path / "orca.toml", "--within-days", str(days)).stdout
        line = rf"^answers: (\d+) endpoints such as gpt-4's finish within {days} days \((.*); "
        found = re.search(line + r"configured: 1\)", said, re.M)
        assert found, said
        told[days] = int(found[1]), float(found[2])
        assert told[days][0] == math.ceil(told[days][1])
    assert told[7][1] == pytest.approx(3 * told[21][1], abs=0.02) and told[7][0] > told[21][0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("settings.0.batch_tokens=0", r"settings\.0\.batch_tokens = 0: .*greater than 0"),
        ("snapshots=[1.5]", r"snapshots are shares of the training, above 0 and below 1"),
        ("snapshots=[1]", r"snapshots are shares of the training, above 0 and below 1"),
        ("messages.2.id=nope", r"no system message has the id 'steps'; known: \['answer'"),
        ("messages=[]", r"no system message has the id 'answer'; known: \[\]"),
        ("settings.0.student.num_heads=3", r"hidden_size = 64 is no multiple of twice num_heads"),
        ("settings.0.optimizer.learning_rate=-1", r"learning_rate = -1: .*greater than 0"),
        ("settings.0.steps=[6,3]", r"settings\.0\.steps = \[6, 3\]: need 1 <= least <= greatest"),
        ('settings.0.families=["nope"]', r"settings\.0\.families\.0 = 'nope': .*known: coin"),
        ("settings.0.families=[]", r"settings\.0\.families = \[\]: .*at least 1 item"),
        ("settings.0.arms=['nope']", r"settings\.0\.arms\.0 = 'nope': .*explanations"),
        ("settings=[]", r"settings = \[\]: .*at least 1 item"),
        ("seeds=[]", r"seeds = \[\]: .*at least 1 item"),
        ("seeds=[0,0]", r"two steps named 'core\."),
        (
            "settings.0.student.previous_token_heads=9",
            r"previous_token_heads is more than num_heads",
        ),
        ("runtime.device=gpu", r"runtime\.device = 'gpu': .*auto, cpu, cuda or cuda:1"),
        ("runtime.workers=0", r"runtime\.workers = 0: .*greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_of_the_quick_start_is_one_line(
    cli, tmp_path: Path, change: str, text: str
):
    path = write_example(tmp_path, "quickstart.toml")
    _refused(cli("run", path, "--set", change), text)
    assert [file.name for file in tmp_path.iterdir()] == ["quickstart.toml"]  # nothing has begun


def test_an_error_raised_while_a_recipe_is_built_is_one_line(cli, tmp_path: Path):
    """Half a token is left for a stage: a fault that no single setting has."""
    path = write_example(tmp_path, "quickstart.toml")
    done = cli("plan", path, "--set", "settings.0.few_tokens=1")
    _refused(done, r"quickstart\.toml: TuneConfig tokens: .*greater than 0")


def test_plan_why_show_and_clean_tell_what_is(cli, recipe: Path, tmp_path: Path):
    planned = cli("plan", recipe).stdout
    assert re.search(r"queries-cot\s+collect\.read_flan_cot\s+40", planned)
    assert not list(tmp_path.glob("spyhop-out/*.*-*"))
    told = cli("why", recipe, "queries-cot")
    assert told.stdout == "queries-cot: it was never made here\n"
    done = cli("run", recipe)
    assert done.code == 0, done.stderr
    assert "report: " in done.stdout
    assert cli("why", recipe, "student").stdout == "student: up to date\n"
    changed = cli("why", recipe, "student", "--set", "train.seed=1")
    assert changed.stdout == "student: seed: 0 became 1\n"
    shown = cli("show", "answers", "--recipe", recipe, "-n", 1)
    assert "It is so." in shown.stdout and "40 rows" in shown.stdout
    cleaned = cli("clean", "--free")
    assert "freed 0.0 MB" in cleaned.stdout
    again = cli("run", recipe)
    assert " 0 steps run, " in again.stdout


def test_a_report_takes_nothing_from_a_run_with_further_students(cli, recipe: Path):
    assert cli("run", recipe, "--ablate", "teacher").code == 0
    told = cli("report", recipe)
    assert (
        told.code == 0 and "steps of the last run not in this report: teacher-only;" in told.stdout
    )
    assert cli("clean", "--free").code == 0
    named = (recipe, "--ablate", "teacher")
    assert cli("why", *named[:1], "teacher-only", *named[1:]).stdout == "teacher-only: up to date\n"
    shown = cli("show", "teacher-only", "--recipe", *named)
    assert shown.code == 0 and shown.stdout.startswith("train.tune-")
    whole = cli("report", *named)
    assert "teacher-only" not in whole.stdout and "1 steps run, " in whole.stdout  # the page, anew


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "number"),
    [(1, signal.SIGINT), (2, signal.SIGINT), (1, signal.SIGHUP), (2, signal.SIGTERM)],
)
def test_a_signal_ends_a_training_and_the_next_run_resumes(
    cli, recipe: Path, tmp_path: Path, workers: int, number: signal.Signals
):
    recipe = _changed(recipe, "epochs = 2.0", "epochs = 15.0")
    command = [str(SPYHOP), "run", str(recipe), "--out", "out", "--workers", str(workers)]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    pattern = "out/.partial/train.tune-*/state/checkpoint-*.pt"
    until = time.monotonic() + 90
    while not list(tmp_path.glob(pattern)) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, number)  # as a terminal does: to every process of the run
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + number, error
    assert error.strip().splitlines() == ["spyhop: stopped; run again to resume"]
    assert list(tmp_path.glob(pattern)) and not list(tmp_path.glob("out/train.tune-*"))
    _no_child_is_left(tmp_path)
    rest = ("--workers", workers, "--set", "runtime.checkpoint_s=60")
    done = cli("run", recipe, "--out", "out", *rest)
    assert done.code == 0, done.stderr
    assert list(tmp_path.glob("out/train.tune-*/model.safetensors"))


def _no_child_is_left(folder: Path) -> None:
    import psutil

    def _is_ours(process: Any) -> bool:
        if process.pid == os.getpid():
            return False
        try:
            return process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    until = time.monotonic() + 5
    while left := [process for process in psutil.process_iter() if _is_ours(process)]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


def test_init_writes_a_recipe_that_can_be_planned(cli, tmp_path: Path):
    for name in INIT_FILES:
        write_example(tmp_path, name)
    done = cli("plan", INIT_FILES[0])
    assert done.code == 0 and "base: not found yet" in done.stdout
    built = orca(read_recipe(tmp_path / INIT_FILES[0]).config(OrcaConfig))
    names = {step.name for step in built.steps}
    assert {"scores-base", "scores-student", "scores-teacher", "report"} <= names


def test_inits_prompts_keep_their_system_messages_and_turns(cli, tmp_path: Path):
    assert cli("init", "my").code == 0
    built = orca(read_recipe(tmp_path / "my" / INIT_FILES[0]).config(OrcaConfig))
    place = [step.name for step in built.steps].index("prompts")
    del built.steps[place + 1 :]
    made = run(resolve(built, tmp_path / "out"), Runtime())
    prompts = list(made["prompts"].rows(Prompt))
    given = [json.loads(line) for line in Path("my/prompts.jsonl").read_text().splitlines()]
    assert len(prompts) == len(given) == 5
    for prompt, row in zip(prompts, given, strict=True):
        own = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
        turns = [{"role": turn.role, "content": turn.content} for turn in prompt.messages]
        assert turns[-len(own) :] == own and turns[0]["role"] == "system"
        assert len(turns) == len(own) + (own[0]["role"] != "system")
        assert prompt.target == row.get("target", "")


def test_pages_become_segments_with_a_report(cli, tmp_path: Path):
    write_articles(tmp_path / "pages", 2)
    done = cli("segment", "pages", "--out", "made", "--set", "segment.cut.min_chars=500")
    assert done.code == 0, done.stderr
    assert "report: made/runs/segments/report/report.html" in done.stdout
    page = (tmp_path / "made/runs/segments/report/report.html").read_text()
    assert "How to bake bread number 0" in page and "exact_duplicate" in page
    again = cli("segment", "pages", "--out", "made", "--set", "segment.cut.min_chars=500")
    assert "0 steps run, 4 reused" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (
            ["pages", "--set", "segment.cut.min_chars=9000"],
            "min_chars 9000 is above max_chars 3000",
        ),
        (["pages", "--on", "somewhere"], "on = 'somewhere'"),
        (["s3://commoncrawl/x.paths.gz"], "s3://commoncrawl/x.paths.gz: nothing is fetched"),
        (["https://a.example/x.warc.gz"], "https://a.example/x.warc.gz: nothing is fetched"),
        (
            ["pages", "--out", "pages/made"],
            "pages/made: this output folder is inside the input .*/pages;",
        ),
        (["cc.paths"], "1 of its 1 files are not here, such as .*nothing is fetched"),
    ],
)
def test_segment_tells_what_is_wrong(cli, tmp_path: Path, arguments: list[str], text: str):
    write_articles(tmp_path / "pages", 1)
    (tmp_path / "cc.paths").write_text("crawl-data/x.warc.gz\n")
    _refused(cli("segment", "--out", "made", *arguments), text)
