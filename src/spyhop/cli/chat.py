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
COMMANDS = "/system TEXT changes the system message, /reset clears the history, /quit ends."


@dataclass(slots=True)
class Voice:
    """A model and its conversation with the user."""

    name: str
    model: Model
    sampling: Sampling
    history: list[Message] = field(default_factory=list)
    _num_requests: int = 0

    def ask(self, system: str, text: str) -> Reply:
        """Return the next reply; a failed call does not change the conversation."""
        first = [Message(role="system", content=system)] if system else []
        question = Message(role="user", content=text)
        self._num_requests += 1
        request = Request(
            id=str(self._num_requests),
            messages=[*first, *self.history, question],
            sample_index=self._num_requests,
        )
        (reply,) = self.model.generate([request], self.sampling, total=1)
        if reply.error is None:
            self.history += [question, Message(role="assistant", content=reply.text)]
        return reply


@contextmanager
def voices(
    teachers: Sequence[tuple[str, Teacher]], runtime: Runtime, sampling: Sampling
) -> Iterator[list[Voice]]:
    """Open models for a conversation; replies are not saved.

    Weights are loaded at the first question.
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
    """Return a model folder as an artifact without hashing it: nothing here needs its key."""
    if folder is None:
        return None
    record = Record(key="", stage="source", version=1, config={}, inputs={}, digest="")
    return Artifact(folder, record)


class Chat:
    """Reads lines, sends them to every model, prints the replies.

    Args:
        voices: One model, or two that are shown side by side.
        console: Where replies are printed.
        system: The system message; an empty one is not sent.
        read: Returns the next line; `EOFError` ends the conversation.
        is_live: A person is typing: errors are shown and the conversation continues.
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
        """Read lines until the end of the input, `/quit`, or Ctrl-C at the prompt."""
        if self._is_live:
            self._print_note(COMMANDS)
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
                self._run_command(line)
            elif line:
                self._answer(line)

    def _run_command(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command == "/reset":
            self._clear_history()
            self._print_note("history cleared")
        elif command == "/system":
            self._system = rest.strip()
            self._clear_history()
            self._print_note(f"system message: {self._system or '(empty)'}; history cleared")
        else:
            self._print_note(f"{command}: no such command. {COMMANDS}")

    def _clear_history(self) -> None:
        for voice in self._voices:
            voice.history.clear()

    def _answer(self, line: str) -> None:
        before = [list(voice.history) for voice in self._voices]
        try:
            replies = [voice.ask(self._system, line) for voice in self._voices]
        except (SpyhopError, KeyboardInterrupt) as error:
            for voice, history in zip(self._voices, before, strict=True):
                voice.history = history
            if not self._is_live:
                raise
            self._print_note(str(error) or "stopped")
            return
        texts = [_shown(reply) for reply in replies]
        if len(texts) == 1:
            self._console.print(texts[0], markup=False, soft_wrap=True)
        elif self._console.is_terminal:
            self._console.print(self._side_by_side(texts))
        else:
            for voice, text in zip(self._voices, texts, strict=True):
                self._console.print(f"[{voice.name}] {text}", markup=False, soft_wrap=True)

    def _side_by_side(self, texts: Sequence[str]) -> Table:
        table = Table.grid(expand=True)
        for _ in texts:
            table.add_column(ratio=1)
        panels = [
            Panel(Text(text), title=Text(voice.name), title_align="left")
            for voice, text in zip(self._voices, texts, strict=True)
        ]
        table.add_row(*panels)
        return table

    def _print_note(self, text: str) -> None:
        """Print a message of the program, apart from the replies."""
        if self._is_live:
            self._console.print(text, markup=False, style="dim")


def _shown(reply: Reply) -> str:
    if reply.error is not None:
        return f"(failed: {reply.error}; /reset starts over)"
    cut = " (cut)" if reply.ending == "cut" else ""
    return f"{reply.text}{cut}"
