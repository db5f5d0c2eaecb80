"""Rows as a model is trained on them: token ids and loss mask, in colour."""

import sys
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spyhop.models.folder import load_tokenizer
from spyhop.models.local import pick_format
from spyhop.render import Renderer, TrainOn
from spyhop.schema import Answer, InputError
from spyhop.store import Artifact
from spyhop.train.encoding import Encoding, MaskedRow, masked_row, training_rows

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

    Supervised tokens are on green, context is dim, special tokens are magenta. Without colour,
    supervised tokens are between `[[` and `]]`.
    """
    columns = {"id", "messages"}
    if not all(columns <= set(batch.schema.names) for batch in islice(artifact.batches(), 1)):
        raise InputError(f"{artifact.path.name}: its rows have no `messages`; nothing to mask")
    tokenizer = load_tokenizer(model)
    renderer = Renderer(tokenizer, pick_format(chat_format, model, tokenizer))
    encoding = Encoding(renderer, max_tokens=sys.maxsize, train_on=train_on)
    has_colour = bool(console.color_system)
    parts = [("supervised tokens", TARGET), ", ", ("context", CONTEXT), ", "]
    legend = Text.assemble(*parts, ("special tokens", SPECIAL))
    console.print(legend if has_colour else "[[supervised tokens]] and context", markup=False)
    for made in training_rows(encoding, list(islice(artifact.rows(Answer), num_rows))):
        console.rule()
        name = made.row.id
        if not made.sequences:
            reason = made.detail or made.reason
            console.print(f"{name}: {reason}; not trained on", markup=False)
            continue
        for each in made.sequences:
            shown = masked_row(name, each.ids, each.is_supervised, renderer)
            num = f"{len(shown.pieces):,} tokens, {shown.num_supervised:,} of them supervised"
            console.print(f"{name}: {num}", style="bold")
            console.print(_coloured(shown, has_colour=has_colour))


def _coloured(row: MaskedRow, *, has_colour: bool) -> Text:
    text = Text()
    was_supervised = False
    for (is_supervised, is_special), some in groupby(row.pieces, key=itemgetter(1, 2)):
        if not has_colour and is_supervised != was_supervised:
            text.append("[[" if is_supervised else "]]")
        was_supervised = is_supervised
        style = TARGET if is_supervised else CONTEXT
        if is_special:
            style = SPECIAL_TARGET if is_supervised else SPECIAL
        text.append("".join(piece.text for piece in some), style)
    if not has_colour and was_supervised:
        text.append("]]")
    return text
