"""Classifiers in a folder, and a moderation service over HTTP."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from asking import opened, service
from conftest import byte_tokenizer
from spyhop.models import Classifier, Local, ModelUse, Request, pick_label, read_teacher
from spyhop.models.endpoint import Remote
from spyhop.recipe import resolve, run
from spyhop.recipes.training import TrainingConfig, training
from spyhop.schema import Message, ModelError
from spyhop.stage import Context, Runtime
from spyhop.store import Source

TEXTS = ["a", "bb" * 40, "some words", "c" * 300]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    path = tmp_path_factory.mktemp("classifier")
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(tokenizer),
        intermediate_size=16,
        max_position_embeddings=64,
        id2label={0: "fine", 1: "toxic"},
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=1.0,
        **shape,
    )
    BertForSequenceClassification(config).save_pretrained(path)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(path)
    return path


def asked(texts: list[str], second: str = "") -> list[Request]:
    return [
        Request(id=str(n), messages=[Message(role="user", content=text)], continuation=second)
        for n, text in enumerate(texts)
    ]


def open_folder(folder: Path, context: Context) -> Any:
    return ModelUse(Classifier(), Source(folder).open(context.root)).open(context)


def test_labels_are_those_of_the_model_itself(folder: Path, context: Context):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = list(open_folder(folder, context).classify(asked(TEXTS)))
    for text, labels in zip(TEXTS[:1] + TEXTS[2:3], found[:1] + found[2:3], strict=True):
        with torch.inference_mode():
            alone = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
        assert labels.scores == pytest.approx(
            {"fine": float(alone[0]), "toxic": float(alone[1])}, abs=1e-5
        )


def test_a_long_text_is_read_in_pieces_and_the_highest_score_counts(folder: Path, context: Context):
    """A toxic beginning stays visible whatever follows."""
    model = open_folder(folder, context)
    head, tail = "x" * 64, "y" * 64
    whole, first, second = model.classify(asked([head + tail, head, tail]))
    for label in ("fine", "toxic"):
        assert whole.scores[label] == pytest.approx(
            max(first.scores[label], second.scores[label]), abs=1e-5
        )
    assert whole.prompt_tokens == 128


def test_a_pair_is_read_as_a_pair_and_a_second_text_that_is_too_long_is_an_error(
    folder: Path, context: Context
):
    model = open_folder(folder, context)
    (pair,) = model.classify(asked(["premise"], "hypothesis"))
    (alone,) = model.classify(asked(["premise"]))
    assert pair.scores != alone.scores and pair.error is None
    (long,) = model.classify(asked(["premise"], "h" * 100))
    assert long.scores == {} and "does not fit" in str(long.error)


def test_a_folder_is_opened_as_what_it_is(folder: Path, tiny_folder: Path, context: Context):
    assert isinstance(read_teacher(folder).config, Classifier)
    assert isinstance(read_teacher(tiny_folder).config, Local)
    writer = ModelUse(Local(), Source(tiny_folder).open(context.root)).open(context)
    with pytest.raises(ModelError, match="scores no labels; name a folder"):
        list(writer.classify(asked(["a"])))
    with pytest.raises(ModelError, match="no probabilities"):
        list(open_folder(folder, context).logprobs(asked(["a"], "b")))


@pytest.mark.parametrize(
    ("labels", "wanted", "found"),
    [
        (["neutral", "Toxic"], "", "Toxic"),
        (["LABEL_0", "LABEL_1"], "", "LABEL_1"),
        (["a", "B"], "b", "B"),
        (["a", "b"], "", None),
        (["toxic"], "hate", None),
    ],
)
def test_a_label_is_named_or_known(labels: list[str], wanted: str, found: str | None):
    known = (wanted,) if wanted else ("toxic", "LABEL_1")
    if found is None:
        with pytest.raises(ModelError, match="the model's labels"):
            pick_label(labels, known)
    else:
        assert pick_label(labels, known) == found


class _Moderations(BaseHTTPRequestHandler):
    """Answers as the published API does; counts what it was asked."""

    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append({"path": self.path, **body})
        score = 0.9 if "bad" in body["input"] else 0.1
        result: dict[str, Any] = {
            "flagged": score > 0.5,
            "categories": {"hate": score > 0.5, "violence": False},
            "category_scores": {"hate": score, "violence": 0.0},
        }
        if "broken" in body["input"]:
            result = {"flagged": True}
        sent = json.dumps({"id": "m1", "model": "m", "results": [result]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def moderations() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    handler = type("Handler", (_Moderations,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", handler.asked
    server.shutdown()
    server.server_close()


def test_a_moderation_service_is_asked_once_for_each_text(
    moderations: tuple[str, list[dict[str, Any]]], tmp_path: Path
):
    url, seen = moderations
    where = service(url, api="moderations", key_env="")
    remote = Remote(model="m")
    for _ in range(2):  # the second run reads the journal
        with opened(tmp_path, where, remote=remote) as (model, _):
            good, bad = model.classify(asked(["good", "bad"]))
            assert (good.flagged, bad.flagged) == ((), ("hate",))
            assert bad.scores == {"hate": 0.9, "violence": 0.0} and not bad.error
            with pytest.raises(ModelError, match="takes texts to label"):
                list(model.choose(asked(["good"])))
    assert [(each["path"], each["model"]) for each in seen] == [("/v1/moderations", "m")] * 2


def test_a_result_without_scores_is_an_error_and_never_a_clean_bill(
    moderations: tuple[str, list[dict[str, Any]]], tmp_path: Path
):
    where = service(moderations[0], at_all={"max_attempts": 1}, api="moderations", key_env="")
    with opened(tmp_path, where, remote=Remote(model="m")) as (model, _):
        (labels,) = model.classify(asked(["broken"]))
    assert labels.error and labels.scores == {}


def test_training_drops_what_a_service_flags_and_the_card_states_the_share(
    moderations: tuple[str, list[dict[str, Any]]], tiny_folder: Path, tmp_path: Path
):
    turns = [
        ("why", "because"),
        ("how", "bad"),
        ("a bad one", "so"),
        *[(f"q{n}", "a") for n in range(9)],
    ]
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in turns
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    service = f'model = "m"\n[[endpoints]]\nurl = "{moderations[0]}"\napi = "moderations"\n'
    (tmp_path / "service.toml").write_text(service)
    config = TrainingConfig(
        rows=(tmp_path / "rows.jsonl",),
        base=tiny_folder,
        moderate=tmp_path / "service.toml",
        train={"tokens": 200, "batch_tokens": 100},
        probe=None,
    )
    made = run(resolve(training(config), tmp_path), Runtime(device="cpu"))
    assert made["rows-1.moderated"].record.dropped == {"flagged: hate": 2}
    card = made["model"].file("README.md").read_text()
    assert "- **Moderation**: 2 of 12 rows (16.7 %) were flagged and dropped." in card
