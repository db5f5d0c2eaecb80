from collections import Counter
from pathlib import Path

import pytest

from spyhop.collect import FlanCotConfig, RationalesConfig, read_flan_cot, read_rationales
from spyhop.models.replay import Recorded
from spyhop.schema import InputError, Query
from spyhop.store import Artifact, Source

GOOD = "What is 1 + 1?\\nOptions:\\n(A) 2\\n(B) 3\t(A)\tOne and one are two."
COUNTS = {"aqua": 2728, "creak": 6915, "ecqa": 7112, "gsm8k": 7473, "qasc": 1084,
          "sensemaking": 6070, "strategyqa": 2061}  # fmt: skip


def _read(root: Path, *lines: str | bytes, name: str = "toy_train.tsv") -> Artifact:
    folder = root / "cot"
    folder.mkdir()
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    (folder / name).write_bytes(b"\n".join(encoded))
    return read_flan_cot.run(root, FlanCotConfig(), folder=Source(folder).open(root))


def test_a_line_becomes_a_query(tmp_path: Path):
    made = _read(tmp_path, GOOD, "Is water wet?\tyes\tIt is.")
    first, second = made.rows(Query)
    assert first.query == "What is 1 + 1?\nOptions:\n(A) 2\n(B) 3"
    assert (first.collection, first.task, first.target) == ("cot", "toy", "(A)")
    assert first.multiple_choice and not second.multiple_choice
    assert first.origin == "toy_train.tsv:1"
    assert made.record.counts == {"task/cot/toy": 2, "multiple_choice/text": 1}


def test_repeated_questions_have_ids_of_their_own(tmp_path: Path):
    ids = [row.id for row in _read(tmp_path, GOOD, GOOD, GOOD + " ", "b\tb\tb").rows(Query)]
    assert len(set(ids)) == 4


def test_ids_do_not_depend_on_the_place(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = {row.query: row.id for row in _read(tmp_path / "a", "a\tb\tc", "d\te\tf").rows(Query)}
    two = {row.query: row.id for row in _read(tmp_path / "b", "d\te\tf", "a\tb\tc").rows(Query)}
    assert one == two


def test_rationales_are_recorded_answers(tmp_path: Path):
    (tmp_path / "cot.tsv").write_text(GOOD)
    source = Source(tmp_path / "cot.tsv").open(tmp_path)
    made = read_rationales.run(tmp_path, RationalesConfig(), folder=source)
    (row,) = made.rows(Recorded)
    assert row.response == "One and one are two.\nThe answer is (A)."
    assert row.query.startswith("What is 1 + 1?\nOptions:")


def test_style_is_anothers_rationale_before_the_right_answer(tmp_path: Path):
    for name, num in (("a", 5), ("b", 1)):
        lines = [f"Q{n}{name}?\tA{n}\tBecause of {n}{name}." for n in range(num)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines))
    (tmp_path / "cot").mkdir()
    for name in "ab":
        (tmp_path / f"{name}.tsv").rename(tmp_path / "cot" / f"{name}.tsv")
    source = Source(tmp_path / "cot").open(tmp_path)
    own, other = (
        read_rationales.run(tmp_path, RationalesConfig(of_others=swap), folder=source)
        for swap in (False, True)
    )
    assert own.num_rows == 6 and other.record.dropped == {"no_other": 1}
    plain = {row.id: row for row in own.rows(Recorded)}
    styled = list(other.rows(Recorded))
    for row in styled:
        rationale, cue = row.response.split("\n")
        assert rationale != plain[row.id].response.split("\n")[0]
        assert cue == plain[row.id].response.split("\n")[1] and row.query == plain[row.id].query
    texts = {row.response.split("\n")[0] for row in styled}
    assert texts == {f"Because of {n}a." for n in range(5)}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("one\ttwo", r"toy_train\.tsv: line 2 has 2 fields \['one', 'two'\]"),
        ("one\ttwo\tthree\tfour", r"toy_train\.tsv: line 2 has 4 fields"),
        ("one\t\tthree", r"toy_train\.tsv: line 2 has 3 fields \['one', '', 'three'\]"),
        ("", r"toy_train\.tsv: line 2 has 1 fields"),
        (b"caf\xe9\ttwo\tthree", r"toy_train\.tsv: line 2: not UTF-8 \(byte 3: "),
    ],
    ids=["few", "many", "empty field", "empty line", "encoding"],
)
def test_a_malformed_line_is_named(tmp_path: Path, bad: str | bytes, message: str):
    with pytest.raises(InputError, match=message) as caught:
        _read(tmp_path, GOOD, bad, GOOD)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("collect.*"))


def test_a_wrong_byte_far_down_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="line 2001: not UTF-8"):
        _read(tmp_path, *[GOOD] * 2000, b"\xff\ta\tb")


def test_missing_files_are_one_clear_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere: no such file or folder$"):
        Source(tmp_path / "nowhere").open(tmp_path)
    with pytest.raises(InputError, match=r"cot: no file matches '\*\.tsv'$"):
        _read(tmp_path, GOOD, name="toy.csv")


def test_the_published_files(data_dir: Path, tmp_path: Path):
    source = Source(data_dir / "flan_cot" / "cot_data").open(tmp_path)
    made = read_flan_cot.run(tmp_path, FlanCotConfig(), folder=source)
    tasks: Counter[str] = Counter()
    ids = set()
    for row in made.rows(Query):
        tasks[row.task] += 1
        ids.add(row.id)
    assert tasks == COUNTS
    assert made.num_rows == len(ids) == sum(COUNTS.values()) == 33_443
    recorded = read_rationales.run(tmp_path, RationalesConfig(), folder=source)
    assert recorded.num_rows == 33_443


def test_hidden_files_are_no_data(tmp_path: Path):
    (tmp_path / "cot").mkdir()
    (tmp_path / "cot" / "toy_train.tsv").write_text(GOOD)
    source = Source(tmp_path / "cot").open(tmp_path)
    (tmp_path / "cot" / "._toy_train.tsv").write_bytes(b"\x00\x05\x16\x07")  # as macOS leaves them
    assert Source(tmp_path / "cot").open(tmp_path).key == source.key
    assert read_flan_cot.run(tmp_path, FlanCotConfig(), folder=source).num_rows == 1
