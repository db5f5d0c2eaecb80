import json
from pathlib import Path

from corpus.pages import article
from spyhop.corpus import segment
from spyhop.corpus.read import ArchivePage
from spyhop.corpus.work import SegmentConfig, segments_of

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_segments_of_a_page_are_those_of_this_version():
    """A failure means other output: raise the stage's version and write the file anew."""
    path = GOLDEN / f"segment.v{segment.version}.json"
    page = ArchivePage(
        "http://a.example/x", "x.warc.gz:0", article(note="Ask me@example.com.").encode()
    )
    found = [
        [outcome.reason, outcome.row.model_dump()]
        for config in (SegmentConfig(), SegmentConfig.model_validate({"cut": {"max_chars": 900}}))
        for outcome in segments_of(page, config)
    ]
    if not path.exists():
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())
