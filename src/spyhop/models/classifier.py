"""Sequence classifiers: the labels of a text, or of a premise and a hypothesis, with probabilities.

Any Hugging Face folder with a classification head: detectors of toxicity, models of entailment.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from spyhop.lazy import torch
from spyhop.models.base import Backend, ModelConfig
from spyhop.models.calls import Choice, Labels, Reply, Request, Sampling, TokenLogprobs
from spyhop.models.folder import load_model, load_tokenizer
from spyhop.models.local import pick_device
from spyhop.runtime import Runtime
from spyhop.schema import ModelError
from spyhop.store import Artifact

HEAD = "SequenceClassification"
TOXIC = ("toxic", "toxicity", "hate", "hateful", "offensive", "unsafe", "LABEL_1", "1")
"""Labels of published classifiers that mean toxic, the first one that a model has counts."""
LONGEST_WINDOW = 512
"""Tokens scored at once where the folder states no limit."""
SPARE_TOKENS = 16
"""Room of the first text beside the longest second one."""


class Classifier(ModelConfig):
    """A folder of a sequence classifier. It scores texts and writes none."""

    kind: Literal["classifier"] = "classifier"
    name: str = "classifier"
    """Display name; not part of the model's identity."""

    def connect(self, folder: Artifact | None, runtime: Runtime) -> Backend:
        """Load tokenizer and weights."""
        if folder is None:
            raise ModelError("a classifier needs its folder")
        torch.set_num_threads(runtime.threads)
        model = load_model(folder.path, torch.float32, HEAD).to(pick_device(runtime.device)).eval()
        return _Backend(model, load_tokenizer(folder.path), runtime.inference_tokens)

    @property
    def label(self) -> str:
        """Return the given name."""
        return self.name


def is_classifier(folder: Path) -> bool:
    """Whether the config of a folder names a classification head."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        named = json.loads((folder / "config.json").read_bytes()).get("architectures") or []
        return any(str(each).endswith(HEAD) for each in named)
    return False


def pick_label(labels: Collection[str], wanted: str, known: Sequence[str]) -> str:
    """Return the wanted label, or without one the first known name among the labels.

    Raises:
        ModelError: If there is none; it lists the labels.
    """
    by_name = {label.lower(): label for label in labels}
    names = [wanted] if wanted else known
    found = next((by_name[each.lower()] for each in names if each.lower() in by_name), None)
    if found is None:
        raise ModelError(
            f"no label {wanted or ' or '.join(names)!r}; the model's labels: {', '.join(labels)}; "
            "name one with `label`"
        )
    return found


class _Backend:
    def __init__(self, model: Any, tokenizer: Any, inference_tokens: int) -> None:  # noqa: ANN401
        self._model, self._tokenizer = model, tokenizer
        self._inference_tokens = inference_tokens
        places = getattr(model.config, "max_position_embeddings", None) or LONGEST_WINDOW
        self._window = min(int(places), tokenizer.model_max_length)
        """Tokens scored at once; RoBERTa's positions begin behind its padding token."""
        if getattr(model.config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
            self._window -= int(model.config.pad_token_id or 0) + 1
        by_id = model.config.id2label
        self._labels = [str(by_id[place]) for place in range(model.config.num_labels)]
        kind = getattr(model.config, "problem_type", None)
        self._is_multiple = kind == "multi_label_classification" or len(self._labels) == 1

    def batches(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Sort by length, longest first; a batch holds about `inference_tokens` tokens."""
        order = sorted(requests, key=lambda r: (-len(_text(r)), r.id))
        size = max(1, self._inference_tokens // self._window)
        if self._tokenizer.pad_token is None:
            size = 1
        return [order[start : start + size] for start in range(0, len(order), size)]

    def classify(self, batch: Sequence[Request]) -> list[Labels]:
        """Score one batch. A longer text is read in pieces; each label's highest score counts."""
        is_padded = self._tokenizer.pad_token is not None
        found: dict[int, list[float]] = {}
        read = Counter[int]()
        fits = [row for row, request in enumerate(batch) if self._fits(request.continuation)]
        for some in [fits][: len(fits)] if is_padded else [[row] for row in fits]:
            for row, num_tokens, scores in self._windows([batch[row] for row in some], is_padded):
                place = some[row]
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

    def _fits(self, second: str) -> bool:
        """Whether a second text leaves room for a piece of the first."""
        return (
            not second
            or len(self._tokenizer(second, verbose=False)["input_ids"])
            <= self._window - SPARE_TOKENS
        )

    def _windows(
        self, batch: Sequence[Request], is_padded: bool
    ) -> Iterator[tuple[int, int, list[float]]]:
        """Yield (row, tokens, scores) of every piece of the texts."""
        pairs = [request.continuation for request in batch]
        some = self._tokenizer(
            [_text(request) for request in batch],
            pairs if any(pairs) else None,
            truncation="only_first" if any(pairs) else True,
            max_length=self._window,
            padding=is_padded,
            return_overflowing_tokens=True,
        )
        rows = some.pop("overflow_to_sample_mapping")
        step = len(batch)
        for start in range(0, len(rows), step):
            part = {k: torch.tensor(ids[start : start + step]) for k, ids in some.items()}
            with torch.inference_mode():
                logits = self._model(
                    **{k: v.to(self._model.device) for k, v in part.items()}
                ).logits
            scores = logits.sigmoid() if self._is_multiple else logits.softmax(-1)
            nums = part["attention_mask"].sum(-1).tolist()
            yield from zip(rows[start : start + step], nums, scores.tolist(), strict=True)

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        raise ModelError(_NO_TEXT)

    def choose(self, batch: Sequence[Request]) -> list[Choice]:
        raise ModelError(_NO_TEXT)

    def logprobs(self, batch: Sequence[Request]) -> list[TokenLogprobs]:
        raise ModelError(_NO_TEXT)


_NO_TEXT = "a classifier scores texts and writes none; name a language model"


def _text(request: Request) -> str:
    return request.messages[-1].content
