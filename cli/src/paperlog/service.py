"""The service's HTTP as the command uses it: one place that asks, tries again and turns answers into failures.

Everything asked here may be asked twice: blobs are named by their hash, imports by their key, the rest reads or says
the same again. So a service that restarts in the middle costs a wait. It knows paths and problem documents, not what
the answers mean.
"""

import contextlib
import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from paperlog.failures import WRONG_USAGE, Failure, Refused

DEFAULT_URL = "http://127.0.0.1:8800"
PATIENCE_S = 60.0
"""How long a service that has answered before may be away."""
_RETRY_S = 0.5
_RETRY_S_MAX = 5.0
_AWAY = frozenset({502, 503, 504})
_QUERY_TIMEOUT = httpx.Timeout(60.0, connect=5.0, write=60.0)
_VERIFY_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
_STREAM_TIMEOUT = httpx.Timeout(60.0, connect=5.0, read=45.0)
"""Three heartbeats of 15 s."""

Json = dict[str, Any]


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise Failure(
            f"{url!r} is not the address of a service",
            todo=f"Write --url {DEFAULT_URL} or set PAPERLOG_URL.",
            code=WRONG_USAGE,
        )
    return url.rstrip("/")


class Service:
    """`say` gets a sentence when it has to wait."""

    def __init__(
        self,
        url: str,
        *,
        patience_s: float = PATIENCE_S,
        say: Callable[[str], None],
    ) -> None:
        self.url = checked_url(url)
        self._patience_s = patience_s
        self._say = say
        self._has_answered = False
        self._client = httpx.Client(
            base_url=self.url,
            timeout=_QUERY_TIMEOUT,
            # A proxy is for the world, not for a service on this machine.
            trust_env=not is_loopback(self.url),
            # Loading the machine's authorities takes longer than most questions; without TLS nobody asks them.
            verify=urlsplit(self.url).scheme == "https",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **params: str | int | None) -> Json:
        return self._object(self._ask("GET", path, params=_given(params)))

    def post(
        self, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, is_slow: bool = False
    ) -> tuple[int, Json]:
        """The status, for where 200 and 202 differ, and the answer."""
        content = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})} if content is not None else headers
        response = self._ask(
            "POST",
            path,
            content=None if content is None else (lambda: content),
            headers=sent,
            timeout=_VERIFY_TIMEOUT if is_slow else _QUERY_TIMEOUT,
        )
        return response.status_code, self._object(response)

    def has(self, path: str) -> bool:
        return self._ask("HEAD", path, accepted=(404,)).status_code != 404

    def put(self, path: str, content: Callable[[], Iterator[bytes]], size_bytes: int) -> None:
        """`content` is called once per try."""
        headers = {"Content-Length": str(size_bytes), "Content-Type": "application/octet-stream"}
        self._ask("PUT", path, content=content, headers=headers)

    @contextlib.contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, **params: str | int | None
    ) -> Iterator[httpx.Response]:
        """One try, the body unread. Raises `httpx.TransportError` as it comes, also while the body is read."""
        with self._client.stream(
            "GET", path, params=_given(params), headers=headers, timeout=_STREAM_TIMEOUT
        ) as response:
            self._has_answered = True
            if response.status_code >= 400:
                response.read()
                raise _refused(response)
            yield response

    def not_there(self, error: Exception) -> Failure:
        why = str(error) or type(error).__name__
        if self._has_answered:
            return Failure(
                f"The service at {self.url} does not answer any more",
                why=why,
                todo="Look at where `paperlog up` runs. What it has accepted goes on when it is back; "
                "the same command may be given again.",
            )
        return Failure(
            f"No Paperlog answers at {self.url}",
            why=why,
            todo="Start it with `paperlog up`, or name another one with --url or PAPERLOG_URL.",
        )

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], bytes | Iterator[bytes]] | None = None,
        timeout: httpx.Timeout = _QUERY_TIMEOUT,
        accepted: tuple[int, ...] = (),
    ) -> httpx.Response:
        deadline = time.monotonic() + self._patience_s
        is_said = False
        while True:
            failure: Failure
            wait_s = _RETRY_S
            try:
                response = self._client.request(
                    method,
                    path,
                    params=params,
                    headers=headers,
                    content=None if content is None else content(),
                    timeout=timeout,
                )
            except httpx.InvalidURL as error:
                raise Failure(
                    "This is too long to be asked", todo="Write fewer words.", code=WRONG_USAGE
                ) from error
            except httpx.TransportError as error:
                failure = self.not_there(error)
                if not self._has_answered:
                    raise failure from error
            else:
                self._has_answered = True
                if response.status_code < 400 or response.status_code in accepted:
                    return response
                failure = _refused(response)
                if response.status_code not in _AWAY or not failure.is_retryable:
                    raise failure
                wait_s = _retry_after_s(response)
            if time.monotonic() + wait_s > deadline:
                raise failure
            if not is_said:
                reason = failure.why.partition("\n")[0] if isinstance(failure, Refused) else ""
                words = (reason or failure.what).rstrip(".")
                self._say(f"{words}; trying for {self._patience_s:.0f} s")
                is_said = True
            time.sleep(wait_s)

    def _object(self, response: httpx.Response) -> Json:
        try:
            value = response.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise self.stranger()
        return value

    def stranger(self) -> Failure:
        return Failure(
            f"What answers at {self.url} is not Paperlog",
            todo="Is another program on this port? Name the right address with --url or PAPERLOG_URL.",
        )


def _given(params: Mapping[str, str | int | None]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items() if value is not None}


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return min(max(float(response.headers.get("Retry-After", _RETRY_S)), 0.1), _RETRY_S_MAX)
    except ValueError:
        return _RETRY_S


def _refused(response: httpx.Response) -> Refused:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "title" not in problem:
        problem = {"title": f"{response.request.url} answered HTTP {response.status_code}"}
        if response.status_code in _AWAY:
            problem["retryable"] = True
    return Refused(response.status_code, problem)
