from pathlib import Path

import pytest
from pydantic import ValidationError

from pairing import artifact, pair
from spyhop.augment import (
    SEED_MESSAGE,
    WEB_MESSAGE,
    ForwardConfig,
    ReversedConfig,
    format_pairs,
    reverse_pairs,
)
from spyhop.schema import Answer, Message

ROWS = [
    pair(1, tag="seed", collection="lima"),
    pair(2, writer="backward", instruction="Why {response}?"),
]


def _turns(row: Answer) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in row.messages]


def test_forward_the_response_is_learned_under_the_tag_of_the_pair(tmp_path: Path):
    made = format_pairs.run(
        tmp_path, ForwardConfig(), pairs={"one": artifact(tmp_path / "p", ROWS)}
    )
    seed, web = made.rows(Answer)
    assert _turns(seed) == [
        ("system", SEED_MESSAGE), ("user", ROWS[0].instruction), ("assistant", ROWS[0].response),
    ]  # fmt: skip
    assert _turns(web)[0] == ("system", WEB_MESSAGE)
    assert (seed.collection, seed.system_id, seed.model) == ("lima", "seed", "people")
    assert (web.collection, web.system_id, web.model) == ("web", "web", "backward")
    assert made.record.counts == {"tag/seed": 1, "tag/web": 1}


def test_without_tags_there_is_no_system_message(tmp_path: Path):
    config = ForwardConfig(seed_message="", web_message="")
    made = format_pairs.run(tmp_path, config, pairs={"one": artifact(tmp_path / "p", ROWS)})
    assert [[turn.role for turn in row.messages] for row in made.rows(Answer)] == [
        ["user", "assistant"]
    ] * 2


def test_reversed_the_instruction_is_learned_and_the_texts_stay_as_they_are(tmp_path: Path):
    config = ReversedConfig(prompt="Text: {response}\nAsk:", system_message="Backward.")
    made = reverse_pairs.run(tmp_path, config, pairs={"one": artifact(tmp_path / "p", ROWS)})
    first, second = made.rows(Answer)
    assert first.messages == [
        Message(role="system", content="Backward."),
        Message(role="user", content=f"Text: {ROWS[0].response}\nAsk:"),
        Message(role="assistant", content=ROWS[0].instruction),
    ]
    assert second.messages[-1].content == "Why {response}?"


def test_a_prompt_needs_a_place_for_the_response():
    with pytest.raises(ValidationError, match=r"has no \{response\}"):
        ReversedConfig(prompt="Write the question.")
