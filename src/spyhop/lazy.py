"""Heavy libraries, imported at their first use, so that `spyhop --help` answers at once."""

from importlib import import_module
from typing import Any


class Lazy:
    """Stands for a library until an attribute of it is asked for.

    Use it beside the real import, so that types stay known:

        if TYPE_CHECKING:
            import torch
        else:
            torch = Lazy("torch")
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401 (whatever the library holds)
        return getattr(import_module(self._name), attribute)
