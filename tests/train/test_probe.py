from pathlib import Path

import pytest

from fake import FakeModel
from spyhop.models import Reply
from spyhop.schema import Message
from spyhop.train.probe import MESSAGES, ProbeConfig, Probed, meets, probe
from toys import answer_row, artifact_of

BY_ID = {message.id: message for message in MESSAGES}


@pytest.mark.parametrize(
    ("name", "response", "is_met"),
    [
        ("capitals", "IT IS SO, 3 TIMES.", True),
        ("capitals", "It is so.", False),
        ("capitals", "42", False),
        ("capitals", "", False),
        ("begins", "Indeed, it is.", True),
        ("begins", ' "Indeed" it is', True),
        ("begins", "Indeedy it is", False),
        ("begins", "It is indeed.", False),
        ("ends", "It is so.\nThat is all.", True),
        ("ends", "It is so. That is all", True),
        ("ends", "That is all. Or not.", False),
        ("five-words", "One two three four five.", True),
        ("five-words", "One two three four five six.", False),
        ("five-words", " ", False),
        ("five-words", "\u00a0", False),
        ("begins", "\r\nIndeed.", True),
        ("ends", "That is all.\r\n", True),
        ("object", '{"response": "yes"}', True),
        ("object", '{"response": "yes", "more": 1}', False),
        ("object", '["response"]', False),
        ("object", 'Sure: {"response": "yes"}', False),
    ],
)
def test_a_rule_tells_what_was_followed(name: str, response: str, is_met: bool):
    assert meets(BY_ID[name], response) is is_met


class Obedient(FakeModel):
    """Writes capitals when told to; never ends otherwise."""

    def generate(self, batch, sampling):  # type: ignore[no-untyped-def]
        return [
            Reply(
                id=request.id,
                text="YES" if (told := "capital" in request.messages[0].content) else "yes no",
                finish_reason="stop" if told else "length",
            )
            for request in batch
        ]


def _rows(root: Path, system: str = "Be kind."):
    rows = [
        answer_row(n, f"Ask {n}?", "So.").model_copy(
            update={
                "messages": [
                    Message(role="system", content=system),
                    Message(role="user", content=f"Ask {n % 7}?"),
                    Message(role="assistant", content="So."),
                ]
            }
        )
        for n in range(20)
    ]
    return artifact_of(root, rows)


def test_what_is_followed_stands_beside_what_is_done_unasked(tmp_path: Path):
    config = ProbeConfig(num_prompts=4)
    made = probe.run(
        tmp_path, config, answers={"one": _rows(tmp_path)}, model=Obedient([], name="x")
    )
    counts = made.record.counts
    assert counts["prompts"] == 4
    assert counts["follows/capitals"] == 4 and "unasked/capitals" not in counts
    assert counts["follows/five-words"] == 0 and "unasked/five-words" not in counts  # all cut
    assert counts["follows/begins"] == 0
    assert (counts["stopped"], counts["cut"]) == (4, 20)
    rows = list(made.rows(Probed))
    assert [row.message for row in rows[:5]] == ["", *BY_ID, ""][:5]
    assert rows[0].messages == [Message(role="user", content=rows[0].messages[0].content)]
    assert rows[1].messages[0].content == BY_ID["capitals"].text


def test_a_slow_model_is_asked_fewer_prompts(tmp_path: Path):
    config = ProbeConfig(num_prompts=4, most_s=1e-9)
    made = probe.run(
        tmp_path, config, answers={"one": _rows(tmp_path)}, model=Obedient([], name="x")
    )
    assert made.record.counts["prompts"] == 1 and made.num_rows == 1 + len(MESSAGES)


def test_a_message_that_rows_have_is_left_out(tmp_path: Path):
    rows = _rows(tmp_path, BY_ID["ends"].text)
    made = probe.run(
        tmp_path, ProbeConfig(num_prompts=2), answers={"one": rows}, model=Obedient([], name="x")
    )
    assert made.record.counts["seen/ends"] == 1 and made.record.counts["seen/begins"] == 0
    assert {row.message for row in made.rows(Probed)} == {"", *BY_ID} - {"ends"}


def test_fewer_prompts_are_among_more(tmp_path: Path):
    rows = _rows(tmp_path)

    def drawn(num: int) -> set[str]:
        made = probe.run(
            tmp_path, ProbeConfig(num_prompts=num), answers={"one": rows},
            model=Obedient([], name="x"),
        )  # fmt: skip
        return {row.messages[-1].content for row in made.rows(Probed)}

    assert len(drawn(2)) == 2 and drawn(2) < drawn(3)


class Broken(FakeModel):
    """Raises what a model's class raises."""

    def generate(self, batch, sampling):  # type: ignore[no-untyped-def]
        raise AttributeError("no attribute 'batch_select_indices'")


def test_a_model_that_fails_keeps_its_training(tmp_path: Path):
    made = probe.run(
        tmp_path,
        ProbeConfig(num_prompts=3),
        answers={"one": _rows(tmp_path)},
        model=Broken([], name="x"),
    )
    assert made.num_rows == 0 and made.record.counts["probe_failed"] == 1
