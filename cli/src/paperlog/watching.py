"""Follows an import until it has ended: server-sent events, taken up again where they broke off, or polling.

Ingest may die and come back meanwhile; the log has the rest. What a status means to a person is told in `progress.py`.
"""

import json
import time
from collections.abc import Callable, Iterator

import httpx

from paperlog.failures import Failure, Refused
from paperlog.service import Json, Service

TERMINAL = frozenset({"completed", "completed_with_rejections", "cancelled", "failed"})
AWAY_S_MAX = 180.0
"""How long nothing may be heard: ingest's restart folds its history first."""
_AGAIN_S = 1.0
_POLL_S = 1.0
_REOPEN_S = 0.2
_UNKNOWN_S_MAX = 15.0
"""How long an import that was just accepted may be unknown to the instance that is asked."""
_DEAF_MAX = 3
"""So many streams in a row without an event mean that something between holds them back: then it is asked."""


class _NoStream(Exception):  # noqa: N818 - names what it is to the reader
    """The answer is no event stream."""


def statuses(
    service: Service,
    import_id: str,
    *,
    say: Callable[[str], None],
    away_s_max: float = AWAY_S_MAX,
    is_new: bool = False,
) -> Iterator[Json]:
    """Each status as it changes, the present one first; ends after a terminal one."""
    heard_at = time.monotonic()
    last_id: str | None = None
    deaf_count = 0
    is_said = False
    while True:
        is_polling = deaf_count >= _DEAF_MAX
        try:
            if is_polling:
                source = iter([(last_id, service.get(f"/api/imports/{import_id}"))])
            else:
                source = _events(service, import_id, last_id)
            for event_id, status in source:
                last_id = event_id
                heard_at, deaf_count, is_said = time.monotonic(), 0 if not is_polling else deaf_count, False
                yield status
                if status.get("state") in TERMINAL:
                    return
            deaf_count += 1
            time.sleep(_POLL_S if is_polling else _REOPEN_S)
            continue
        except _NoStream:
            deaf_count = _DEAF_MAX
            continue
        except (httpx.TransportError, httpx.DecodingError) as error:
            trouble: Exception = error
        except Refused as refused:
            is_late = refused.status == 404 and is_new and time.monotonic() - heard_at < _UNKNOWN_S_MAX
            if refused.status < 500 and not is_late:
                raise
            trouble = refused
        if time.monotonic() - heard_at > away_s_max:
            raise _lost(service, import_id, trouble, away_s_max) from trouble
        if not is_said:
            say(
                f"the service does not answer; trying for {away_s_max:.0f} s. The import goes on when it is back."
            )
            is_said = True
        time.sleep(_AGAIN_S)


def _lost(service: Service, import_id: str, trouble: Exception, away_s_max: float) -> Failure:
    return Failure(
        f"The service at {service.url} was not heard for {away_s_max:.0f} s",
        why=str(trouble) or type(trouble).__name__,
        todo=f"The import is not lost. When the service is back: paperlog watch {import_id}",
    )


def _events(service: Service, import_id: str, last_id: str | None) -> Iterator[tuple[str | None, Json]]:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
    with service.stream(f"/api/imports/{import_id}/events", headers=headers) as response:
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise _NoStream
        yield from read_events(response.iter_bytes())


def read_events(pieces: Iterator[bytes]) -> Iterator[tuple[str | None, Json]]:
    """The `status` events of a stream with their ids; heartbeats, other events and half a last one are left out."""
    name, event_id = "", None
    data: list[str] = []
    for line in _lines(pieces):
        if not line:
            if data and name in ("", "message", "status"):
                yield event_id, _object("\n".join(data))
            if name == "end":
                return
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            event_id = value


def _object(text: str) -> Json:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise httpx.DecodingError("an event is not JSON") from error
    if not isinstance(value, dict):
        raise httpx.DecodingError("an event is not an object")
    return value


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Split at line feeds alone: `str.splitlines` would also split at letters that stand inside a title."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
