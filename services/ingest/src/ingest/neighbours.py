"""The two other services as ingest's reads see them: a query's vector, the store's answers, and who is ready.

A read may cross over HTTP; the work never does. Nothing here retries: whoever asks can ask again.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from eventlog.clock import Clock
from eventlog.ids import ProjectId
from eventlog.logs import Logger
from ingest.settings import Embedders

EMBED_TIMEOUT_S = 5.0
SEARCH_TIMEOUT_S = 15.0
VERIFY_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 2.0
READY_KEPT_S = 5.0
NOT_READY_KEPT_S = 0.5
"""Who starts is ready soon, and whoever waits for us waits for that."""

_log = Logger("ingest.neighbours")


class NeighbourAway(Exception):  # noqa: N818 - the name says what happened
    """Not reachable, too slow, or not ready; `reasons` are the neighbour's own codes where it gave any."""

    def __init__(self, name: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(f"{name} does not answer")
        self.name = name
        self.reasons = reasons


class NeighbourRefused(Exception):  # noqa: N818 - the name says what happened
    """It answered, with a code for what is wrong with the request."""

    def __init__(self, name: str, status: int, code: str) -> None:
        super().__init__(f"{name} answered {status} {code}")
        self.name = name
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    is_reachable: bool
    is_ready: bool
    reasons: tuple[str, ...] = ()
    unreachable_s: float = 0.0
    """For how long nobody has answered, as far as we looked."""


class ReadinessCache:
    """`/readyz` of the neighbours, one question at a time: seldom while one is ready, soon when it is not, but not so soon
    that who asks here would wait most of the time for one that answers late.
    """

    def __init__(self, client: httpx.AsyncClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[str, tuple[float, Readiness]] = {}
        """Until when, and what."""
        self._gone_since_s: dict[str, float] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def of(self, url: str) -> Readiness:
        async with self._locks.setdefault(url, asyncio.Lock()):
            asked_s = self._clock.monotonic_s()
            until_s, kept = self._kept.get(url, (float("-inf"), None))
            if kept is None or asked_s >= until_s:
                kept = await self._ask(url)
                now_s = self._clock.monotonic_s()
                kept_s = READY_KEPT_S if kept.is_ready else max(NOT_READY_KEPT_S, now_s - asked_s)
                self._kept[url] = (now_s + kept_s, kept)
            return kept

    async def _ask(self, url: str) -> Readiness:
        try:
            answer = await self._client.get(f"{url}/readyz", timeout=READY_TIMEOUT_S)
            body = answer.json()
            reasons = tuple(str(reason)[:50] for reason in body.get("reasons", ()))
        except (httpx.HTTPError, ValueError, AttributeError, TypeError):
            now_s = self._clock.monotonic_s()
            since_s = self._gone_since_s.setdefault(url, now_s)
            return Readiness(is_reachable=False, is_ready=False, unreachable_s=now_s - since_s)
        self._gone_since_s.pop(url, None)
        return Readiness(is_reachable=True, is_ready=answer.status_code == 200, reasons=reasons)


class EmbedderClient:
    def __init__(self, client: httpx.AsyncClient, embedders: Embedders) -> None:
        self._client = client
        self._embedders = embedders

    async def query_vector(self, space: str, text: str) -> str | None:
        """The query side's vector in base64, or null when no embedder for that space answers in time."""
        url = self._embedders.url_of(space)
        if url is None:
            return None
        try:
            async with asyncio.timeout(EMBED_TIMEOUT_S):
                answer = await self._client.post(f"{url}/embed", json={"text": text, "side": "query"})
                vector = answer.raise_for_status().json()["vector"]
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as error:
            _log.warning("search.no_vector", space=space, error=type(error).__name__)
            return None
        return vector if isinstance(vector, str) else None


class GraphWriterClient:
    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self.url = url.rstrip("/")

    async def search(self, query: Mapping[str, Any]) -> dict[str, Any]:
        return await self._post("/search", query, SEARCH_TIMEOUT_S)

    async def verify(self, page: Mapping[str, Any]) -> dict[str, Any]:
        return await self._post("/verify", page, VERIFY_TIMEOUT_S)

    async def _post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            answer = await self._client.post(f"{self.url}{path}", json=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            _log.warning("graph_writer.away", path=path, error=type(error).__name__)
            raise NeighbourAway("graph-writer") from None
        # httpx ties an answer and its stream to each other: the question, megabytes of a large import's chunks, would
        # stay in memory until the collector looks at its oldest objects.
        answer.stream = httpx.ByteStream(b"")
        _raise_for(answer.status_code, answer.content)
        found = _json(answer.content)
        if not isinstance(found, dict):
            raise NeighbourRefused("graph-writer", answer.status_code, "answer_invalid")
        return found

    async def graph(self, project: ProjectId, limit: int | None) -> AsyncIterator[bytes]:
        """The graph as it comes; the first piece is asked for before this returns, so that refusals are seen."""
        params = {} if limit is None else {"limit": limit}
        request = self._client.build_request(
            "GET", f"{self.url}/projects/{quote(str(project))}/graph", params=params, timeout=VERIFY_TIMEOUT_S
        )
        try:
            answer = await self._client.send(request, stream=True)
            if answer.status_code != 200:
                body = await answer.aread()
                await answer.aclose()
                _raise_for(answer.status_code, body)
        except httpx.HTTPError as error:
            _log.warning("graph_writer.away", path="/graph", error=type(error).__name__)
            raise NeighbourAway("graph-writer") from None
        return _pieces(answer)


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_bytes():
            yield piece
    finally:
        await answer.aclose()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _raise_for(status: int, body: bytes) -> None:
    if status == 200:
        return
    found = _json(body)
    fields = found if isinstance(found, dict) else {}
    code = str(fields.get("code", ""))[:50]
    if status == 503:
        reasons = fields.get("reasons")
        raise NeighbourAway(
            "graph-writer", tuple(str(one)[:50] for one in reasons) if isinstance(reasons, list) else (code,)
        )
    _log.warning("graph_writer.refused", status=status, code=code)
    raise NeighbourRefused("graph-writer", status, code)
