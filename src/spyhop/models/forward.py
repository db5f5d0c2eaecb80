"""Forward passes with a key-value cache: padding, positions, and logits at kept places only.

On a processor, linear layers keep their weights in the order in which oneDNN multiplies them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from spyhop.lazy import Tensor, cache_utils, torch

PACKED_ROWS = 64
"""Tokens that the order of weights is chosen for; it serves single ones as well."""
SPARE_TOKENS = 64
"""Room that a growing cache takes at a time."""
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""Names of the most tokens that a layer looks back, among the settings of transformers' models."""


@dataclass(slots=True)
class Past:
    """What a model has read: keys and values of every layer, and the places that are no padding."""

    cache: Any
    mask_BT: Tensor

    def select(self, rows: Sequence[int]) -> Past:
        """Return a copy with these rows of the batch, some perhaps several times."""
        forked, indices = copy.copy(self.cache), torch.tensor(rows, device=self.mask_BT.device)
        forked.layers = [copy.copy(layer) for layer in self.cache.layers]
        if list(rows) == list(range(len(self.mask_BT))):
            return Past(forked, self.mask_BT)
        forked.batch_select_indices(indices)
        return Past(forked, self.mask_BT[indices])

    def grow(self) -> None:
        """Let every plain layer keep room for further tokens, so that a step copies nothing old."""
        for place, layer in enumerate(self.cache.layers):
            if type(layer) is cache_utils.DynamicLayer and layer.is_initialized:
                self.cache.layers[place] = _growing(layer)


class Tree(NamedTuple):
    """A prompt behind a shared beginning, and options that each follow it; all are token ids."""

    number: int
    """Place of its request among those that are scored together."""
    prompt: list[int]
    options: list[list[int]]

    @property
    def num_places(self) -> int:
        """Tokens whose logits are returned: those before a token of an option."""
        return 1 + sum(len(option) - 1 for option in self.options)

    @property
    def size(self) -> int:
        """Tokens that are read: the last one of an option is not."""
        return len(self.prompt) + self.num_places - 1


