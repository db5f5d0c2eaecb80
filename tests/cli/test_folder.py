"""The output folder: the same recipe is the same work from whichever folder it is run."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from server import KEY, Server
from spyhop.cli.folder import output_folder, writable
from spyhop.cli.running import _ended_by_signals
from spyhop.runtime import Runtime
from spyhop.schema import ArtifactError, RecipeError

RECIPE = 'recipe = "answer"\nprompts = "prompts.jsonl"\nteacher = "teacher.toml"\n'


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPYHOP_STORE", raising=False)
    monkeypatch.setenv("TOY_KEY", KEY)


def test_the_first_that_is_named_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    beside, runtime = tmp_path / "my", Runtime(store=tmp_path / "set")
    assert output_folder(None, beside) == beside / "spyhop-out"
    (beside / "runs").mkdir(parents=True)
    assert output_folder(None, beside) == beside
    monkeypatch.setenv("SPYHOP_STORE", str(tmp_path / "env"))
    assert output_folder(None, beside) == tmp_path / "env"
    assert output_folder(None, beside, runtime) == tmp_path / "set"
    assert output_folder(Path("named"), beside, runtime) == Path("named")
    monkeypatch.setenv("SPYHOP_STORE", "~/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_folder(None) == tmp_path / "data"
    monkeypatch.setenv("SPYHOP_STORE", "~nosuchuser/data")
    with pytest.raises(RecipeError, match=r"SPYHOP_STORE=~nosuchuser/data: .*no home folder"):
        output_folder(None)


def test_a_folder_that_cannot_be_written_is_one_line_with_the_choices(tmp_path: Path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "sub", Path("/proc/nowhere")):
        with pytest.raises(
            ArtifactError, match=r"cannot be written .*--out, `store`.*SPYHOP_STORE"
        ):
            writable(folder)
    assert writable(tmp_path / "a" / "b").is_dir()


def _files(folder: Path, url: str, runtime: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"messages": [{"role": "user", "content": f"Question {n}?"}]} for n in range(5)]
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    endpoint = f'[[endpoints]]\nurl = "{url}"\nkey_env = "TOY_KEY"\n'
    (folder / "teacher.toml").write_text(f'model = "teacher"\n{endpoint}')
    (folder / "mine.toml").write_text(RECIPE + runtime)
    return folder / "mine.toml"


@pytest.mark.parametrize(
    ("runtime", "folder"), [("", "sub/spyhop-out"), ('[runtime]\nstore = "../made"\n', "made")]
)
def test_the_same_recipe_from_another_folder_pays_nothing(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, folder: str
):
    with Server() as server:
        recipe = _files(tmp_path / "sub", server.url, runtime)
        done = cli("run", "sub/mine.toml")
        assert done.code == 0, done.stderr
        named = re.search(r"^output folder: (.*)$", done.stdout, re.M)
        assert named and Path(named[1]).resolve() == tmp_path / folder
        for place, path in ((tmp_path / "sub", "mine.toml"), (Path("/"), str(recipe))):
            monkeypatch.chdir(place)
            again = cli("run", path)
            assert again.code == 0 and " 0 steps run, " in again.stdout, again
            assert "up to date" in cli("why", path, "answers").stdout
        assert set(server.billed().values()) == {1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_interrupt_once_and_an_ignored_one_is_none(number: signal.Signals):
    received: list[int] = []
    with pytest.raises(KeyboardInterrupt), _ended_by_signals(received):
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)  # while the run unwinds
    assert received == [number, number]
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with _ended_by_signals(received):
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN and len(received) == 2
    finally:
        signal.signal(number, before)
