"""Replies that come as server-sent events, for people who wait: the text so far, then the whole."""

from typing import Any

from pydantic_core import from_json

from spyhop.models.failures import dicts


class StreamedReply:
    """A chat completion or a message of Anthropic's API, put together from its events."""

    def __init__(self) -> None:
        self.whole: dict[str, Any] = {}
        """The reply as it would have come without a stream; an error is the event that states it.
        """
        self._rest = b""

    def take(self, chunk: bytes) -> None:
        """Read the next bytes of the body; lines that are no JSON objects are skipped.

        Raises:
            ValueError: If an event has another form.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and b"{" in line:
                try:
                    event = from_json(line[5:])
                    merge = self._take_message if "type" in event else self._take_completion
                    self.whole = event if event.get("error") else merge(event)
                except (LookupError, TypeError, AttributeError):
                    raise ValueError(f"an event of unknown form: {line!r:.200}") from None

    @property
    def text(self) -> str:
        """The response so far, or its thoughts while there is nothing else."""
        if "content" in self.whole:
            return "".join(str(each.get("text", "")) for each in self.whole["content"])
        turns = [each["message"] for each in dicts(self.whole.get("choices"))]
        texts = [t.get(n) for t in turns for n in ("content", "reasoning_content", "reasoning")]
        return next((text for text in texts if isinstance(text, str) and text), "")

    def _take_completion(self, event: dict[str, Any]) -> dict[str, Any]:
        (old, *_) = self.whole.get("choices") or [{"message": {}}]
        found = {**self.whole, **{k: v for k, v in event.items() if v}, "choices": [old]}
        for each in dicts(event.get("choices")):
            old |= {name: each[name] for name in ("index", "finish_reason") if each.get(name)}
            for name, more in (each.get("delta") or {"content": each.get("text")}).items():
                before = old["message"].get(name)
                is_more = isinstance(more, str | list) and type(more) is type(before)
                if more is not None:  # of some providers, where nothing is added
                    old["message"][name] = before + more if is_more and name != "role" else more
        return found

    def _take_message(self, event: dict[str, Any]) -> dict[str, Any]:
        found = self.whole or {"content": []}
        if event["type"] == "message_start":
            return dict(event["message"])
        if event["type"] == "content_block_start":
            found["content"].append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            block = found["content"][-1]
            for name in {"text", "thinking"} & event["delta"].keys():
                block[name] = block.get(name, "") + event["delta"][name]
        elif event["type"] == "message_delta":
            found |= event["delta"]
            found["usage"] = {**found.get("usage", {}), **(event.get("usage") or {})}
        return found
