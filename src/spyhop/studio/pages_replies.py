"""Where a row's response came from: what was sent, failed attempts, endpoint, cost and time."""

from collections.abc import Iterator, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spyhop.augment.answer import AnswerConfig
from spyhop.evaluate.asking import request_of
from spyhop.evaluate.measure import MeasureConfig
from spyhop.models import Request as ModelRequest
from spyhop.models import Sampling
from spyhop.models.base import request_key
from spyhop.models.calls import Reply
from spyhop.models.journal import history
from spyhop.schema import Item, Message
from spyhop.store import Artifact
from spyhop.studio.lookup import made_from, response_of, rows_by_id
from spyhop.studio.site import artifact_of, page

ASKED = ("teacher", "model", "judge", "writer")
"""Names of the inputs that are models."""
Sent = tuple[ModelRequest, Sampling]


def reply(request: Request) -> Response:
    """Show what is known of the reply behind a row."""
    artifact, row_id = artifact_of(request), request.path_params["row"]
    row = rows_by_id(artifact, [row_id]).get(row_id)
    if row is None:
        raise HTTPException(404, f"{artifact} has no row {row_id:.80}.")
    inputs = artifact.record.inputs
    model = next((inputs[name][0] for name in ASKED if name in inputs), None)
    sent = {request_key("generate", sampling, each): (each, sampling)
            for each, sampling in _sent(artifact, row)}  # fmt: skip
    text = "" if sent else (row.get("reason") or (row.get("rating") or {}).get("reason") or "")
    identity = model.digest if model else ""
    found, failed = history(artifact.path.parent, identity, list(sent), text)
    request_sent = sent.get(found.key if found else "", next(iter(sent.values()), None))
    return page(
        request, "reply.html", artifact=artifact, row=row, model=model, answered=found,
        reply=Reply.model_validate_json(found.reply) if found else None, failed=failed,
        sent=request_sent, response=response_of(row), is_by_text=bool(text),
        store=request.path_params["store"],
    )  # fmt: skip


def _sent(artifact: Artifact, row: Mapping[str, Any]) -> Iterator[Sent]:
    """Yield the requests that a row may be the reply to: the first one, then its repetitions."""
    if artifact.record.stage == "augment.answer":
        turns = [Message.model_validate(turn) for turn in row["messages"]]
        asked = turns[:-1] if turns[-1].role == "assistant" else turns
        config = AnswerConfig.model_validate(artifact.record.config)
        more = round(config.sampling.max_new_tokens * config.outcomes.more_room)
        room = config.sampling.model_copy(update={"max_new_tokens": more})
        number = row["sample_index"]
        for sampling, sample in ((config.sampling, number), (room, number),
                                 (config.sampling, number + config.num_samples)):  # fmt: skip
            yield ModelRequest(id=row["id"], messages=asked, sample_index=sample), sampling
    elif artifact.record.stage == "evaluate.measure" and row["finish_reason"] != "likelihood":
        measured = MeasureConfig.model_validate(artifact.record.config)
        for source in made_from(artifact, "items"):
            for item in map(Item.model_validate, rows_by_id(source, [row["id"]]).values()):
                protocol = measured.protocol(item.suite)
                yield request_of(item, row["sample_index"], protocol), protocol.sampling


routes = [Route("/reply/{store}/{artifact}/{row}", reply)]