class Forward:
    """The forward pass of one model on rows of unequal length."""

    def __init__(self, model: Any, pad_id: int) -> None:  # noqa: ANN401 (transformers' type)
        self.model = model
        self._pad_id = pad_id
        if (head := model.get_output_embeddings()) is not None:
            head.register_forward_pre_hook(self._gather)
        self._places: Tensor | None = None
        """Places (2, N) that the output embedding shall see alone, until it has."""
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        config = model.config.get_text_config()
        self.limit = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        windows = [getattr(config, name, None) or 1 << 30 for name in WINDOWS]
        can_share = self._takes_positions and not isinstance(self, RecurrentForward)
        self.shared_limit = min(windows) if can_share else 0
        """Most tokens of rows that share a beginning: they are padded behind it, and a window or a
        distance would count the padding."""
        self._shared: tuple[list[int], Past] | None = None

    def read(
        self, rows: Sequence[Sequence[int]], kept: Sequence[int], past: Past | None = None
    ) -> tuple[Tensor, Past]:
        """Read further tokens of each row; shorter rows are padded before their tokens.

        Args:
            rows: Token ids, at least one each.
            kept: Of how many of its last tokens each row's logits are returned.
            past: What the rows have read before.

        Returns:
            Logits (N, V) at the kept places, row by row, and what has now been read.
        """
        width = max(map(len, rows))
        ids_BT = np.full((len(rows), width), self._pad_id, dtype=np.int64)
        mask_BT = np.zeros_like(ids_BT)
        for row, ids in enumerate(rows):
            ids_BT[row, width - len(ids) :] = ids
            mask_BT[row, width - len(ids) :] = 1
        columns = np.concatenate([np.arange(width - num, width) for num in kept])
        places = np.stack([np.repeat(np.arange(len(rows)), kept), columns])
        return self._pass(ids_BT, mask_BT, past, places)

    def read_trees(self, rows: Sequence[Sequence[Tree]], past: Past | None = None) -> Tensor:
        """Read prompts with their options, several in a row; return logits (N, V) at their places.

        Tokens see their own option and its prompt alone, so no prompt is read twice and no option
        is padded. `past` is what all prompts begin with. A tree's first place is the end of its
        prompt; those of its options follow.
        """
        width = max(sum(tree.size for tree in row) for row in rows)
        num_past = 0 if past is None else past.mask_BT.shape[1]
        ids_BT = np.full((len(rows), width), self._pad_id, dtype=np.int64)
        positions_BT = np.zeros_like(ids_BT)
        sees_BTS = np.ones((len(rows), width, num_past + width), dtype=bool)
        sees_BTS[:, :, num_past:] = np.eye(width, dtype=bool)
        places = []
        for row, trees in enumerate(rows):
            end = 0
            for tree in trees:
                own, behind = end, end + len(tree.prompt)
                for ids in (tree.prompt, *(option[:-1] for option in tree.options)):
                    start, end = end, end + len(ids)
                    position = num_past + (len(tree.prompt) if start >= behind else 0)
                    ids_BT[row, start:end] = ids
                    positions_BT[row, start:end] = np.arange(position, position + len(ids))
                    sees = sees_BTS[row, start:end, num_past:]
                    sees[:, own : min(start, behind)] = True
                    sees[:, start:end] = np.tri(len(ids), dtype=bool)
                    places += [(row, place) for place in range(max(start, behind - 1), end)]
        return self._pass(ids_BT, sees_BTS, past, np.array(places).T, positions_BT)[0]

    def read_shared(self, ids: list[int], num_rows: int) -> Past | None:
        """Return what rows that all begin with these tokens have read; the last one is kept."""
        if not ids:
            return None
        if self._shared is None or self._shared[0] != ids:
            self._shared = None  # its memory is free before the next one is read
            self._shared = (ids, self.read([ids], [1])[1])
        return self._shared[1].select([0] * num_rows)

    def step(self, ids: Sequence[int], past: Past) -> tuple[Tensor, Past]:
        """Read one further token of each row; return the logits after it, (B, V)."""
        ids_B1 = np.array(ids, dtype=np.int64)[:, None]
        return self._pass(ids_B1, np.ones_like(ids_B1), past, None)

    def _pass(
        self,
        ids: np.ndarray[Any, Any],
        mask: np.ndarray[Any, Any],
        past: Past | None,
        kept: np.ndarray[Any, Any] | None,
        positions: np.ndarray[Any, Any] | None = None,
    ) -> tuple[Tensor, Past]:
        """Run the model; a mask (B, T) is of tokens, one (B, T, S) of what each token sees."""
        device = self.model.device
        ids_BT, mask_BT = torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
        places = None if kept is None else torch.from_numpy(kept).to(device)
        more: dict[str, Any] = {}
        if positions is not None:
            more["position_ids"] = torch.from_numpy(positions).to(device)
            least = torch.finfo(self.model.dtype).min
            hidden = torch.zeros(mask.shape, dtype=self.model.dtype, device=device)
            mask_BT = hidden.masked_fill_(~mask_BT, least)[:, None]
        elif past is not None:
            mask_BT = torch.cat([past.mask_BT, mask_BT], dim=1)
        if positions is None and self._takes_positions:
            # A row that has ended may stay in the batch beyond the last position; it is not read.
            numbers = (mask_BT.cumsum(1) - 1).clamp(0, self.limit - 1)
            more["position_ids"] = numbers[:, -ids_BT.shape[1] :]
        self._places = places
        with torch.inference_mode():
            output = self.model(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                past_key_values=None if past is None else past.cache,
                use_cache=positions is None or past is not None,
                **more,
            )
            logits: Tensor = output.logits
            if places is not None and self._places is not None:
                logits = logits[places[0], places[1]][None]
        logits_NV = logits[:, -1] if places is None else logits[0]
        return logits_NV, Past(output.past_key_values, mask_BT)

    def _gather(self, _: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Let the output embedding see the kept places alone: (1, N, hidden) for (B, T, hidden)."""
        places, self._places = self._places, None
        return inputs if places is None else (inputs[0][places[0], places[1]][None], *inputs[1:])


class RecurrentForward(Forward):
    """Reads every row by itself, from its start each time: right for every class, and slow.

    The state of recurrent and hybrid models (Mamba, Jamba, Falcon-H1, Qwen3-Next) cannot be cut to
    some rows of a batch, and padding before a prompt would enter it.
    """

    def read(
        self,
        rows: Sequence[Sequence[int]],
        kept: Sequence[int],
        past: Any = None,  # noqa: ANN401
    ) -> tuple[Tensor, Any]:
        """Read further tokens of each row; what has been read is the tokens themselves."""
        before = past or [[] for _ in rows]
        wholes = _Tokens([*old, *new] for old, new in zip(before, rows, strict=True))
        logits = []
        with torch.inference_mode():
            for ids, num in zip(wholes, kept, strict=True):
                ids_1T = torch.tensor([ids], device=self.model.device)
                logits.append(self.model(input_ids=ids_1T, use_cache=False).logits[0, -num:])
        return torch.cat(logits), wholes

    def step(self, ids: Sequence[int], past: Any) -> tuple[Tensor, Any]:  # noqa: ANN401
        """Read one further token of each row."""
        return self.read([[token] for token in ids], [1] * len(ids), past)


class _Tokens(list[list[int]]):
    def select(self, rows: Sequence[int]) -> _Tokens:
        return _Tokens(self[row] for row in rows)

    def grow(self) -> None:
        """Nothing is held."""


def _growing(layer: cache_utils.DynamicLayer) -> cache_utils.DynamicLayer:
    """Return a layer that writes further keys and values into spare room behind the others."""

    class GrowingLayer(cache_utils.DynamicLayer):
        keys: Tensor
        values: Tensor
        rooms: tuple[Tensor, Tensor] | None = None

        def update(
            self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
        ) -> tuple[Tensor, Tensor]:
            held, num_new = self.keys.shape[-2], key_states.shape[-2]
            end = held + num_new
            if self.rooms is None or end > self.rooms[0].shape[-2]:
                more, pad = (0, 0, 0, num_new + SPARE_TOKENS), torch.nn.functional.pad
                self.rooms = (pad(self.keys, more), pad(self.values, more))
            for room, new in zip(self.rooms, (key_states, value_states), strict=True):
                room[..., held:end, :] = new
            self.keys, self.values = (room[..., :end, :] for room in self.rooms)
            return self.keys, self.values

        def batch_select_indices(self, indices: Tensor) -> None:
            super().batch_select_indices(indices)
            self.rooms = None

    grown = GrowingLayer.__new__(GrowingLayer)
    grown.__dict__.update(layer.__dict__)
    return grown


def prepack(model: Any) -> None:  # noqa: ANN401 (transformers' type)
    """Let the linear layers of a model multiply by weights in oneDNN's order, by its kernels.

    PyTorch brings the weights of a layer into this order at each call. Up to some 16 rows that
    takes longer than the product itself. A model with tied embeddings keeps both orders of them.
    """
    ops = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if ops is None or model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return
    is_half_known = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    tied = model.get_input_embeddings().weight
    for layer in _called_layers(model):
        weight = layer.weight
        if weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and is_half_known):
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PACKED_ROWS)
            layer.forward = partial(_multiply, packed, layer.bias)  # type: ignore[method-assign]
            if weight is not tied:
                weight.data = weight.data.new_empty(0)


def _called_layers(model: Any) -> Iterator[torch.nn.Linear]:  # noqa: ANN401 (transformers' type)
    """Yield the linear layers that their parents only call; some, as Mamba's, read the weight."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            is_read = f"self.{name}.weight" in _code(type(parent))  # type: ignore[arg-type]
            if type(layer) is torch.nn.Linear and not is_read:
                yield layer


@cache
def _code(kind: type) -> str:
    return inspect.getsource(kind)


def _multiply(weight: torch.Tensor, bias: torch.Tensor | None, states: torch.Tensor) -> Any:  # noqa: ANN401
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
