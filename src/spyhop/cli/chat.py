"""A conversation at the terminal, with one model or with two side by side."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spyhop.models import Model, ModelUse, Reply, Request, Sampling, Teacher
from spyhop.runtime import Runtime
from spyhop.schema import Message, SpyhopError
from spyhop.stage import Context
from spyhop.store import Artifact, Record

KNOWN = ("/system", "/reset")
COMMANDS = "/system TEXT changes the system message, /reset forgets what was said, /quit ends."


@dataclass(slots=True)
class Voice:
    """A model and what it and the user have said to each other."""

    name: str
    model: Model
    sampling: Sampling
    said: list[Message] = field(default_factory=list)
    _num_asked: int = 0

    def ask(self, system: str, text: str) -> Reply:
        """Return the next reply; it is remembered unless the call failed."""
        first = [Message(role="system", content=system)] if system else []
        question = Message(role="user", content=text)
        self._num_asked += 1
        request = Request(
            id=str(self._num_asked),
            messages=[*first, *self.said, question],
            sample_index=self._num_asked,
        )
        (reply,) = self.model.generate([request], self.sampling, total=1)
        if reply.error is None:
            self.said += [question, Message(role="assistant", content=reply.text)]
        return reply


@contextmanager
def voices(
    teachers: Sequence[tuple[str, Teacher]], runtime: Runtime, sampling: Sampling
) -> Iterator[list[Voice]]:
    """Open models for a conversation; what they say is kept nowhere.

    Weights are loaded when the first question is asked.
    """
    with ExitStack() as stack:
        found = []
        for name, teacher in teachers:
            root = Path(stack.enter_context(TemporaryDirectory(prefix="spyhop-chat-")))
            ctx = Context(root, root, root, runtime, lambda progress: None)
            stack.enter_context(ctx.resources)
            use = ModelUse(teacher.config, _unread(teacher.folder), teacher.service)
            found.append(Voice(name, use.open(ctx), sampling))
        yield found


def _unread(folder: Path | None) -> Artifact | None:
    """Return a model's folder as an artifact without reading it all: nothing here needs its key."""
    if folder is None:
        return None
    record = Record(key="", stage="source", version=1, config={}, inputs={}, digest="")
    return Artifact(folder, record)


class Chat:
    """Reads lines, asks every voice, prints what they say.

    Args:
        voices: One, or two that stand side by side.
        console: Where replies go.
        system: The system message; none where it is empty.
        read: Gives the next line; `EOFError` ends the conversation.
        is_live: A person is typing: errors are shown and the conversation goes on.
    """

    def __init__(
        self,
        voices: Sequence[Voice],
        console: Console,
        system: str,
        read: Callable[[], str],
        *,
        is_live: bool,
    ) -> None:
        self._voices = voices
        self._console = console
        self._system = system
        self._read = read
        self._is_live = is_live

    def talk(self) -> None:
        """Go on until the end of the input, `/quit`, or Ctrl-C at the prompt."""
        if self._is_live:
            self._tell(COMMANDS)
        while True:
            try:
                line = self._read().strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                if not self._is_live:
                    raise
                return
            if line == "/quit":
                return
            if line.startswith("/") and (self._is_live or line.split()[0] in KNOWN):
                self._obey(line)
            elif line:
                self._answer(line)

    def _obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command == "/reset":
            self._forget()
            self._tell("forgotten")
        elif command == "/system":
            self._system = rest.strip()
            self._forget()
            self._tell(f"system message: {self._system or 'none'}; what was said is forgotten")
        else:
            self._tell(f"{command} is unknown. {COMMANDS}")

    def _forget(self) -> None:
        for voice in self._voices:
            voice.said.clear()

    def _answer(self, line: str) -> None:
        before = [list(voice.said) for voice in self._voices]
        try:
            replies = [voice.ask(self._system, line) for voice in self._voices]
        except (SpyhopError, KeyboardInterrupt) as error:
            for voice, said in zip(self._voices, before, strict=True):
                voice.said = said
            if not self._is_live:
                raise
            self._tell(str(error) or "stopped")
            return
        texts = [_shown(reply) for reply in replies]
        if len(texts) == 1:
            self._console.print(texts[0], markup=False, soft_wrap=True)
        elif self._console.is_terminal:
            self._console.print(self._beside(texts))
        else:
            for voice, text in zip(self._voices, texts, strict=True):
                self._console.print(f"[{voice.name}] {text}", markup=False, soft_wrap=True)

    def _beside(self, texts: Sequence[str]) -> Table:
        table = Table.grid(expand=True)
        for _ in texts:
            table.add_column(ratio=1)
        panels = [
            Panel(Text(text), title=Text(voice.name), title_align="left")
            for voice, text in zip(self._voices, texts, strict=True)
        ]
        table.add_row(*panels)
        return table

    def _tell(self, text: str) -> None:
        """Say something of our own, which is no part of what the models said."""
        if self._is_live:
            self._console.print(text, markup=False, style="dim")


def _shown(reply: Reply) -> str:
    if reply.error is not None:
        return f"(failed: {reply.error}; /reset starts anew)"
    cut = " (cut)" if reply.ending == "cut" else ""
    return f"{reply.text}{cut}"
