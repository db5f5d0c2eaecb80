"""A conversation at the terminal, with one model or with two side by side."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spyhop.models import Reply
from spyhop.models.voices import Voice
from spyhop.schema import SpyhopError

KNOWN = ("/system", "/reset")
COMMANDS = "/system TEXT changes the system message, /reset clears the history, /quit ends."


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
