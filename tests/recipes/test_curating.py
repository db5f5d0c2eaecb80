"""`spyhop backtranslate` and `spyhop curate` end to end: a server over HTTP, weights in process."""

import json
import math
import re
from pathlib import Path

import pytest

from command import Command, Done
from pairing import pair, rated, segment
from server import KEY, Call, Said, Server
from spyhop.augment.backtranslate import ReadSegmentsConfig, read_segments
from spyhop.collect.pairs import GivenPairsConfig, read_pairs
from spyhop.schema import InputError, Pair
from spyhop.store import Source

TEACHER = """
model = "teacher"
{more}
[[endpoints]]
url = "{url}"
key_env = "TOY_KEY"
"""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)


def _write(name: str, rows: list[object]) -> None:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _read(name: str) -> list[Pair]:
    return [Pair.model_validate_json(line) for line in Path(name).read_text().splitlines()]


def _pairs(num: int) -> None:
    fields = {"instruction", "response", "segment_id"}
    _write(
        "pairs.jsonl", [pair(n, segment_id=f"s{n}").model_dump(include=fields) for n in range(num)]
    )


def _weigh(place: int) -> Said:
    """Four fifths for one score, one fifth for the next."""
    score = 1 + place % 4
    top = {str(score): math.log(0.8), f" {score + 1}": math.log(0.2), "the": -9.0}
    return Said(text=str(score), logprobs=[(str(score), math.log(0.8), top)])


def _judge(call: Call) -> Said | str:
    asked = next(m["content"] for m in call.body["messages"] if m["role"] == "user")
    place = int(re.search(r"How is thing (\d+) made", asked)[1])
    if call.body.get("top_logprobs"):
        assert call.body["messages"][-1] == {"role": "assistant", "content": "I see.\nScore:"}
        return _weigh(place)
    return f"I see.\nScore: {1 + place % 4}"


def _curate(cli: Command, *options: str) -> Done:
    return cli("curate", "pairs.jsonl", "--judge", "judge.toml", "--out", "out", *options)


@pytest.mark.parametrize("is_strict", [False, True])
def test_expected_scores_of_a_served_judge(cli: Command, is_strict: bool):
    _pairs(210)
    more = 'omit = ["continue_final_message", "add_generation_prompt"]' if is_strict else ""
    with Server(answer=_judge, is_strict=is_strict) as server:
        Path("judge.toml").write_text(TEACHER.format(url=server.url, more=more))
        done = _curate(cli, "--set", "keep.min_score=4.2")
        assert done.code == 0, done.stderr
        billed = server.stats()["billed"]
        again = _curate(cli, "--set", "keep.min_score=3.2")
        assert again.code == 0 and server.stats()["billed"] == billed == 2 * 2 * 210
    rows = _read("out/rated.jsonl")
    assert [row.rating.score for row in rows if row.rating] == [
        pytest.approx(1.2 + n % 4) for n in range(210)
    ]
    assert [row.segment_id for row in rows] == [f"s{n}" for n in range(210)]
    assert len(_read("out/kept.jsonl")) == 104 and "kept.jsonl: 52 kept" in done.stdout
    assert "ok   repeatability: quadratic kappa of 210 pairs rated twice is 1.00" in done.stdout


def test_a_served_judge_without_probabilities_gives_the_mean_of_verdicts(cli: Command):
    """A strict server that is not told to leave the fields out refuses to go on with a response."""
    _pairs(4)
    with Server(answer=_judge) as server:
        Path("judge.toml").write_text(TEACHER.format(url=server.url, more=""))
        done = _curate(cli, "--set", "gate.min_repeated=0", "--set", "keep.min_score=1")
    assert done.code == 0 and "averaging 5 sampled verdicts instead" in done.stdout
    rows = _read("out/kept.jsonl")
    assert [row.rating.score for row in rows if row.rating] == [1, 2, 3, 4]
    assert {row.rating.method for row in rows if row.rating} == {"verdict"}


def test_ratings_that_cannot_be_read_are_refused_and_kept(cli: Command):
    _pairs(20)
    with Server(answer=lambda call: "I would rather not say.") as server:
        Path("judge.toml").write_text(TEACHER.format(url=server.url, more=""))
        done = _curate(cli, "--set", 'rate.method="verdict"', "--set", "gate.min_repeated=0")
    assert done.code == 2
    (line,) = done.stderr.splitlines()
    assert re.search(r"did not pass .*: parse_rate: 0\.0% of 20 .*no_verdict: 20.*report", line)
    (ratings,) = Path("out").glob("collect.write_lines-*/pairs.jsonl")
    assert len(_read(str(ratings))) == 20
    assert not Path("out/kept.jsonl").exists()


