"""Models in a conversation with a person; replies are not saved."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from spyhop.models.base import Model, ModelUse
from spyhop.models.calls import Reply, Request, Sampling
from spyhop.models.teacher import Teacher
from spyhop.runtime import Runtime
from spyhop.schema import Message
from spyhop.stage import Context
from spyhop.store import Artifact, Record

UNKEYED = Record(key="", stage="source", version=1, config={}, inputs={}, digest="")


@dataclass(slots=True)
class Voice:
    """A model and its conversation with the user."""

    name: str
    model: Model
    sampling: Sampling
    history: list[Message] = field(default_factory=list)
    on_text: Callable[[str], bool] = lambda text: True
    """Receives the response while it is written; False ends it."""
    _num_requests: int = 0

    def ask(self, system: str, text: str, prefill: str = "") -> Reply:
        """Return the next reply; a failed call does not change the conversation.

        A reply continues a prefilled response, which is part of the conversation.
        """
        first = [Message(role="system", content=system)] if system else []
        question = Message(role="user", content=text)
        self._num_requests += 1
        request = Request(
            id=str(self._num_requests),
            messages=[*first, *self.history, question],
            continuation=prefill,
            sample_index=self._num_requests,
        )
        (reply,) = self.model.generate([request], self.sampling, total=1)
        if reply.error is None:
            self.history += [question, Message(role="assistant", content=prefill + reply.text)]
        return reply


@contextmanager
def voices(
    teachers: Sequence[tuple[str, Teacher]],
    runtime: Runtime,
    sampling: Sampling,
    *,
    is_streamed: bool = False,
) -> Iterator[list[Voice]]:
    """Open models for a conversation; replies are not saved.

    Weights are loaded at the first question. With `is_streamed`, a voice's `on_text` is called.
    """
    with ExitStack() as stack:
        found = []
        for name, teacher in teachers:
            root = Path(stack.enter_context(TemporaryDirectory(prefix="spyhop-chat-")))
            ctx = Context(root, root, root, runtime, lambda progress: None)
            stack.enter_context(ctx.resources)
            # not hashed: nothing here needs the folder's key
            folder = Artifact(teacher.folder, UNKEYED) if teacher.folder else None
            use = ModelUse(teacher.config, folder, teacher.service)
            found.append(voice := Voice(name, use.open(ctx), sampling))
            if is_streamed:
                voice.model.on_text = lambda text, voice=voice: voice.on_text(text)
        yield found
