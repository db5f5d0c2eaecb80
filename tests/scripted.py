"""A model whose replies are a function of the request, for tests of what is asked in rounds."""

from collections.abc import Callable, Sequence
from pathlib import Path

import toys
from fake import FakeModel
from spyhop.models import Reply, Request, Sampling
from spyhop.schema import Message, ModelError, Prompt
from spyhop.store import Artifact

Say = Callable[[Request, Sampling], Reply | str]


class Scripted(FakeModel):
    """Notes every request it gets; dies when asked more than `lives` times."""

    def __init__(self, say: Say, *, name: str = "scripted", lives: int = 1_000_000) -> None:
        super().__init__([], name=name)
        self.say = say
        self.lives = lives
        self.asked: list[tuple[str, int, int]] = []
        """Last turn, sample number and room of each request."""
        self.rounds: list[int] = []
        """Requests of each call that was not answered by the journal alone."""
        self.seen: list[list[Message]] = []

    def batches(self, requests: Sequence[Request], kind: str) -> list[list[Request]]:
        self.rounds.append(len(requests))
        return super().batches(requests, kind)

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        replies = []
        for request in batch:
            if len(self.asked) >= self.lives:
                raise ModelError("killed")
            last = request.messages[-1].content
            self.asked.append((last, request.sample_index, sampling.max_new_tokens))
            self.seen.append(list(request.messages))
            said = self.say(request, sampling)
            reply = Reply(id="", text=said, finish_reason="stop") if isinstance(said, str) else said
            replies.append(reply.model_copy(update={"id": request.id}))
        return replies


def reply(text: str, finish_reason: str = "stop", **columns: object) -> Reply:
    return Reply.model_validate({"id": "", "text": text, "finish_reason": finish_reason, **columns})


def failed(error: str = "400 bad request") -> Reply:
    return reply("", "error", error=error)


def prompt(name: str, asked: str, target: str = "", system: str = "") -> Prompt:
    turns = [Message(role="user", content=asked)]
    if system:
        turns.insert(0, Message(role="system", content=system))
    return Prompt(
        id=name, query_id=f"q-{name}", collection="cot", task="toy", system_id="1",
        messages=turns, target=target,
    )  # fmt: skip


def prompts(folder: Path, rows: Sequence[Prompt]) -> Artifact:
    return toys.rows_artifact(folder, rows)


def last(row: object) -> str:
    """Return the response of a row."""
    return row.messages[-1].content  # type: ignore[attr-defined]