def test_likelihoods_and_choices_of_weights_in_process(cli: Command, tiny_folder: Path):
    _pairs(20)
    common = ("curate", "pairs.jsonl", "--judge", tiny_folder, "--out", "out", "--set",
              "runtime.device=cpu", "--set")  # fmt: skip
    done = cli(*common, 'by="likelihood"')
    assert done.code == 0, done.stderr
    assert [len(_read(f"out/{name}.jsonl")) for name in ("rated", "kept")] == [20, 4]
    labels = [{"id": row.id, "good": n % 2 == 0} for n, row in enumerate(_read("out/rated.jsonl"))]
    _write("labels.jsonl", labels)
    judged = cli(*common, 'by="likelihood"', "--set", "labels=labels.jsonl")
    assert judged.code == 2 and "precision: of" in judged.stderr


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("keep.min_score=4", r"20 pairs, but the gate needs 200 .*min_repeated"),
        ("rate.num_repeated=199", r"rate\.num_repeated = 199 is below gate\.min_repeated = 200"),
        ("labels=labels.jsonl", r"no label .of 1. belongs to a pair"),
    ],
)
def test_what_cannot_pass_is_refused_before_anything_is_asked(cli: Command, change: str, text: str):
    _pairs(20)
    _write("labels.jsonl", [{"id": "elsewhere", "good": True}])
    with Server(answer=_judge) as server:
        Path("judge.toml").write_text(TEACHER.format(url=server.url, more=""))
        done = _curate(cli, "--set", change)
        assert not server.stats()["billed"]
    (line,) = done.stderr.splitlines()
    assert done.code == 2 and re.search(text, line), line


def test_labels_name_pairs_by_ids_of_ones_own(cli: Command, tiny_folder: Path):
    fields = {"instruction", "response"}
    _write("pairs.jsonl", [{"id": n, **pair(n).model_dump(include=fields)} for n in range(20)])
    _write("labels.jsonl", [{"id": n, "score": 5 - n % 2} for n in range(20)])
    done = cli("curate", "pairs.jsonl", "--judge", tiny_folder, "--out", "out", "--set",
               "runtime.device=cpu", "--set", 'by="likelihood"', "--set", "labels=labels.jsonl",
               "--set", "read_labels.good_score=5", "--set", 'keep.gate="report"')  # fmt: skip
    assert done.code == 0, done.stderr
    assert "labelled pairs with a score of 4.5 or higher" in done.stdout
    assert "of all 20 labelled pairs 50%" in done.stdout
    assert [row.id for row in _read("out/rated.jsonl")] == [str(n) for n in range(20)]


def test_texts_that_are_empty_are_counted(tmp_path: Path):
    _write(str(tmp_path / "texts.jsonl"), [{"text": "x"}, {"text": "", "id": "a"}, {"text": " "}])
    folder = Source(tmp_path / "texts.jsonl").open(tmp_path)
    made = read_segments.run(tmp_path, ReadSegmentsConfig(), folder=folder)
    assert made.num_rows == 1 and made.record.dropped == {"empty": 2}


HALF = {
    "curate": {"instruction": "\ud800", "response": "a"},
    "backtranslate": {"text": "\ud800"},
    "answer": {"messages": [{"role": "user", "content": "\ud800"}]},
    "train": {"messages": [{"role": "user", "content": "a"},
                           {"role": "assistant", "content": "\ud800"}]},
}  # fmt: skip
ASKED = {"curate": "--judge", "backtranslate": "--model", "answer": "--teacher", "train": "--base"}


@pytest.mark.parametrize("command", HALF)
def test_half_a_character_is_one_clear_line(cli: Command, tiny_folder: Path, command: str):
    """A lone surrogate is JSON, but no text that a table could hold."""
    _write("rows.jsonl", [HALF[command]])
    done = cli(command, "rows.jsonl", ASKED[command], tiny_folder, "--out", "out")
    (line,) = done.stderr.splitlines()
    assert done.code == 2 and re.search(r"rows\.jsonl:( line )?1: not JSON \(", line), line


