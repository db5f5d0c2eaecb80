"""A conversation at the terminal, with one model or with two side by side."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spyhop.models import Sampling, read_teacher
from spyhop.models.voices import Voice, voices
from spyhop.runtime import Runtime
from spyhop.schema import RecipeError, SpyhopError
from spyhop.settings import validated

KNOWN = ("/system", "/reset")
COMMANDS = "/system TEXT changes the system message, /reset clears the history, /quit ends."


@dataclass(slots=True)
class Chat:
    """Reads lines, sends them to every model, prints the replies."""

    voices: Sequence[Voice]
    """One model, or two that are shown side by side."""
    console: Console
    system: str
    """The system message; an empty one is not sent."""
    read: Callable[[], str]
    """Returns the next line; `EOFError` ends the conversation."""
    _: KW_ONLY
    is_live: bool
    """A person is typing: errors are shown and the conversation continues."""

    def talk(self) -> None:
        """Read lines until the end of the input, `/quit`, or Ctrl-C at the prompt."""
        self._print_note(COMMANDS)
        while True:
            try:
                line = self.read().strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                if not self.is_live:
                    raise
                return
            if line == "/quit":
                return
            if line.startswith("/") and (self.is_live or line.split()[0] in KNOWN):
                self._run_command(line)
            elif line:
                self._answer(line)

    def _run_command(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command not in KNOWN:
            self._print_note(f"{command}: no such command. {COMMANDS}")
            return
        for voice in self.voices:
            voice.history.clear()
        if command == "/system":
            self.system = rest.strip()
            self._print_note(f"system message: {self.system or '(empty)'}; history cleared")
        else:
            self._print_note("history cleared")

    def _answer(self, line: str) -> None:
        before = [list(voice.history) for voice in self.voices]
        try:
            replies = [voice.ask(self.system, line) for voice in self.voices]
        except (SpyhopError, KeyboardInterrupt) as error:
            for voice, history in zip(self.voices, before, strict=True):
                voice.history = history
            if not self.is_live:
                raise
            self._print_note(str(error) or "stopped")
            return
        named = []
        for voice, reply in zip(self.voices, replies, strict=True):
            text = f"{reply.text} (cut)" if reply.ending == "cut" else reply.text
            failed = f"(failed: {reply.error}; /reset starts over)"
            named.append((voice.name, text if reply.error is None else failed))
        if len(named) > 1 and self.console.is_terminal:
            table = Table.grid(expand=True)
            for _ in named:
                table.add_column(ratio=1)
            table.add_row(*(Panel(Text(text), title=Text(name), title_align="left")
                            for name, text in named))  # fmt: skip
            self.console.print(table)
            return
        for name, text in named:
            shown = f"[{name}] {text}" if len(named) > 1 else text
            self.console.print(shown, markup=False, soft_wrap=True)

    def _print_note(self, text: str) -> None:
        """Print a message of the program, apart from the replies."""
        if self.is_live:
            self.console.print(text, markup=False, style="dim")


def chat(
    models: list[Path],
    system: str = "",
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    device: str = "auto",
) -> None:
    """Chat with one model, or compare two side by side.

    From a pipe, each line is one turn. /system TEXT changes the system message, /reset clears the
    conversation, /quit ends it. Replies are not saved.
    """
    if len(models) > 2:
        raise RecipeError(f"{len(models)} models: name one, or two to compare")
    given_runtime = {"device": device, "threads": os.cpu_count() or 1}
    runtime = validated(Path("chat"), Runtime, given_runtime, "", {})
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
    named = [(path.stem if path.is_file() else path.name, read_teacher(path)) for path in models]
    is_live = sys.stdin.isatty()
    if is_live:
        import readline  # noqa: F401 (its import gives `input` a history and arrow keys)
    read = partial(input, "> " if is_live else "")
    with voices(named, runtime, sampling) as found:
        Chat(found, Console(highlight=False), system, read, is_live=is_live).talk()
