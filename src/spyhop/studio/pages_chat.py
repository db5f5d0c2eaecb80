"""A conversation with one model or two; the page holds it, so that the server may be restarted."""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qsl

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spyhop.collect import orca_messages
from spyhop.models import Sampling, read_teacher
from spyhop.models.voices import Voice, voices
from spyhop.runtime import Runtime
from spyhop.schema import InputError, Message, SpyhopError
from spyhop.studio.site import page, site_of

nav = [("Chat", "/chat")]
PATIENCE_S = 60.0
"""Wait for an endpoint, which in a run is much longer."""
MAX_ATTEMPTS = 2
PLACES = ("first", "second")
_ALONE = Lock()
"""Models answer one after another: they share the processor's cores."""


def chat(request: Request) -> Response:
    """Show the form, with the models that the address names."""
    return page(
        request, "chat.html", models=_models(request), messages=orca_messages(),
        query=request.query_params,
    )  # fmt: skip


def system(request: Request) -> Response:
    """Return the field of the system message, with the text that the person picked."""
    texts = {message.id: message.text for message in orca_messages()}
    return page(request, "chat_system.html", text=texts.get(request.query_params["picked"], ""))


async def turn(request: Request) -> Response:
    """Show what the person wrote, and ask for the reply of each model."""
    form = await _form(request)
    labels = _models(request)
    chosen = [
        (n, labels.get(form[key], form[key])) for n, key in enumerate(PLACES) if form.get(key)
    ]
    if not form.get("text", "").strip() or not chosen:
        beside = {"HX-Retarget": "#problem", "HX-Reswap": "innerHTML"}
        return page(request, "error_part.html", 422, beside, text="choose a model, write a message")
    number = sum(name.startswith("asked-") for name in form)
    return page(request, "chat_turn.html", text=form["text"], number=number, models=chosen)


async def reply(request: Request) -> Response:
    """Show the reply of one model, or why there is none."""
    return await run_in_threadpool(_reply, request, await _form(request))


def _reply(request: Request, form: Mapping[str, str]) -> Response:
    number, place = int(form["number"]), int(form["place"])
    name, prefill = form[PLACES[place]], form.get("prefill", "")
    history = [
        Message(role=role, content=form[key])
        for turn in range(number) if form.get(f"said-{place}-{turn}")
        for role, key in (("user", f"asked-{turn}"), ("assistant", f"said-{place}-{turn}"))
    ]  # fmt: skip
    began = time.monotonic()
    try:
        sampling = Sampling(
            temperature=float(form["temperature"]), max_new_tokens=int(form["max_new_tokens"])
        )
        with _ALONE:
            voice = _voice(request, name)
            voice.history, voice.sampling = history, sampling
            try:
                found = voice.ask(form.get("system", ""), form[f"asked-{number}"], prefill)
            except SpyhopError:  # it would refuse further requests, as a run has to
                site_of(request).voices.pop(name)[0].close()
                raise
        error = found.error or ""
    except ValidationError as problem:
        found, error = None, f"{problem.errors()[0]['loc'][0]}: {problem.errors()[0]['msg']}"
    except (SpyhopError, ValueError) as problem:
        found, error = None, str(problem).removesuffix("; run again to request them")
    seconds = time.monotonic() - began
    return page(
        request, "chat_reply.html", reply=found, error=error, seconds=seconds, number=number,
        place=place, label=_models(request).get(name, name), prefill=prefill,
    )  # fmt: skip


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
        teacher = read_teacher(_path(request, name))
        if (service := teacher.service) is not None:
            brief = {"patience_s": PATIENCE_S, "max_attempts": MAX_ATTEMPTS}
            teacher = replace(teacher, service=service.model_copy(update=brief))
        runtime, stack = Runtime(threads=os.cpu_count() or 1), ExitStack()
        (voice,) = stack.enter_context(voices([(name, teacher)], runtime, Sampling()))
        opened[name] = site.resources.enter_context(stack), voice
    found: Voice = opened[name][1]
    return found


def _path(request: Request, name: str) -> Path:
    site = site_of(request)
    kind, _, rest = name.partition("/")
    if kind == "model" and rest in site.models:
        return site.models[rest]
    if name not in _models(request):
        raise InputError(f"no model {name:.80}")
    return site.artifact(kind, rest).path


async def _form(request: Request) -> dict[str, str]:
    text = (await request.body()).decode(errors="replace")
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=10_000))


routes = [
    Route("/chat", chat),
    Route("/chat/system", system),
    Route("/chat/turn", turn, methods=["POST"]),
    Route("/chat/reply", reply, methods=["POST"]),
]
