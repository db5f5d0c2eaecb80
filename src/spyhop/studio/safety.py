"""Which requests are answered: from this page only, or with the token; and what a page may load.

Refused are: a Host that is no loopback name (else a name that another site points to 127.0.0.1
would be this page's origin), a request that changes something without this page as its Origin, and
any other request that another page sends, unless the person follows a link.
"""

import hmac
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
MOST_BYTES = 2_000_000
"""Longest body of a request."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every response, unless it has its own."""


class Guard:
    """Middleware that refuses requests of other sites, and sets the headers of every response."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            request = Request(scope)
            app = self._refusal(request) or self._login(request) or self._app
            await app(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        host, is_safe = request.headers.get("host", ""), request.method in ("GET", "HEAD")
        if self._token is None and (urlsplit(f"//{host}").hostname or "") not in LOOPBACK:
            return _refuse(421, f"{host!r:.80} is not an address of this server; use 127.0.0.1")
        is_same = is_safe or urlsplit(request.headers.get("origin", "")).netloc == host
        is_link = is_safe and request.headers.get("sec-fetch-mode") == "navigate"
        sent_by = request.headers.get("sec-fetch-site", "none")
        if not is_same or (sent_by not in ("same-origin", "none") and not is_link):
            return _refuse(403, "this request comes from another site")
        size = request.headers.get("content-length", "0" if is_safe else "")
        if not size.isdigit() or int(size) > MOST_BYTES:
            return _refuse(
                413, f"a request has at most {MOST_BYTES:,} bytes, and states its length"
            )
        return None

    def _login(self, request: Request) -> Response | None:
        """Ask for the token once; a cookie keeps it."""
        cookie = f"spyhop-{(request.scope.get('server') or ('', 0))[1]}"
        params = request.query_params
        if self._token is None or _is_equal(request.cookies.get(cookie, ""), self._token):
            return None
        if not _is_equal(params.get("token", ""), self._token):
            return _refuse(401, "open the address that `spyhop studio` printed, with its token")
        query = [item for item in params.multi_items() if item[0] != "token"]
        reply = RedirectResponse(f"{request.url.path}{'?' if query else ''}{urlencode(query)}", 303)
        reply.set_cookie(cookie, self._token, httponly=True, samesite="strict")
        return reply


def _is_equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _refuse(status: int, reason: str) -> Response:
    return PlainTextResponse(f"spyhop studio: {reason}\n", status)