def test_two_pairs_of_one_id_are_refused(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    rows = [pair(1, id="a"), pair(1, id="b"), pair(2, id="a")]
    path.write_text("".join(f"{row.model_dump_json()}\n" for row in rows))
    folder = Source(path).open(tmp_path)
    with pytest.raises(InputError, match=r"line 3: another pair has the id 'a'.*own_ids = false"):
        read_pairs.run(tmp_path, GivenPairsConfig(), folder=folder)
    made = read_pairs.run(tmp_path, GivenPairsConfig(own_ids=False), folder=folder)
    assert [row.id for row in made.rows(Pair)] == [pair(1).id, pair(2).id]


@pytest.mark.parametrize("command", ["curate", "backtranslate"])
def test_plans_ask_nothing(cli: Command, command: str):
    _pairs(210)
    _write("texts.jsonl", [{"text": "Bread is kept in a cloth."}])
    with Server(answer=_judge) as server:
        Path("judge.toml").write_text(TEACHER.format(url=server.url, more=""))
        given = ("pairs.jsonl", "--judge") if command == "curate" else ("texts.jsonl", "--model")
        done = cli(command, *given, "judge.toml", "--out", "out", "--plan")
        assert done.code == 0 and not server.entries(), done.stderr
    assert ("rated" if command == "curate" else "segments") in done.stdout


def test_instructions_for_texts(cli: Command):
    texts = [segment(n, f"Of thing {n}, with many words about how it is made.") for n in range(9)]
    _write(
        "texts.jsonl",
        [{"text": row.text, "url": row.url} for row in texts] + [{"text": " "}, {"text": ""}],
    )
    with Server(answer=lambda call: "How is it made at home?") as server:
        Path("writer.toml").write_text(TEACHER.format(url=server.url, more=""))
        done = cli("backtranslate", "texts.jsonl", "--model", "writer.toml", "--out", "out")
        assert done.code == 0, done.stderr
        assert server.stats()["billed"] == 9
    assert "out/pairs.jsonl: 9 pairs from 9 segments; dropped: no segment" in done.stdout
    rows = _read("out/pairs.jsonl")
    assert [row.response for row in rows] == [row.text for row in texts]
    assert {row.instruction for row in rows} == {"How is it made at home?"}
    assert rows[3].origin == "https://toy/3" and rows[3].writer == "teacher"


def test_a_folder_of_an_artifact_is_read_without_its_dropped_rows(cli: Command):
    texts = [{"text": f"Text number {n} about bread and how it is kept."} for n in range(3)]
    _write("texts.jsonl", [*texts, texts[0]])
    with Server(answer=lambda call: "How is bread kept?") as server:
        Path("writer.toml").write_text(TEACHER.format(url=server.url, more=""))
        common = ("--model", "writer.toml", "--out", "out")
        assert cli("backtranslate", "texts.jsonl", *common).code == 0
        (made,) = Path("out").glob("augment.read_segments-*")
        assert (made / "dropped").is_dir()
        done = cli("backtranslate", made, *common, "--set", "name=again")
        assert server.stats()["billed"] == 3
    assert done.code == 0 and "3 pairs from 3 segments" in done.stdout


def test_pairs_come_back_as_they_were_written(tmp_path: Path):
    rows = [rated(1, 4.5, reason="Fine."), pair(2, tag="seed", licence="mine")]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{row.model_dump_json()}\n" for row in rows))
    made = read_pairs.run(tmp_path, GivenPairsConfig(), folder=Source(path).open(tmp_path))
    found = list(made.rows(Pair))
    assert [row.model_copy(update={"origin": ""}) for row in found] == rows
    assert found[0].origin == "pairs.jsonl: line 1"


@pytest.mark.parametrize(
    ("command", "row", "text"),
    [
        ("curate", {"instruction": "x"}, r"line 1: no 'response'"),
        ("curate", {"instruction": "x", "response": "y", "tag": "z"}, r"tag = 'z'"),
        ("backtranslate", {"texts": "x"}, r"line 1: no 'text'"),
        ("backtranslate", {"text": "x", "start": "far"}, r"start = 'far'"),
    ],
)
def test_a_wrong_row_is_one_clear_line(cli: Command, tiny_folder: Path, command, row, text):
    _write("rows.jsonl", [row])
    model = "--judge" if command == "curate" else "--model"
    done = cli(command, "rows.jsonl", model, tiny_folder, "--out", "out")
    assert done.code == 2 and re.search(text, done.stderr), done.stderr


JUDGE = ("curate", "--judge")
WRITER = ("backtranslate", "--model")


@pytest.mark.parametrize(
    ("command", "name", "more"),
    [
        (JUDGE, "rated.jsonl", ()),
        (JUDGE, "kept.jsonl", ()),
        (JUDGE, "pairs.jsonl", ("--set", "labels=work/kept.jsonl")),
        (WRITER, "pairs.jsonl", ()),
    ],
)
def test_no_result_replaces_what_is_read(cli: Command, command, name: str, more):
    Path("work").mkdir()
    rows = [{"instruction": "Why?", "response": "So.", "text": "So.", "good": True}]
    read = {f"work/{name}", "work/kept.jsonl"} if more else {f"work/{name}"}
    for path in read:
        _write(path, rows)
    Path("model.toml").write_text(TEACHER.format(url="http://127.0.0.1:9/v1", more=""))
    done = cli(command[0], f"work/{name}", command[1], "model.toml", "--out", "work", *more)
    assert done.code == 2 and done.stdout == ""
    assert re.fullmatch(
        r"spyhop: .*work/\S+: a result would replace this input; .*--out\n", done.stderr
    )
    assert {str(path) for path in Path("work").iterdir()} == read


@pytest.mark.parametrize("command", [JUDGE, WRITER])
def test_no_store_lies_in_what_is_read(cli: Command, tiny_folder: Path, command):
    Path("work").mkdir()
    _write("work/rows.jsonl", [{"instruction": "Why?", "response": "So.", "text": "So."}])
    for out in ("work", "work/made", tiny_folder):
        given = ("work", command[1], tiny_folder, "--out", out)
        done = cli(command[0], *given)
        assert done.code == 2 and re.search(r"output folder is inside the input", done.stderr), done
