"""A real browser, driven over its debugging protocol: keys, clicks, scripts, pictures."""

import asyncio
import base64
import contextlib
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import axe_playwright_python

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-port=0", "about:blank",
)  # fmt: skip

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")


class Tab:
    """One page of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.errors: list[str] = []
        """What the console reports: refused scripts, exceptions, dialogs."""

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=120)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            kind = message.get("method")
            if kind == "Page.javascriptDialogOpening" or (
                kind in ("Runtime.exceptionThrown", "Log.entryAdded")
                and "favicon" not in json.dumps(message)
            ):
                self.errors.append(json.dumps(message["params"])[:300])

    async def open(self, page: Path | str) -> None:
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")
        address = page if isinstance(page, str) else page.as_uri()
        await self.send("Page.navigate", url=address)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def findings(self) -> list[str]:
        """Return what axe-core finds wrong with the page."""
        await self.run(AXE.read_text(encoding="utf-8") + "; 0")
        await self.run(
            "window.found = null; axe.run(document, {resultTypes: ['violations']}).then((done) => {"
            "window.found = done.violations.map((v) => v.id + ': ' + v.nodes[0].html.slice(0, 200))"
            "})"
        )
        await self.until("window.found !== null")
        return await self.run("window.found")

    async def reload(self) -> None:
        await self.send("Page.reload")
        await asyncio.sleep(0.3)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        done = await self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, script: str) -> None:
        for _ in range(100):
            with contextlib.suppress(AssertionError):
                if await self.run(script):
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"never true in the page: {script}")

    async def press(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        await self.send("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        await self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def type(self, text: str) -> None:
        await self.send("Input.insertText", text=text)

    async def size(self, width: int, *, is_dark: bool = False) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, path: Path, *, is_whole: bool = False) -> None:
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=is_whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    """Start Chromium with a profile in the folder; downloads arrive in the folder, too."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "needs Chromium (Debian: apt-get install chromium)"
    process = subprocess.Popen(
        [found, f"--user-data-dir={folder / 'profile'}", *FLAGS],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        address = next(m[1] for m in (re.search(r"on (ws://\S+)", line) for line in lines) if m)
        host = address.split("/devtools")[0].replace("ws://", "http://")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{host}/json") as reply:
                tabs = [tab for tab in await reply.json() if tab["type"] == "page"]
            where = tabs[0]["webSocketDebuggerUrl"]
            async with session.ws_connect(where, max_msg_size=0) as socket:
                tab = Tab(socket)
                await tab.send(
                    "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder)
                )
                yield tab
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()
