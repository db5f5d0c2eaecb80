"""Readers of every form: what they give, and one clear line for whatever is wrong."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spyhop.collect import (
    Columns,
    MessagesConfig,
    NaturalInstructionsConfig,
    ReadyConfig,
    RecordsConfig,
    T0Config,
    read_answers,
    read_natural_instructions,
    read_preferences,
    read_records,
    read_t0,
)
from spyhop.schema import Answer, Config, InputError, Preference, Query
from spyhop.stage import Stage
from spyhop.store import Artifact, Source

TASK = {
    "Definition": ["Name the", "capital."],
    "Categories": ["Question Answering"],
    "Input_language": ["English"],
    "Output_language": ["English"],
    "Instances": [{"id": "1", "input": "France", "output": ["Paris", "paris"]}],
    "Instance License": ["CC BY 4.0"],
}


def _run(root: Path, files: dict[str, str | bytes], stage: Stage, config: Config) -> Artifact:
    folder = root / "given"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return stage.run(root, config, folder=Source(folder).open(root))


def _lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _refused(root: Path, files: dict[str, str | bytes], stage: Stage, config: Config) -> str:
    with pytest.raises(InputError) as caught:
        _run(root, files, stage, config)
    assert "\n" not in str(caught.value)
    assert not list(root.glob("collect.*")), "nothing half-read"
    return str(caught.value)


def test_natural_instructions(tmp_path: Path):
    other = {**TASK, "Output_language": ["French"]}
    chat = {**TASK, "Categories": ["Dialogue Generation"]}
    config = NaturalInstructionsConfig(skip_categories=("Dialogue *",))
    files = {"task1_a.json": json.dumps(TASK), "task2_b.json": json.dumps(other),
             "task3_c.json": json.dumps(chat)}  # fmt: skip
    made = _run(tmp_path, files, read_natural_instructions, config)
    (row,) = made.rows(Query)
    assert (row.collection, row.task, row.target) == ("niv2", "task1_a", "Paris")
    assert row.query == "Name the capital.\n\nFrance"
    assert (row.licence, row.origin) == ("CC BY 4.0", "task1_a.json:1")
    assert row.template == "Question Answering"
    assert made.record.counts["tasks_left_out/language"] == 1
    assert made.record.counts["tasks_left_out/category"] == 1


def test_natural_instructions_with_odd_licences(tmp_path: Path):
    given = {"1": None, "2": "MIT", "3": ["MIT", "GFDL"], "4": []}
    files = {
        f"task{name}.json": json.dumps({**TASK, "Instance License": licence})
        for name, licence in given.items()
    }
    made = _run(tmp_path, files, read_natural_instructions, NaturalInstructionsConfig())
    assert [row.licence for row in made.rows(Query)] == ["", "MIT", "MIT; GFDL", ""]


def test_natural_instructions_that_are_none(tmp_path: Path):
    config = NaturalInstructionsConfig()
    for place, (change, message) in enumerate(
        [
            ({"Instances": [{"input": "a"}]}, "task1.json: instance 1: no 'output'; found"),
            ({"Instances": [{"input": "a", "output": []}]}, "instance 1: 'output' holds no text"),
            ({"Definition": "text"}, "task1.json: 'Definition' is no list: 'text'"),
            ({"Definition": [1]}, "task1.json: 'Definition.0' is no str: 1"),
        ]
    ):
        root = tmp_path / str(place)
        text = json.dumps({**TASK, **change})
        assert message in _refused(root, {"task1.json": text}, read_natural_instructions, config)
    broken = {"task1.json": json.dumps(TASK)[:-9]}
    assert "task1.json: not JSON" in _refused(
        tmp_path / "x", broken, read_natural_instructions, config
    )


def test_t0_templates(tmp_path: Path):
    files = {
        "sciq_Multiple_Choice.jsonl": _lines(
            {"prompt": "Q?", "completion": "a<|endoftext|>"}, {"prompt": " ", "completion": ""}
        ),
        "xsum_tldr.jsonl.gz": gzip.compress(_lines({"prompt": "T", "completion": "S"}).encode()),
        "trec_x.jsonl": "",
    }
    made = _run(tmp_path, files, read_t0, T0Config(pattern="*.jsonl*", licence="Apache-2.0"))
    one, two = made.rows(Query)
    assert (one.task, one.query, one.target) == ("sciq_Multiple_Choice", "Q?", "a")
    assert one.multiple_choice and not two.multiple_choice
    assert (two.task, two.licence, two.origin) == (
        "xsum_tldr",
        "Apache-2.0",
        "xsum_tldr.jsonl.gz:1",
    )
    assert made.record.dropped == {"no_query": 1}
    assert made.record.counts["empty_files"] == 1


FLAN = {"inputs": "Q?\nOPTIONS:\n- a\n- b", "targets": "a", "task": "t", "kind": "zs_noopt"}


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_records_of_any_form(tmp_path: Path, form: str):
    import csv
    import io

    rows = [FLAN, {**FLAN, "inputs": 'caf\u00e9, "x"', "kind": "zs_opt"}, FLAN]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(FLAN))
    writer.writeheader()
    writer.writerows(rows)
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), table)
    content: dict[str, str | bytes] = {
        "jsonl": _lines(*rows), "csv": text.getvalue(), "parquet": table.getvalue()
    }  # fmt: skip
    config = RecordsConfig(collection="mine", columns=Columns(template="kind"), licence="MIT")
    made = _run(tmp_path, {f"a.{form}": content[form]}, read_records, config)
    found = list(made.rows(Query))
    assert [row.query for row in found] == [row["inputs"] for row in rows]
    assert len({row.id for row in found}) == 3
    assert not found[0].multiple_choice, "the template says noopt"
    assert {(row.collection, row.task, row.target, row.licence) for row in found} == {
        ("mine", "t", "a", "MIT")
    }


def test_dotted_columns_and_files_as_tasks(tmp_path: Path):
    config = RecordsConfig(
        collection="c", columns=Columns(query="m.0.text", target="gold", task="")
    )
    made = _run(
        tmp_path, {"x.jsonl": _lines({"m": [{"text": "Q"}], "gold": 3})}, read_records, config
    )
    (row,) = made.rows(Query)
    assert (row.task, row.query, row.target) == ("x", "Q", "3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", _lines(FLAN, {"inputs": "x"}), "a.jsonl: line 2: no 'targets'; found "),
        ("a.jsonl", _lines(FLAN) + '{"inputs": "x', "a.jsonl: line 2: not JSON ("),
        ("a.jsonl", _lines(FLAN).encode() + b'{"x": "caf\xe9"}', "a.jsonl: line 2: not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "z: cannot be read ("),
        ("a.jsonl", '{"x": ' + "9" * 5000 + "}", "a.jsonl: line 1: not JSON ("),
        ("a.jsonl", "[" * 100_000, "a.jsonl: row 1: not JSON (nested too deeply)"),
        ("a.csv", "inputs,targets,task\na,b\n", "a.csv: line 2 has 2 fields, the heading 3"),
        ("a.csv", 'inputs,targets,task\n"a,b,c\n', "a.csv: line 2 is not CSV ("),
        ("a.csv", b"inputs,targets,task\n\xff,b,c\n", "a.csv: line 2: not UTF-8"),
        ("a.csv", "inputs,targets\na,b\n", "a.csv: line 2: no 'task'; found ['inputs', 'targets']"),
        ("a.parquet", b"PAR1 and no more", "a.parquet: not a whole Parquet file ("),
        ("a.xlsx", b"", "given: the folder has no file that ends in one of .jsonl"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_one_clear_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
):
    assert message in _refused(
        tmp_path, {name: content}, read_records, RecordsConfig(collection="c")
    )


def test_an_empty_line_of_csv_is_passed_over(tmp_path: Path):
    files = {"a.csv": "inputs,targets,task\n\na,b,c\n\n"}
    made = _run(tmp_path, files, read_records, RecordsConfig(collection="c"))
    assert [row.query for row in made.rows(Query)] == ["a"]


def _ready(root: Path, content: str, **changes: Any) -> list[Answer]:
    config = ReadyConfig(**changes)
    return list(_run(root, {"a.jsonl": content}, read_answers, config).rows(Answer))


def test_open_orca(tmp_path: Path):
    row = {"id": "niv.242684", "system_prompt": "Explain.", "question": "Q?", "response": "A."}
    config = {"shape": "openorca", "model": "gpt-4", "licence": "MIT"}
    (made,) = _ready(tmp_path, _lines(row, row), **config)
    assert (made.licence, made.origin) == ("MIT", "a.jsonl:1")
    assert [turn.content for turn in made.messages] == ["Explain.", "Q?", "A."]
    assert (made.collection, made.model, made.error) == ("niv2", "gpt-4", None)


def test_slim_orca_and_preferred(tmp_path: Path):
    turns = [{"from": "system", "value": ""}, {"from": "human", "value": "Q"},
             {"from": "gpt", "value": "A"}]  # fmt: skip
    (slim,) = _ready(tmp_path / "a", _lines({"conversations": turns}), shape="sharegpt")
    assert [turn.role for turn in slim.messages] == ["user", "assistant"]
    assert slim.system_id == "empty"
    pair = {"input": {"messages": [{"role": "user", "content": "Q"}]},
            "preferred_output": [{"role": "assistant", "content": "good"}]}  # fmt: skip
    (best,) = _ready(tmp_path / "b", _lines(pair))
    assert best.messages[-1].content == "good"


def test_openai_batches(tmp_path: Path):
    def asked(name: str) -> dict[str, Any]:
        return {"custom_id": name, "body": {"messages": [{"role": "user", "content": name}]}}

    said = {"message": {"role": "assistant", "content": "A"}, "finish_reason": "length"}
    body = {
        "model": "m",
        "choices": [said],
        "usage": {"prompt_tokens": 3, "completion_tokens": None},
    }
    good = {"custom_id": "1", "error": None, "response": {"status_code": 200, "body": body}}
    bad = {"custom_id": "2", "error": None, "response": {"status_code": 429, "body": {"e": "slow"}}}
    files = {"requests.jsonl": _lines(asked("1"), asked("2")), "out.jsonl": _lines(bad, good)}
    config = ReadyConfig(shape="openai_batch")
    two, one = _run(tmp_path / "a", files, read_answers, config).rows(Answer)
    assert (one.model, one.finish_reason, one.prompt_tokens, one.response_tokens) == ("m", "length", 3, 0)  # fmt: skip # noqa: E501
    assert two.error == "{'e': 'slow'}" and two.messages[-1].role == "user"
    files["out.jsonl"] = _lines({**good, "custom_id": "9"})
    assert "no request has the custom_id '9'" in _refused(
        tmp_path / "b", files, read_answers, config
    )


def test_the_shared_collections(data_dir: Path, tmp_path: Path):
    folder = Source(data_dir / "natural_instructions_en" / "tasks").open(tmp_path)
    niv2 = read_natural_instructions.run(tmp_path, NaturalInstructionsConfig(), folder=folder)
    names = [(row.task, row.id) for row in niv2.rows(Query)]
    assert len(names) == len({row_id for _, row_id in names}) == niv2.num_rows == 47_420
    assert len({task for task, _ in names}) == 90
    folder = Source(data_dir / "t0_p3_templates_50k" / "data_per_template").open(tmp_path)
    prompts = read_t0.run(tmp_path, T0Config(), folder=folder)
    assert prompts.num_rows == 27_769
    told = Counter(row.task for row in prompts.rows(Query) if row.multiple_choice)
    assert told["sciq_Multiple_Choice"] == 200 and told["gigaword_TLDR"] == 0
    folder = Source(data_dir / "orca_dpo_sample" / "orca_dpo_pairs").open(tmp_path)
    config = ReadyConfig(pattern="validation.jsonl", model="gpt-4")
    ready = read_answers.run(tmp_path, config, folder=folder)
    assert ready.num_rows == 284
    assert all(row.error is None for row in ready.rows(Answer))
    file = Source(folder.path / "validation.jsonl").open(tmp_path)
    pairs = read_preferences.run(tmp_path, MessagesConfig(), file=file)
    chosen = {row.chosen for row in pairs.rows(Preference)}
    assert pairs.num_rows == 284 and chosen == {r.messages[-1].content for r in ready.rows(Answer)}
    assert all(row.rejected not in ("", row.chosen) for row in pairs.rows(Preference))
