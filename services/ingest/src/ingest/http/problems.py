"""Errors as problem documents (RFC 9457): what happened, why, whether trying again helps, and what to do.

Nothing of a request's content, no path of this machine and no secret gets into one.
"""

import errno
import sqlite3
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from eventlog.errors import TransientFailure, UnprocessableRecord
from eventlog.logs import Logger
from ingest.http.metrics import REQUESTS_REFUSED
from ingest.uploads import UploadRefused

logger = Logger("ingest.http")

MEDIA_TYPE = "application/problem+json"
UNREAD = "paperlog.body_is_unread"
"""In the scope while more of a body is to come: answering then closes the connection under the client's hands."""
DRAINED_BYTES_MAX = 64 * 1024**2

_TITLES = {
    400: "The request is not valid",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    409: "Not possible now",
    413: "Too large",
    415: "Not a type that is understood",
    421: "Not our name",
    422: "The request cannot be carried out",
    500: "Something is broken here",
    502: "Another service is broken",
    503: "Not available at the moment",
    507: "No space left",
}


class ProblemDocument(BaseModel):
    """What every error looks like; some have further members, such as the names of missing files."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    action: str
    instance: str = ""


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


class Problem(Exception):  # noqa: N818 - the name of the standard
    """Raised anywhere below a route; becomes the answer. `extra` are further members of the document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        action: str,
        *,
        retryable: bool = False,
        retry_after_s: int | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.action = action
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.extra = extra

    def to_json(self, instance: str = "") -> dict[str, Any]:
        out: dict[str, Any] = {
            "type": f"urn:paperlog:problem:{self.code}",
            "title": _TITLES.get(self.status, "The request failed"),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retryable,
            "action": self.action,
        }
        if instance:
            out["instance"] = instance
        return out | self.extra

    def response(self, instance: str = "") -> ProblemResponse:
        REQUESTS_REFUSED.labels(self.code).inc()
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return ProblemResponse(self.to_json(instance), status_code=self.status, headers=headers)


def refused(error: UploadRefused) -> Problem:
    return Problem(413 if error.is_too_large else 422, error.code, error.detail, error.action)


def invalid(errors: list[Any]) -> Problem:
    """From pydantic's list of errors, without the input that it quotes."""
    rows = [
        {
            "field": ".".join(str(part) for part in one["loc"]),
            "message": str(one["msg"]).removeprefix("Value error, "),
        }
        for one in errors[:20]
    ]
    detail = "; ".join(
        f"{row['field']}: {row['message']}" if row["field"] else row["message"] for row in rows
    )
    return Problem(422, "request_invalid", detail, "Correct what is named and send it again.", errors=rows)


def unavailable(error: TransientFailure) -> Problem:
    return Problem(
        503,
        "log_unavailable",
        f"The request could not be written down: {error}",
        "Send the same request again, with the same Idempotency-Key, in a few seconds.",
        retryable=True,
        retry_after_s=2,
    )


def rebuilding() -> Problem:
    return Problem(
        503,
        "catching_up",
        "What is known of imports is still being read from the log.",
        "Ask again in a few seconds. Nothing is lost.",
        retryable=True,
        retry_after_s=1,
    )


def _of_status(status: int, detail: str) -> Problem:
    actions = {
        404: ("not_found", "See /docs for what there is."),
        405: ("method_not_allowed", "See /docs for what is possible here."),
    }
    code, action = actions.get(status, ("request_invalid", "See /docs."))
    return Problem(status, code, detail, action)


async def drain(scope: Scope, receive: Receive) -> None:
    """Reads what is left of a body, up to a limit, so that a client that is still sending hears the answer."""
    left = DRAINED_BYTES_MAX
    while scope.get(UNREAD, False) and left > 0:
        message = await receive()
        if message["type"] != "http.request":
            return
        left -= len(message.get("body", b""))


def install(app: FastAPI, on_damage: Callable[[], None]) -> None:
    async def answer(request: Request, problem: Problem) -> Response:
        await drain(request.scope, request.receive)
        return problem.response(request.url.path)

    @app.exception_handler(Problem)
    async def of_problem(request: Request, error: Problem) -> Response:
        return await answer(request, error)

    @app.exception_handler(UploadRefused)
    async def of_upload(request: Request, error: UploadRefused) -> Response:
        return await answer(request, refused(error))

    @app.exception_handler(RequestValidationError)
    async def of_framework(request: Request, error: RequestValidationError) -> Response:
        return await answer(request, invalid(list(error.errors())))

    @app.exception_handler(ValidationError)
    async def of_body(request: Request, error: ValidationError) -> Response:
        return await answer(request, invalid(list(error.errors(include_input=False, include_url=False))))

    @app.exception_handler(TransientFailure)
    async def of_log(request: Request, error: TransientFailure) -> Response:
        return await answer(request, unavailable(error))

    @app.exception_handler(UnprocessableRecord)
    async def of_record(request: Request, error: UnprocessableRecord) -> Response:
        return await answer(
            request,
            Problem(
                422,
                "request_unwritable",
                f"The request cannot be written to the log: {error.reason}.",
                "Shorten its names and options.",
            ),
        )

    @app.exception_handler(sqlite3.DatabaseError)
    async def of_damage(request: Request, error: sqlite3.DatabaseError) -> Response:
        logger.error("projection.unreadable", why=error)
        on_damage()
        problem = Problem(
            503,
            "index_rebuilding",
            "The local index of imports is damaged and is being made again from the log; nothing is lost.",
            "Try again in a few seconds.",
            retryable=True,
            retry_after_s=5,
        )
        return await answer(request, problem)

    @app.exception_handler(OSError)
    async def of_disk(request: Request, error: OSError) -> Response:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        logger.error("disk.full", why=error.strerror)
        problem = Problem(
            507,
            "storage_full",
            "The service has no space left on its disk, so nothing was taken.",
            "Make room on the service's disk, then send the same request again.",
        )
        return await answer(request, problem)

    @app.exception_handler(HTTPException)
    async def of_starlette(request: Request, error: HTTPException) -> Response:
        response = await answer(request, _of_status(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def of_disconnect(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    @app.exception_handler(Exception)
    async def of_bug(request: Request, _error: Exception) -> Response:
        problem = Problem(
            500,
            "internal",
            "The service met a case that it was not written for.",
            "Look into the service's log, and report it with what you did.",
        )
        return problem.response(request.url.path)
