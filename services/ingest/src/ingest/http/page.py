"""The plain page at `/` and the list of endpoints at `/docs`: one file each, nothing loaded from elsewhere.

Their scripts write text, never markup, and the content policy lets nothing but these very scripts run.
"""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def _policy(html: str) -> str:
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for match in _INLINE.finditer(html):
        digest = base64.b64encode(hashlib.sha256(match[2].encode()).digest()).decode()
        allowed[match[1]].append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; script-src {' '.join(allowed['script'])}; style-src {' '.join(allowed['style'])}; "
        "connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )


class _Page:
    def __init__(self, name: str) -> None:
        html = Path(__file__).with_name(name).read_text(encoding="utf-8")
        self._body = html.encode()
        self._headers = {
            "Content-Security-Policy": _policy(html),
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }

    def answer(self) -> Response:
        return HTMLResponse(self._body, headers=self._headers)


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    home, docs = _Page("page.html"), _Page("docs.html")

    @routes.get("/")
    async def front(request: Request) -> Response:
        accepted = request.headers.get("accept", "")
        # Registry clients look here whether there is a registry, and ask for JSON.
        if "json" in accepted and "html" not in accepted:
            return JSONResponse({})
        return home.answer()

    @routes.get("/docs")
    async def endpoints() -> Response:
        return docs.answer()

    return routes
