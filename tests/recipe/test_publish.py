"""A finished run goes to the hub and comes back: files, cards, checksums; inputs, steps, scores."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import toys
from hub_server import TOKEN, HubServer
from spyhop.cli.running import load
from spyhop.recipe import Recipe, resolve, run
from spyhop.recipe.published import check_scores, publish, read_published, write_repositories
from spyhop.runtime import Runtime
from spyhop.schema import InputError
from toys import Numbers

RECIPE = """
recipe = "train"
rows = ["../data/rows.jsonl", "rows.jsonl"]
base = "{base}"
probe = false
train = {{ epochs = 1.0, batch_tokens = 300, max_tokens = 90 }}
suites = [{{ suite = "mine.toml", path = "{items}" }}]
[runtime]
device = "cpu"
"""
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""The hub's own client uploads in a way that its HTTP library deprecates."""
PAPERS = {"train": ("2306.02707",)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A finished run of `train` whose inputs are beside, above and far from its recipe."""
    place = tmp_path_factory.mktemp("home")
    (place / "data").mkdir()
    (place / "work").mkdir()
    shutil.copytree(tiny_folder, place / "far" / "base")
    row = {"messages": [{"role": r, "content": "Say 1."} for r in ("user", "assistant")]}
    rows = "".join(f"{json.dumps(row | {'licence': 'mit'})}\n" for _ in range(9))
    (place / "data" / "rows.jsonl").write_text(rows)
    (place / "work" / "rows.jsonl").write_text(rows[: len(rows) // 9 * 4])
    items = [{"question": f"Is {n} even?", "answer": "yes", "options": ["yes", "no"]} for n in "ab"]
    (place / "far" / "items.jsonl").write_text("".join(f"{json.dumps(i)}\n" for i in items))
    text = RECIPE.format(base=place / "far" / "base", items=place / "far" / "items.jsonl")
    (place / "work" / "mine.toml").write_text(
        'note = "Mine."\nfiles = "*"\noptional = ["options"]\n'
    )
    (place / "work" / "r.toml").write_text(text)
    built, runtime = load(place / "work" / "r.toml", ["train.epochs=2.0"], {})
    run(resolve(built, place / "work" / "out"), runtime)
    return place


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "work" / "out" / "runs" / "r"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def _download(hub: HubServer, name: str, folder: Path) -> Path:
    for path, content in hub.repos[name].files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_without_yes_the_files_are_listed_and_nothing_is_sent(folder: Path, hub: HubServer, cli):
    done = cli("push", folder, "--to", "me/small")
    assert done.code == 0 and done.stdout.startswith("model me/small, private: "), done
    assert done.stdout.endswith("nothing was sent; --yes pushes these files\n")
    names = {line.split()[-1] for line in done.stdout.splitlines()[1:-1]}
    assert {
        "README.md", "SHA256SUMS", "config.json", "model.safetensors", "spyhop/recipe.toml",
        "spyhop/run.json", "spyhop/mine.toml",
    } <= names  # fmt: skip
    assert hub.requests == []
    assert cli("push", folder, "--to", "me/small", "--out", "look").code == 0
    assert (Path("look/model") / "README.md").read_text().startswith("---\n")
    assert {str(p.relative_to("look/model")) for p in Path("look/model").rglob("*")} >= names
    assert hub.requests == []


def test_a_push_is_private_whole_and_checked(folder: Path, hub: HubServer, cli, tmp_path: Path):
    done = cli("push", folder, "--to", "me/small", "--yes")
    assert done.code == 0 and f"pushed: {hub.url}/me/small/commit/1" in done.stdout, done
    repo = hub.repos["model/me/small"]
    assert repo.is_private and repo.num_commits == 1 and not any("record" in n for n in repo.files)
    got = _download(hub, "model/me/small", tmp_path / "got")
    for path in (folder / "model").iterdir():
        if path.name not in ("README.md", "record.json"):
            assert (got / path.name).read_bytes() == path.read_bytes()
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=got, capture_output=True).returncode == 0
    listed = {line.split()[-1] for line in (got / "SHA256SUMS").read_text().splitlines()}
    assert listed == repo.files.keys() - {"SHA256SUMS"}
    head = yaml.safe_load((got / "README.md").read_text().split("---\n")[1])
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "mine" and result["metrics"][0]["value"] in (0, 50, 100)
    assert "n = 2" in result["metrics"][0]["name"] and "spyhop" in head["tags"]


def test_public_is_asked_for_and_an_open_repository_is_no_surprise(folder: Path, hub, cli):
    push = ("push", folder, "--to", "me/open", "--yes")
    assert cli(*push, "--public").code == 0 and not hub.repos["model/me/open"].is_private
    num_files = len(hub.repos["model/me/open"].files)
    hub.repos["model/me/open"].files.clear()
    done = cli(*push)
    assert done.code == 2 and "me/open: this repository is public; add --public" in done.stderr
    assert hub.repos["model/me/open"].files == {} and num_files > 5


def test_what_the_hub_refuses_is_one_line(folder: Path, hub: HubServer, cli, monkeypatch):
    for name, token in (("me/small", "hf_wrong"), ("no name", TOKEN), ("me/small", "")):
        monkeypatch.setenv("HF_TOKEN", token)
        done = cli("push", folder, "--to", name, "--yes")
        assert done.code == 2 and f"{name}: cannot be pushed (" in done.stderr
        assert done.stderr.count("\n") == 1


def test_cards_name_papers_and_the_data_set(tmp_path: Path, folder: Path):
    place = _published(folder, tmp_path)
    card = (place / "README.md").read_text()
    assert "arxiv:2306.02707" in yaml.safe_load(card.split("---\n")[1])["tags"]
    assert "[arXiv:2306.02707](https://arxiv.org/abs/2306.02707)" in card
    assert card.count("## Scores") == card.count("## Reproduce") == 1


@pytest.mark.slow
def test_a_run_of_orca_has_a_model_and_a_data_set(tmp_path: Path, tiny_folder: Path, cli):
    lines = [f"What is {n}?\t{n}\tIt is so." for n in range(40)]
    (tmp_path / "cot").mkdir()
    (tmp_path / "cot" / "toy_train.tsv").write_text("\n".join(lines))
    Path("o.toml").write_text(
        f'recipe = "orca"\nprobe = false\n[[collections]]\npath = "cot"\n[student]\n'
        f'base = "{tiny_folder}"\n[train]\nepochs = 1.0\nbatch_tokens = 400\nmax_tokens = 90\n'
    )
    done = cli("run", "o.toml", "--set", "runtime.device=cpu", "--out", "out")
    assert done.code == 0, done
    assert cli("push", "out/runs/o", "--to", "me/o", "--out", "look").code == 0
    heads = {
        kind: yaml.safe_load(Path(f"look/{kind}/README.md").read_text().split("---\n")[1])
        for kind in ("model", "dataset")
    }
    assert heads["model"]["datasets"] == ["me/o"] and "model-index" not in heads["model"]
    assert all("arxiv:2306.02707" in head["tags"] for head in heads.values())
    assert Path("look/dataset/data/train.parquet").is_file() and heads["dataset"]["configs"]
    done = cli("reproduce", "look/dataset", "--out", "again")
    assert done.stdout.count("\nmissing input: ") == 2 and "model: not run" in done.stdout, done
    for kind in ("model", "dataset"):
        shutil.copytree("cot", f"look/{kind}/spyhop/cot")
        shutil.copytree(tiny_folder, f"look/{kind}/spyhop/{tiny_folder.name}")
        done = cli("reproduce", f"look/{kind}", "--out", "out")
        assert done.code == 0 and "model: same" in done.stdout, done


def test_the_record_names_no_folder_of_this_machine(home: Path, folder: Path):
    record, files = publish(folder)
    text = record.model_dump_json() + "".join(files.values())
    assert str(home) not in text and "/far/" not in text and "../" not in text
    settings = tomllib.loads(files["recipe.toml"])
    assert settings["rows"] == ["other/rows.jsonl", "rows.jsonl"] or settings["rows"] == [
        "rows.jsonl", "other/rows.jsonl",
    ]  # fmt: skip
    assert settings["train"]["epochs"] == 2.0 and settings["base"] == "base"
    assert tomllib.loads(files["mine.toml"])["note"] == "Mine." and "runtime" not in settings


def test_runs_that_cannot_be_pushed_say_why(tmp_path: Path, folder: Path, cli):
    recipe = Recipe("toy")
    recipe.add("few", toys.numbers, Numbers(num_rows=3))
    run(resolve(recipe, tmp_path), Runtime())
    for place, reason in (
        (tmp_path / "runs/toy", "made by a script, so the settings of this run are not known"),
        (tmp_path, "no run (runs/<name>"),
    ):
        done = cli("push", place, "--to", "me/toy")
        assert done.code == 2 and reason in done.stderr and done.stderr.count("\n") == 1
    other = shutil.copytree(folder, folder.with_name("copy"), symlinks=True)
    (other / "student").unlink()
    assert "not finished: student" in cli("push", other, "--to", "me/toy").stderr


def _published(folder: Path, place: Path) -> Path:
    place.mkdir(exist_ok=True)
    (found,) = write_repositories(folder, place, "me/small", PAPERS)
    return found


def test_missing_inputs_are_named_and_the_rest_is_planned(folder: Path, tmp_path: Path, cli):
    card = _published(folder, tmp_path / "card") / "README.md"
    done = cli("reproduce", card, "--out", tmp_path / "out", "--set", "runtime.device=cpu")
    assert done.code == 2 and "train.tune" in done.stdout, done
    missing = [line for line in done.stdout.splitlines() if line.startswith("missing input: ")]
    assert len(missing) == 4 and f"missing input: {card.parent}/spyhop/base" in missing
    assert "not reproduced: " in done.stderr and "4 missing" in done.stderr


def test_a_run_in_another_place_is_the_same(home: Path, folder: Path, tmp_path: Path, cli):
    """With its inputs in place it has the digests of the published one; a change is found."""
    card = _published(folder, tmp_path / "card")
    names = tomllib.loads((card / "spyhop/recipe.toml").read_text())["rows"]
    for name, source in zip(names, ("data/rows.jsonl", "work/rows.jsonl"), strict=True):
        (card / "spyhop" / name).parent.mkdir(exist_ok=True)
        shutil.copy(home / source, card / "spyhop" / name)
    shutil.copy(home / "far/items.jsonl", card / "spyhop")
    shutil.copytree(home / "far/base", card / "spyhop/base")
    again = ("reproduce", card, "--out", tmp_path / "out", "--set", "runtime.device=cpu")
    done = cli(*again)
    assert done.code == 0 and "student: not run" in done.stdout, done
    done = cli(*again, "--yes")
    assert done.code == 0, done
    states = {line.partition(": ")[0]: line for line in done.stdout.splitlines()}
    record, _ = publish(folder)
    assert "report" not in record.steps and len(record.steps) > 6
    assert [name for name in record.steps if states[name] != f"{name}: same"] == []
    assert states["scores-student mine"].startswith("scores-student mine: same (")
    (card / "spyhop/rows.jsonl").write_text(json.dumps({"instruction": "a", "response": "b"}))
    done = cli(*again, "--set", "train.epochs=3.0")
    assert done.code == 2 and "student: different (epochs: 2.0 became 3.0" in done.stdout
    assert re.search(r"rows-\d: different \(\S+: \S+/rows.jsonl in place of", done.stdout), done
    assert "not reproduced: " in done.stderr


def test_scores_are_the_same_within_the_interval_or_different(folder: Path, home: Path):
    record, _ = publish(folder)
    built, _ = load(home / "work" / "r.toml", ["train.epochs=2.0"], {})
    resolved = resolve(built, folder.parent.parent)
    right, num = record.scores["scores-student"]["mine"]
    far = (0, 100) if right / num >= 0.5 else (100, 100)
    for then, state in (
        ((right, num), "same"), ((2 * right, 2 * num), "within interval"), (far, "different")
    ):  # fmt: skip
        changed = record.model_copy(update={"scores": {"scores-student": {"mine": then}}})
        found = list(check_scores(changed, resolved))
        assert [(name, found_state) for name, found_state, _ in found] == [
            ("scores-student mine", state)
        ]


def test_a_folder_without_a_record_is_one_line(tmp_path: Path):
    for text in (None, "{", "{}"):
        if text is not None:
            (tmp_path / "spyhop").mkdir(exist_ok=True)
            (tmp_path / "spyhop/run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json: cannot be read \(.*\); `spyhop push`"):
            read_published(tmp_path / "README.md" if text else tmp_path)
