from pathlib import Path

from spyhop.evaluate import ContaminationRateConfig, ItemOverlap, check_contamination
from spyhop.schema import Item
from spyhop.store import Artifact
from toys import answer_row, artifact_of, rows_artifact

LONG = "a train leaves the old town at noon and comes back with eleven more people on board"
SHORT = "how many legs have three spiders in one web"


def _item(name: str, question: str) -> Item:
    return Item(id=name, task="t", suite="s", question=question, target="1")


def _run(root: Path, items: list[Item], texts: list[tuple[str, str | None]]) -> Artifact:
    rows = [
        answer_row(n, asked, said, error=None if said else "no")
        for n, (asked, said) in enumerate(texts)
    ]
    given = rows_artifact(root / "items", items)
    answers = artifact_of(root, rows)
    return check_contamination.run(
        root, ContaminationRateConfig(), items={"one": given}, answers={"one": answers}
    )


def _seen(made: Artifact) -> dict[str, ItemOverlap]:
    return {row.id: row for row in made.rows(ItemOverlap)}


def test_each_measure_finds_what_it_says(tmp_path: Path):
    items = [
        _item("whole", LONG),
        _item("long", f"{LONG} when does it come"),
        _item("short", f"zero {SHORT} of the garden over there by the wall"),
        _item("none", "what is the capital of the country that has the longest coast of all"),
        _item("tiny", "Why not?"),
    ]
    made = _run(
        tmp_path,
        items,
        [(LONG.upper() + "?", "eleven"), ("x", f"now then {SHORT}?"), ("Why not?", None)],
    )
    seen = _seen(made)
    assert [seen[name].is_exact for name in seen] == [True, False, False, False, False]
    assert seen["whole"].row_id == seen["long"].row_id == "a0"
    assert seen["long"].long_run == " ".join(LONG.split()[:13])
    assert not seen["short"].has_long and seen["short"].short_run == " ".join(SHORT.split()[:8])
    assert seen["short"].row_id == "a1"
    assert not seen["none"].has_any and seen["none"].is_checked
    assert not seen["tiny"].has_any and not seen["tiny"].is_checked  # a failed row says nothing
    counts = made.record.counts
    found = {name: counts[f"{name}/s"] for name in ("items", "exact", "long", "short", "unchecked")}
    assert found == {"items": 5, "exact": 1, "long": 2, "short": 3, "unchecked": 1}


def test_every_item_with_the_run_is_found_unless_it_is_a_form_of_words(tmp_path: Path):
    def items(num: int) -> list[Item]:
        return [_item(f"i{n}", f"{LONG} number{n} and what then") for n in range(num)]

    few = _seen(_run(tmp_path / "few", items(10), [(LONG, "yes")]))
    assert all(row.has_long for row in few.values()) and len(few) == 10
    many = _seen(_run(tmp_path / "many", items(11), [(LONG, "yes")]))
    assert not any(row.has_any for row in many.values())
