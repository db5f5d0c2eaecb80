"""An instruction picks its own text among near ones, if it says which one it is."""

from pathlib import Path

import pairing
from fake import FakeModel
from spyhop.evaluate.likelihood import RoundTripConfig, round_trip
from spyhop.models import Request, TokenLogprobs
from spyhop.schema import Pair, Score

CONFIG = RoundTripConfig(num_rows=6, num_near=4)
NAMES = ["alder", "birch", "cedar", "date", "elm", "fir", "gum", "hazel"]


class Reader(FakeModel):
    """Finds a word likelier that the instruction has too; a text with `usual` is always likely."""

    def logprobs(self, batch: list[Request]) -> list[TokenLogprobs]:
        return [self._read(request) for request in batch]

    def _read(self, request: Request) -> TokenLogprobs:
        asked = request.messages[-1].content.split()
        if "broken" in asked:
            return TokenLogprobs(id=request.id, values=[], error="too long")
        words = request.continuation.split()
        values = [-1.0 if word in asked else -3.0 for word in words]
        return TokenLogprobs(id=request.id, values=[v + 0.9 * ("usual" in words) for v in values])


def rows(told: bool, *, usual: bool = False) -> list[Pair]:
    return [
        pairing.pair(
            n,
            instruction=f"tell of the {name if told else 'tree'}",
            response=f"the {name} tree is {'usual' if usual and n == 0 else 'tall'} and old",
        )
        for n, name in enumerate(NAMES)
    ]


def scores(folder: Path, given: list[Pair], config: RoundTripConfig = CONFIG) -> list[Score]:
    pairs = pairing.artifact(folder / "pairs", given)
    made = round_trip.run(folder / "out", config, pairs=pairs, model=Reader([]))
    return list(made.rows(Score))


def test_an_instruction_that_names_its_text_picks_it(tmp_path: Path):
    found = scores(tmp_path, rows(told=True))
    assert len(found) == 6 and all(each.correct for each in found)
    assert {each.chance for each in found} == {0.2}


def test_one_that_fits_every_text_does_not(tmp_path: Path):
    assert sum(each.correct for each in scores(tmp_path, rows(told=False))) < 6


def test_a_text_that_is_likely_under_any_instruction_is_not_picked_for_it(tmp_path: Path):
    """The plain sum picks it; the gain over the instruction without content does not."""
    found = scores(tmp_path, rows(told=True, usual=True), RoundTripConfig(num_rows=8, num_near=7))
    assert all(each.correct for each in found)
    assert sum(each.metrics["acc"] for each in found) < 4


def test_a_call_that_failed_is_a_row_and_not_right(tmp_path: Path):
    given = rows(told=True)
    given[0] = given[0].model_copy(update={"instruction": "broken"})
    found = scores(tmp_path, given, RoundTripConfig(num_rows=8))
    (failed,) = [each for each in found if each.error]
    assert failed.extracted is None and not failed.correct and failed.ending == "failed"


def test_with_few_texts_all_are_compared_and_equal_ones_are_no_choice(tmp_path: Path):
    few = scores(tmp_path / "few", rows(told=True)[:3])
    assert {each.chance for each in few} == {1 / 3} and len(few) == 3
    assert not scores(tmp_path, [pairing.pair(n, response="the same") for n in range(9)])
