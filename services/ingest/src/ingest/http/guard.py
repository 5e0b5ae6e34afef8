"""What every request passes first: the name it was sent to, the page it came from, and the clock.

A service on loopback answers to loopback's names only, and one that was told its names to those, so that no web site
can point its own name here and read (DNS rebinding); what changes something is refused when another site's page sends it. There is no CORS.
"""

import ipaddress
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest.http.metrics import REQUEST_SECONDS
from ingest.http.problems import UNREAD, Problem

_SAFE = ("GET", "HEAD", "OPTIONS")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _hostname(authority: str) -> str:
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def names_answered(told: Collection[str], *, bound_to: str) -> frozenset[str]:
    """Empty where any name is as good as another: behind an address that others reach, and told nothing else."""
    if not told and is_loopback(bound_to):
        return frozenset((*_LOOPBACK_NAMES, bound_to))
    return frozenset(told)


def refusal(
    method: str, *, host: str, origin: str, fetch_site: str, names: Collection[str]
) -> Problem | None:
    """Whether a request may pass; null when it may."""
    if names and _hostname(host) not in names:
        return Problem(
            421,
            "host_unknown",
            "This service does not answer to that name.",
            "Use http://127.0.0.1 or http://localhost with the port, or a name of PAPERLOG_HTTP_NAMES.",
        )
    if method in _SAFE:
        return None
    is_foreign = fetch_site in ("cross-site", "same-site")
    if origin and urlsplit(origin).netloc.lower() != host.lower():
        is_foreign = True
    if is_foreign:
        return Problem(
            403,
            "origin_foreign",
            "Another web site's page sent this; only our own page and programs may change something.",
            "Use the page that this service serves, or the command.",
        )
    return None


class Guard:
    def __init__(self, app: ASGIApp, *, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = refusal(
            scope["method"],
            host=_header(scope, b"host"),
            origin=_header(scope, b"origin"),
            fetch_site=_header(scope, b"sec-fetch-site"),
            names=self._names,
        )
        app = self._app if problem is None else problem.response()
        started_s = time.monotonic()
        status = 500

        async def receive_on() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                scope[UNREAD] = message.get("more_body", False)
            return message

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            await app(scope, receive_on, send_on)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            if not route.endswith("/events"):
                REQUEST_SECONDS.labels(scope["method"], route, str(status)).observe(
                    time.monotonic() - started_s
                )
