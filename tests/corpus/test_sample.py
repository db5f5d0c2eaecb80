from pathlib import Path

import pairing
from spyhop.corpus import SampleConfig, sample
from spyhop.schema import Segment


def test_a_smaller_draw_is_part_of_a_larger_one_in_the_order_of_the_input(tmp_path: Path):
    rows = [pairing.segment(n, f"Text number {n}.") for n in range(200)]
    whole = pairing.artifact(tmp_path / "s", rows)
    draws = []
    for num in (10, 60, 1000):
        drawn = sample.run(tmp_path, SampleConfig(num_rows=num), segments=whole)
        draws.append([row.id for row in drawn.rows(Segment)])
    few, many, every = draws
    assert len(few) == 10 and len(many) == 60 and set(few) < set(many)
    assert every == [row.id for row in rows]
    assert many == [name for name in every if name in set(many)]
