import shutil
from pathlib import Path

import pytest
from filelock import FileLock

import toys
from spyhop.models.journal import Journal
from spyhop.schema import ArtifactError
from spyhop.store import Inventory, claim, forget, point, pointed


def _silent(message: str) -> None:
    pass


def _partial(root: Path, key: str) -> Path:
    with claim(root, "a.b", key, {}, _silent) as work:
        (work.state / "checkpoint").write_text("x" * 100)
    return work.folder


def test_what_is_needed_is_kept_and_the_rest_freed(tmp_path: Path):
    kept, free = (toys.numbers.run(tmp_path, toys.Numbers(num_rows=n)) for n in (1, 2))
    model = toys.LoggedModel(tmp_path / "log")
    asked = toys.replies.run(tmp_path, toys.Numbers(), model=model)
    point(tmp_path, "recipe", "step", kept)
    left = _partial(tmp_path, "left")
    entries = {entry.path.name: entry for entry in Inventory(tmp_path).entries}
    assert entries[kept.path.name].needed_by == ("recipe/step",)
    assert entries[free.path.name].needed_by == () and entries[left.name].kind == "partial"
    assert entries[left.name].num_bytes >= 100
    freed = {entry.path for entry in Inventory(tmp_path).free()}
    assert freed == {free.path, asked.path}
    assert kept.path.is_dir() and left.is_dir() and not any(path.exists() for path in freed)
    assert toys.committed(tmp_path) == 3  # replies are kept


def test_journals_stay_while_a_run_goes_on(tmp_path: Path):
    Journal(tmp_path, "m").close()
    with claim(tmp_path, "toys.numbers", "k", {}, _silent):
        assert Inventory(tmp_path).free(["journal"]) == []
    owner = Journal(tmp_path, "m", is_owned=True)
    assert Inventory(tmp_path).free(["journal"]) == []
    owner.close()
    assert [entry.path.name for entry in Inventory(tmp_path).free(["journal"])] == ["m.sqlite"]


def test_partial_work_and_journals_go_only_when_named(tmp_path: Path):
    toys.replies.run(tmp_path, toys.Numbers(), model=toys.LoggedModel(tmp_path / "log"))
    left = _partial(tmp_path, "left")
    (journal,) = (tmp_path / ".journal").glob("*.sqlite")
    inventory = Inventory(tmp_path)
    assert {entry.kind for entry in inventory.entries} == {"artifact", "partial", "journal"}
    assert [entry.kind for entry in inventory.idle()] == ["artifact"]
    assert [entry.path for entry in inventory.free(["partial"])] == [left]
    assert journal.exists() and not left.exists()
    assert [entry.path for entry in Inventory(tmp_path).free(["journal"])] == [journal]
    assert [entry.kind for entry in Inventory(tmp_path).entries] == ["artifact"]
    assert not journal.exists()


def test_what_a_run_needs_is_never_idle(tmp_path: Path):
    kept = toys.numbers.run(tmp_path, toys.Numbers())
    point(tmp_path, "recipe", "step", kept)
    assert Inventory(tmp_path).idle(["artifact", "partial", "journal"]) == []


def test_work_that_goes_on_is_left_alone(tmp_path: Path):
    left = _partial(tmp_path, "busy")
    with FileLock(tmp_path / ".partial" / "a.b-busy.lock"):
        assert Inventory(tmp_path).free(["partial"]) == []
    assert left.is_dir()
    assert [entry.path for entry in Inventory(tmp_path).free(["partial"])] == [left]


def test_a_kill_while_freeing_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = toys.numbers.run(tmp_path, toys.Numbers())

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", die)
        Inventory(tmp_path).free()
    assert not made.path.exists()
    assert [entry.kind for entry in Inventory(tmp_path).idle()] == []
    again = toys.numbers.run(tmp_path, toys.Numbers())
    assert again.digest == made.digest
    assert [entry.path for entry in Inventory(tmp_path).free()] == [made.path]
    assert not made.path.exists()


def test_files_that_vanish_while_it_reads_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    left = _partial(tmp_path, "left")
    whole = Path.stat

    def stat(path: Path, **more: bool):
        if path.name == "checkpoint":
            raise FileNotFoundError(path)
        return whole(path, **more)

    monkeypatch.setattr(Path, "stat", stat)
    (entry,) = Inventory(tmp_path).entries
    assert entry.path == left and entry.num_bytes < 100


def test_a_node_leads_to_what_the_last_run_used(tmp_path: Path):
    one, two = (toys.numbers.run(tmp_path, toys.Numbers(num_rows=n)) for n in (1, 2))
    for made in (one, one, two):
        point(tmp_path, "recipe", "step", made)
        assert pointed(tmp_path, "recipe", "step") == made.path
        assert (tmp_path / "runs" / "recipe" / "step").resolve() == made.path.resolve()
    point(tmp_path, "recipe", "other", one)
    forget(tmp_path, "recipe", {"other"})
    assert pointed(tmp_path, "recipe", "step") is None
    assert pointed(tmp_path, "recipe", "other") == one.path


def test_an_empty_store_holds_nothing(tmp_path: Path):
    inventory = Inventory(tmp_path / "absent")
    assert inventory.entries == [] and inventory.free() == []


def _chain(root: Path) -> list[Path]:
    made = [toys.numbers.run(root, toys.Numbers(num_rows=n)) for n in (1, 2, 3)]
    point(root, "recipe", "one", made[0])
    return [each.path for each in made]


def test_a_copied_store_keeps_what_its_runs_use(tmp_path: Path):
    one, two, three = _chain(tmp_path / "store")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "store", copy)  # follows links, as `cp -rL` does
    assert not (copy / "runs/recipe/one").is_symlink()
    assert pointed(copy, "recipe", "one") == copy / one.name
    freed = {entry.path.name for entry in Inventory(copy).free()}
    assert freed == {two.name, three.name} and (copy / one.name).is_dir()
    again = toys.numbers.run(copy, toys.Numbers(num_rows=2))
    point(copy, "recipe", "one", again)
    assert (copy / "runs/recipe/one").is_symlink() and pointed(copy, "recipe", "one") == again.path
    (copy / "runs/recipe/two").mkdir()
    with pytest.raises(ArtifactError, match="two: a folder in place of a link; move it away"):
        point(copy, "recipe", "two", again)


def test_only_untouched_artifacts_without_links_are_freed(tmp_path: Path):
    one, two, three = _chain(tmp_path / "store")
    elsewhere = tmp_path / "elsewhere"
    four = toys.numbers.run(elsewhere, toys.Numbers(num_rows=4)).path
    store = tmp_path / "store"
    (store / four.name).symlink_to(four, target_is_directory=True)  # an artifact of another store
    (store / "model").symlink_to(two, target_is_directory=True)
    own = store / "my.results-2026"  # a person's folder with a copied record
    own.mkdir()
    shutil.copy(three / "record.json", own)
    (own / "thesis.tex").write_text("years of work")
    (three / "notes.txt").write_text("mine")
    inventory = Inventory(store)
    needed = {entry.path.name: entry.needed_by for entry in inventory.entries}
    assert needed == {one.name: ("recipe/one",), two.name: ("model",)}
    assert inventory.free() == []
    (three / "notes.txt").unlink()
    assert [entry.path for entry in Inventory(store).free()] == [three]
    assert four.is_dir() and (own / "thesis.tex").exists()
