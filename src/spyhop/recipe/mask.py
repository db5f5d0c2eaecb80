"""Rows as a model is trained on them: token ids and loss mask, in colour."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spyhop.models.local import load_tokenizer, pick_format
from spyhop.render import Encoded, Renderer, TrainOn
from spyhop.schema import Answer, InputError
from spyhop.store import Artifact

TARGET, CONTEXT, SPECIAL = "black on green", "dim", "bold magenta"
SPECIAL_TARGET = "bold magenta on green"


def show_mask(
    artifact: Artifact,
    num_rows: int,
    console: Console,
    *,
    model: Path,
    chat_format: str = "saved",
    train_on: TrainOn = "all",
) -> None:
    """Print the first rows of answers as they are trained on.

    Targets stand on green, what is only read is dim, special tokens are written out in magenta.
    Without colour, targets stand between `[[` and `]]`.

    Raises:
        InputError: If the rows are no answers, or the format cannot be had.
    """
    columns = {"id", "messages"}
    if not all(columns <= set(batch.schema.names) for batch in islice(artifact.batches(), 1)):
        raise InputError(f"{artifact.path.name}: its rows have no `messages`; nothing to mask")
    tokenizer = load_tokenizer(model)
    renderer = Renderer(tokenizer, pick_format(chat_format, model, tokenizer))
    console.print(_legend(console))
    for row in islice(artifact.rows(Answer), num_rows):
        console.rule()
        if not row.messages or row.messages[-1].role != "assistant":
            console.print(f"{row.id}: no response; not trained on", markup=False)
            continue
        try:
            (encoded,) = renderer.encode([row.messages], train_on)
        except InputError as error:
            console.print(f"{row.id}: {error}; not trained on", markup=False)
            continue
        num, num_targets = len(encoded.ids), int(encoded.is_supervised.sum())
        console.print(f"{row.id}: {num:,} tokens, {num_targets:,} of them targets", style="bold")
        console.print(_coloured(encoded, renderer, has_colour=bool(console.color_system)))


def _legend(console: Console) -> Text:
    if not console.color_system:
        return Text("[[targets]], and what is only read")
    return Text.assemble(
        ("targets", TARGET), ", ", ("what is only read", CONTEXT), ", ",
        ("special tokens", SPECIAL),
    )  # fmt: skip


def _coloured(encoded: Encoded, renderer: Renderer, *, has_colour: bool) -> Text:
    text = Text()
    was_target = False
    for piece, is_supervised, is_special in _runs(encoded, renderer):
        if not has_colour and is_supervised != was_target:
            text.append("[[" if is_supervised else "]]")
        was_target = is_supervised
        style = (SPECIAL_TARGET if is_supervised else SPECIAL) if is_special else ""
        text.append(piece, style or (TARGET if is_supervised else CONTEXT))
    if not has_colour and was_target:
        text.append("]]")
    return text


def _runs(encoded: Encoded, renderer: Renderer) -> Iterator[tuple[str, bool, bool]]:
    """Yield stretches of one kind: text, whether it is a target, whether it is a special token.

    A stretch is what it adds to the text before it: tokenizers drop a blank at the start.
    """
    ids = encoded.ids.tolist()
    kinds = [
        (bool(is_supervised), token in renderer.special_ids)
        for token, is_supervised in zip(ids, encoded.is_supervised, strict=True)
    ]
    before, start = "", 0
    for stop in range(1, len(ids) + 1):
        if stop == len(ids) or kinds[stop] != kinds[start]:
            text = str(renderer.tokenizer.decode(ids[:stop], skip_special_tokens=False))
            yield text[len(before) :], *kinds[start]
            before, start = text, stop
