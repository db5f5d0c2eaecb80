"""A conversation with one model or two; the page holds it, so that the server may be restarted."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from secrets import token_hex
from threading import Lock
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from spyhop.collect import orca_messages
from spyhop.models import Sampling, read_teacher
from spyhop.models.voices import Voice, voices
from spyhop.runtime import Runtime
from spyhop.schema import InputError, Message, SpyhopError
from spyhop.studio.site import event, form_of, fragment, page, problem, site_of

nav = [("Chat", "/chat")]
PATIENCE_S = 60.0
"""Wait for an endpoint, which in a run is much longer."""
MAX_ATTEMPTS = 2
LOOK_S = 0.1
"""Time between two events of a reply."""
PLACES = ("first", "second")
_ALONE = Lock()
"""Models answer one after another: they share the processor's cores."""


def chat(request: Request) -> Response:
    """Show the form, with the models that the address names."""
    return page(
        request, "chat.html", models=_models(request), messages=orca_messages(),
        query=request.query_params,
    )  # fmt: skip


async def turn(request: Request) -> Response:
    """Show what the person wrote, and ask for the reply of each model."""
    form, labels = await form_of(request), _models(request)
    chosen = [
        (n, labels.get(form[key], form[key])) for n, key in enumerate(PLACES) if form.get(key)
    ]
    if not form.get("text", "").strip() or not chosen:
        return problem(request, "choose a model, write a message")
    number = sum(name.startswith("asked-") for name in form)
    return page(request, "chat_turn.html", text=form["text"], number=number, models=chosen)


async def reply(request: Request) -> Response:
    """Take a question; its reply comes as events from an address that is asked once."""
    form, token = await form_of(request), token_hex(8)
    site_of(request).keep(("asked", token), lambda: form)
    return page(request, "chat_asked.html", token=token)


async def stream(request: Request) -> Response:
    """Send the reply of one model while it is written, then the whole of it, or the error."""
    token = request.path_params["token"]
    form: dict[str, str] = site_of(request).kept.pop(("asked", token), {})
    name = form.get(PLACES[int(form.get("place", "0"))], "")
    written: dict[str, Any] = {"text": "", "is_open": True}
    values: dict[str, Any] = {
        "token": token, "label": _models(request).get(name, name), "text": "", "reply": None,
        "error": "", "prefill": form.get("prefill", ""), "form": form,
    }  # fmt: skip

    def on_text(text: str) -> bool:
        written["text"] = text
        return bool(written["is_open"])

    async def events() -> AsyncIterator[str]:
        work = asyncio.ensure_future(run_in_threadpool(_reply, request, form, on_text))
        try:
            while not work.done():
                await asyncio.wait([work], timeout=LOOK_S)
                if written["text"] != values["text"]:
                    values["text"] = written["text"]
                    yield event("part", fragment(request, "chat_reply.html", **values))
            found = values | work.result()
            yield event("part", fragment(request, "chat_reply.html", **found))
            yield event("say", f"{found['label']}: {found['error'] or 'replied'}")
            yield event("end", "")
        finally:
            written["is_open"] = False  # the page is closed: the model stops, too

    return StreamingResponse(events(), media_type="text/event-stream")


def _reply(
    request: Request, form: Mapping[str, str], on_text: Callable[[str], bool]
) -> dict[str, Any]:
    """Return the reply of one model and its time, or the error."""
    if not form:
        return {"error": "the studio was stopped, or the connection broke, before it was whole"}
    number, place = int(form["number"]), int(form["place"])
    history = [
        Message(role=role, content=form[key])
        for turn in range(number) if form.get(f"said-{place}-{turn}")
        for role, key in (("user", f"asked-{turn}"), ("assistant", f"said-{place}-{turn}"))
    ]  # fmt: skip
    began, name = time.monotonic(), form[PLACES[place]]
    try:
        temperature, most = float(form["temperature"]), int(form["max_new_tokens"])
        sampling = Sampling(temperature=temperature, max_new_tokens=most)
        with _ALONE:
            voice = _voice(request, name)
            voice.history, voice.sampling, voice.on_text = history, sampling, on_text
            texts = [form.get(key, "") for key in ("system", f"asked-{number}", "prefill")]
            try:
                found = voice.ask(*texts)
            except SpyhopError:  # it would refuse further requests, as a run has to
                site_of(request).voices.pop(name)[0].close()
                raise
    except ValidationError as error:
        return {"error": f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}"}
    except (SpyhopError, ValueError) as error:
        return {"error": str(error).removesuffix("; run again to request them")}
    return {"reply": found, "error": found.error or "", "seconds": time.monotonic() - began}


def _models(request: Request) -> dict[str, str]:
    """Return the models that can be asked, by what the browser calls them."""
    site = site_of(request)
    found = {f"model/{name}": name for name in site.models}
    for store in site.stores:
        steps = site.catalog(store).steps()
        for each in site.catalog(store).artifacts():
            if each.record.stage.startswith("train.") and "config.json" in each.record.files:
                found[f"{store}/{each.name}"] = f"{store}: {steps.get(each.name, [each.name])[0]}"
    return found


def _voice(request: Request, name: str) -> Voice:
    """Return a model that is ready to answer; the last two stay open."""
    site = site_of(request)
    opened = site.voices
    if name not in opened:
        for other in list(opened)[:-1]:
            opened.pop(other)[0].close()
        kind, _, rest = name.partition("/")
        if not (path := site.models.get(rest) if kind == "model" else None):
            if name not in _models(request):
                raise InputError(f"no model {name:.80}")
            path = site.artifact(kind, rest).path
        teacher = read_teacher(path)
        if (service := teacher.service) is not None:
            brief = {"patience_s": PATIENCE_S, "max_attempts": MAX_ATTEMPTS}
            teacher = replace(teacher, service=service.model_copy(update=brief))
        runtime, stack = Runtime(threads=os.cpu_count() or 1), ExitStack()
        opening = voices([(name, teacher)], runtime, Sampling(), is_streamed=True)
        (voice,) = stack.enter_context(opening)
        opened[name] = site.resources.enter_context(stack), voice
    found: Voice = opened[name][1]
    return found


routes = [
    Route("/chat", chat),
    Route("/chat/turn", turn, methods=["POST"]),
    Route("/chat/reply", reply, methods=["POST"]),
    Route("/chat/stream/{token}", stream),
]
