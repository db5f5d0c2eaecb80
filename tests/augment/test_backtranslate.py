import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pairing import artifact, segment
from scripted import Scripted, failed, reply
from spyhop.augment import BacktranslateConfig, InstructionFilters, ReversedConfig, backtranslate
from spyhop.augment.backtranslate import plan_backtranslate
from spyhop.collect import pair_id
from spyhop.runtime import Runtime
from spyhop.schema import ModelError, Pair
from spyhop.stage import Estimate
from spyhop.store import Artifact

TEXT = (
    "To keep bread fresh for a week, wrap it in a cloth and put it in a wooden box with holes. "
    "Do not put it in the fridge, where it dries out faster than anywhere else in the house."
)

SAYS = {
    "good": "How do I keep bread fresh for several days?",
    "blank": " \n ...",
    "short": "Bread",
    "failed": failed(),
    "refused": reply("", "content_filter"),
    "cut": reply("How do I keep bread and", "length"),
    "echo": "Write the instruction or question to which this text is the answer: about bread.",
    "leak": "Write only the instruction, as a person would put it: how is bread kept fresh when "
    "it is warm in the kitchen, and which cloths, boxes and bags are best for that?",
    "mark": "How is bread kept fresh?\n\nResponse: wrap it in a cloth",
    "format": "<|assistant|>\nHow is bread kept fresh?",
    "copy": "wrap it in a cloth and put it in a wooden box with holes",
    "title": "keep bread fresh for a week",
}


def _segments(folder: Path, names: list[str]) -> Artifact:
    rows = [segment(n, f"{TEXT} ({name})") for n, name in enumerate(names)]
    return artifact(folder / "segments", rows)


def _name(text: str) -> str:
    return text.rsplit("(", 1)[1].rstrip(")")


def _model(**more: object) -> Scripted:
    return Scripted(lambda request, _: SAYS[_name(request.messages[-1].content)], **more)


def test_instructions_are_kept_or_dropped_with_their_reason(tmp_path: Path):
    made = backtranslate.run(
        tmp_path,
        BacktranslateConfig(),
        runtime=Runtime(max_error_frac=0.1),
        segments=_segments(tmp_path, list(SAYS)),
        model=_model(),
    )
    rows = {_name(row.response): row for row in made.rows(Pair)}
    assert list(rows) == ["good", "mark", "title"]
    good = rows["good"]
    assert good.instruction == SAYS["good"] and good.response == f"{TEXT} (good)"
    assert good.id == pair_id(good.instruction, good.response)
    assert rows["mark"].instruction == "How is bread kept fresh?"
    assert made.record.counts["cleaned"] == 1
    assert (good.tag, good.collection, good.segment_id) == ("web", "web", "s0")
    assert (good.origin, good.writer, good.rating) == ("https://toy/0", "fake", None)
    reasons = {
        _name(Pair.model_validate_json(row).response): reason for reason, row in made.dropped()
    }
    assert reasons == {
        "blank": "empty", "short": "too_short", "failed": "failed", "refused": "refused",
        "cut": "cut", "echo": "echo", "leak": "prompt_leak", "format": "prompt_leak",
        "copy": "copy",
    }  # fmt: skip
    assert sum(made.record.dropped.values()) + made.num_rows == len(SAYS)


def test_it_asks_in_the_words_of_training_at_the_papers_temperature(tmp_path: Path):
    asked = []
    model = Scripted(lambda request, sampling: asked.append((request, sampling)) or SAYS["good"])
    config = BacktranslateConfig(
        asked=ReversedConfig(prompt="A: {response} Q:", system_message="Be backward.")
    )
    backtranslate.run(tmp_path, config, segments=_segments(tmp_path, ["good"]), model=model)
    ((request, sampling),) = asked
    assert [turn.content for turn in request.messages] == [
        "Be backward.", f"A: {TEXT} (good) Q:"
    ]  # fmt: skip
    assert (sampling.temperature, sampling.top_p) == (0.7, 0.9)


def test_several_instructions_for_a_segment_and_no_repetitions(tmp_path: Path):
    says = ["How is bread kept?", "Where is bread put?", "How is bread kept?"]
    model = Scripted(lambda request, _: says[request.sample_index])
    made = backtranslate.run(
        tmp_path,
        BacktranslateConfig(num_instructions=3),
        segments=_segments(tmp_path, ["a", "b"]),
        model=model,
    )
    rows = [(row.segment_id, row.sample_index, row.instruction) for row in made.rows(Pair)]
    assert rows == [(f"s{n}", k, says[k]) for n in range(2) for k in range(2)]
    assert made.record.dropped == {"repeated": 2}


def test_limits_of_length_are_the_users(tmp_path: Path):
    config = BacktranslateConfig(filters=InstructionFilters(min_chars=0, max_chars=20))
    segments = _segments(tmp_path, ["good", "short"])
    made = backtranslate.run(tmp_path, config, segments=segments, model=_model())
    assert made.num_rows == 1 and made.record.dropped == {"too_long": 1}


def test_too_many_failures_fail_the_stage(tmp_path: Path):
    segments = _segments(tmp_path, ["good", "failed"])
    with pytest.raises(ModelError, match="1 of 2 calls failed"):
        backtranslate.run(tmp_path, BacktranslateConfig(), segments=segments, model=_model())


def test_a_killed_run_asks_nothing_twice(tmp_path: Path):
    segments = _segments(tmp_path, ["good", "title", "copy", "leak"])
    run: Callable[[Scripted], Artifact] = lambda model: backtranslate.run(  # noqa: E731
        tmp_path, BacktranslateConfig(), segments=segments, model=model
    )
    killed = _model(lives=2)
    with pytest.raises(ModelError, match="killed"):
        run(killed)
    again = _model()
    made = run(again)
    assert len(killed.asked) == 2 and len(again.asked) == 2
    assert [row.segment_id for row in made.rows(Pair)] == ["s0", "s1"]


def test_the_plan_counts_instructions():
    config = BacktranslateConfig(num_instructions=2, sampling={"max_new_tokens": 30})
    found = plan_backtranslate(config, Estimate(rows=100, row_tokens=400), Estimate())
    calls = found.calls["model"]
    assert found.rows == calls.requests == 200 and calls.most_response_tokens == 6000
    assert calls.prompt_tokens > 200 * 400


def test_real_backtranslations_that_leak_are_found(tmp_path: Path, data_dir: Path):
    """Of 243 by a small public model, 226 go on behind their prompt's label of a response.

    Where an instruction comes before the label, it is kept without the rest.
    """
    rows = json.loads((data_dir / "lima" / "lima" / "lima_instructions.json").read_text())
    said = {row["response"]: row["generated_instruction"] for row in rows}
    segments = artifact(tmp_path / "s", [segment(n, text) for n, text in enumerate(said)])
    model = Scripted(lambda request, _: said[request.messages[-1].content.split("Text:\n", 1)[1]])
    made = backtranslate.run(tmp_path, BacktranslateConfig(), segments=segments, model=model)
    dropped = made.record.dropped
    assert dropped["prompt_leak"] > 60 and dropped["loop"] > 30 and made.num_rows > 90
    assert made.record.counts["cleaned"] > 90
    assert not any("Response:" in row.instruction for row in made.rows(Pair))
