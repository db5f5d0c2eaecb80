"""Sequence classifiers: the labels of a text, or of a premise and a hypothesis, with probabilities.

Any Hugging Face folder with a classification head: detectors of toxicity, models of entailment.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from spyhop.lazy import torch
from spyhop.models.base import Backend, ModelConfig
from spyhop.models.calls import Kind, Labels, Request
from spyhop.models.folder import load_model, load_tokenizer
from spyhop.models.local import pick_device
from spyhop.runtime import Runtime
from spyhop.schema import InputError, ModelError
from spyhop.statistics.linear import LinearClassifier, cross_validated_auc, fit_linear
from spyhop.store import Artifact
from spyhop.store.files import field
from spyhop.store.rows import read_rows, row_files

HEAD = "SequenceClassification"
TOXIC = ("toxic", "toxicity", "hate", "hateful", "offensive", "unsafe", "drop", "LABEL_1", "1")
"""Labels of classifiers that mean toxic, or not to be trained on; the first one counts."""
LEAST_LABELS, LEAST_AUC = 20, 0.6
LONGEST_WINDOW, SPARE_TOKENS = 512, 16
"""Tokens scored at once where the folder states no limit; room of the first text of a pair."""


class Classifier(ModelConfig):
    """A folder of a sequence classifier. It scores texts and writes none."""

    needs: ClassVar[str] = "local"
    kind: Literal["classifier"] = "classifier"
    name: str = "classifier"
    """Display name; not part of the model's identity."""

    def connect(self, folder: Artifact | None, runtime: Runtime) -> Any:  # noqa: ANN401 (a backend)
        """Load tokenizer and weights."""
        assert folder is not None  # a teacher's file names it
        torch.set_num_threads(runtime.threads)
        model = load_model(folder.path, torch.float32, HEAD).to(pick_device(runtime.device)).eval()
        return _Backend(model, load_tokenizer(folder.path), runtime.inference_tokens)


class LabelClassifier(ModelConfig):
    """A linear classifier of words that is fitted to people's labels: `good` of each pair.

    It has the labels `drop` and `keep`. Labels that it cannot learn are an error: in
    cross-validation it must tell the two better than `LEAST_AUC`.
    """

    kind: Literal["labels"] = "labels"
    name: str = "labels"
    """Display name; not part of the model's identity."""

    def connect(self, folder: Artifact | None, runtime: Runtime) -> Any:  # noqa: ANN401 (a backend)
        """Read the labels and fit the classifier."""
        assert folder is not None
        labels = dict[str, bool]()
        for path in row_files(folder.path):
            for where, row in read_rows(path):
                if isinstance(row.get("good"), bool):
                    pair = (field(row, name, where) for name in ("instruction", "response"))
                    labels["\n\n".join(pair)] = not row["good"]
        texts, is_dropped = list(labels), list(labels.values())
        least = min(sum(is_dropped), len(texts) - sum(is_dropped))
        if least < LEAST_LABELS:
            raise InputError(
                f"{folder.path}: {least} labels of the rarer kind; a classifier needs "
                f"{LEAST_LABELS} of keep (good = true) and of drop (good = false)"
            )
        found = cross_validated_auc(texts, is_dropped)
        if found < LEAST_AUC:
            raise InputError(
                f"{folder.path}: words do not tell these {len(texts)} labels apart (AUC "
                f"{found:.2f} in cross-validation, needed {LEAST_AUC}); label more rows, or use a "
                "classifier with weights"
            )
        return _LinearBackend(fit_linear(texts, is_dropped))


class _LinearBackend(Backend):
    def __init__(self, model: LinearClassifier) -> None:
        self._model = model

    def classify(self, batch: Sequence[Request]) -> list[Labels]:
        found = self._model([request.messages[-1].content for request in batch])
        return [
            Labels(id=request.id, scores={"drop": float(p), "keep": 1 - float(p)})
            for request, p in zip(batch, found, strict=True)
        ]


def is_classifier(folder: Path) -> bool:
    """Whether the config of a folder names a classification head."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        named = json.loads((folder / "config.json").read_bytes()).get("architectures") or []
        return bool(any(str(each).endswith(HEAD) for each in named))
    return False


def pick_label(labels: Collection[str], wanted: Sequence[str]) -> str:
    """Return the label that the first of the wanted names among the labels means."""
    by_name = {label.lower(): label for label in labels}
    for name in wanted:
        if name.lower() in by_name:
            return by_name[name.lower()]
    raise ModelError(f"no label {' or '.join(wanted)}; the model's labels: {', '.join(labels)}")


class _Backend:
    def __init__(self, model: Any, tokenizer: Any, inference_tokens: int) -> None:  # noqa: ANN401
        self._model, self._tokenizer = model, tokenizer
        config = model.config
        places = getattr(config, "max_position_embeddings", None) or LONGEST_WINDOW
        if config.model_type in ("roberta", "xlm-roberta", "camembert"):
            places -= int(config.pad_token_id or 0) + 1  # its positions begin behind the padding
        self._window = min(int(places), tokenizer.model_max_length)
        self._size = max(1, inference_tokens // self._window) if tokenizer.pad_token else 1
        self._labels = [str(config.id2label[place]) for place in range(config.num_labels)]
        is_multiple = config.problem_type == "multi_label_classification" or config.num_labels == 1
        self._scores: Any = torch.sigmoid if is_multiple else lambda logits: logits.softmax(-1)

    def batches(self, requests: Sequence[Request], kind: Kind) -> list[list[Request]]:
        """Sort by length, longest first."""
        order = sorted(requests, key=lambda r: (-len(r.messages[-1].content), r.id))
        return [order[start : start + self._size] for start in range(0, len(order), self._size)]

    def classify(self, batch: Sequence[Request]) -> list[Labels]:
        """Score one batch. A longer text is read in pieces; each label's highest score counts."""
        found: dict[int, list[float]] = {}
        read = Counter[int]()
        room = self._window - SPARE_TOKENS
        fits = [
            row
            for row, request in enumerate(batch)
            if not (second := request.continuation)
            or len(self._tokenizer(second, verbose=False)["input_ids"]) <= room
        ]
        for row, num_tokens, scores in self._pieces([batch[row] for row in fits]):
            place = fits[row]
            read[place] += num_tokens
            found[place] = list(map(max, found.get(place, scores), scores))
        return [
            Labels(
                id=request.id,
                scores=dict(zip(self._labels, found.get(row, []), strict=False)),
                prompt_tokens=read[row],
                error=None if row in found else "the second text does not fit the classifier",
            )
            for row, request in enumerate(batch)
        ]

    def _pieces(self, batch: Sequence[Request]) -> Iterator[tuple[int, int, list[float]]]:
        """Yield (row, tokens, scores) of every piece of the texts."""
        if not batch:
            return
        pairs = [request.continuation for request in batch]
        some = self._tokenizer(
            [request.messages[-1].content for request in batch],
            pairs if any(pairs) else None,
            truncation="only_first" if any(pairs) else True,
            max_length=self._window,
            padding=self._tokenizer.pad_token is not None,
            return_overflowing_tokens=True,
        )
        rows = some.pop("overflow_to_sample_mapping")
        for start in range(0, len(rows), self._size):
            here = slice(start, start + self._size)
            part = {k: torch.tensor(ids[here]).to(self._model.device) for k, ids in some.items()}
            with torch.inference_mode():
                scores = self._scores(self._model(**part).logits)
            nums = part["attention_mask"].sum(-1).tolist()
            yield from zip(rows[here], nums, scores.tolist(), strict=True)
