"""A Qdrant server as the store: shared by several writers, so every ordered write carries its condition with it.

Readers and writers go through an alias, `graph` or a space's slug with the stack's prefix, which can be switched in
one call; the collection behind it says in its metadata which space and keywords it was made for, and which it is.
Every write waits until it is applied, and the server logs it first: a flush has nothing left to do but to look whether
the collections are still those that were opened.

What the server does is translated here, once: `StoreAway` for what may pass (no connection, time-outs, 429, 5xx),
`StoreLost` for a collection that is gone, `StoreMismatch` for what only an operator can mend.
"""

import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from uuid import UUID

import aiohttp
import httpx
import numpy as np
from httpx_aiohttp import AiohttpTransport
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as q
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.common.version_check import is_compatible
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from eventlog.logs import Logger
from eventlog.topics import Names
from graph_writer.settings import Settings
from graph_writer.stores.store import (
    Collection,
    Hit,
    Order,
    Point,
    StoreAway,
    StoreLost,
    StoreMismatch,
    Swap,
    Where,
    Words,
)

DENSE = "dense"
WORDS = "words"
VERSION_MIN = (1, 17)
"""Older servers take an upsert's condition and ignore it without a word."""
TIMEOUT_S = 30
CONNECTIONS_MAX = 16
_MESSAGE_LENGTH_MAX = 300

_log = Logger("graph_writer.qdrant")
T = TypeVar("T")


def connect(settings: Settings) -> "QdrantStore":
    """Reaches for nothing yet: an absent server is a `StoreAway` of the first call."""
    client = AsyncQdrantClient(
        url=settings.qdrant_url,
        api_key=settings.qdrant_api_key.get_secret_value() or None,
        timeout=TIMEOUT_S,
        check_compatibility=False,  # it warns from a thread; `open` looks itself
        # The transport of httpx itself takes up to twice the processor time of a call (docs/decisions/0016).
        transport=AiohttpTransport(
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX), proxy=_proxy(settings.qdrant_url)
        ),
    )
    client.http.client.add_middleware(_let_go)
    return QdrantStore(client, prefix=settings.prefix)


def _proxy(url: str) -> httpx.Proxy | None:
    """As the environment says (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`), read once and not for each call."""
    parts = urlsplit(url)
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return None if found is None or proxy_bypass(parts.hostname or "") else httpx.Proxy(found)


async def _let_go(
    request: httpx.Request, send: Callable[[httpx.Request], Awaitable[httpx.Response]]
) -> httpx.Response:
    """An answer of httpx and its stream hold each other: vectors would stay in memory until the collector of cycles comes."""
    answer = await send(request)
    answer.stream = httpx.ByteStream(b"")
    return answer


class QdrantStore:
    is_shared = True

    def __init__(self, client: AsyncQdrantClient, *, prefix: str = "") -> None:
        self._client = client
        self._names = Names(prefix)
        self._opened: dict[str, tuple[Collection, str]] = {}
        """With what tells each collection from another that is made under its name later."""
        self._is_version_checked = False

    async def open(self, collection: Collection) -> None:
        await self._check_version()
        alias = self._names.of(collection.name)
        if alias not in await self._aliases():
            await self._make(collection, alias)
        made = await self._made(alias)
        wanted = {"space": collection.space, "keywords": collection.keywords}
        found = {name: made.get(name) for name in wanted}
        if found != wanted:
            raise StoreMismatch(f"{alias} was made with {found}, not {wanted}")
        self._opened[collection.name] = (collection, str(made.get("id")))

    async def get(
        self,
        collection: str,
        ids: Iterable[UUID],
        *,
        fields: Sequence[str] | None = None,
        with_vector: bool = False,
    ) -> dict[UUID, Point]:
        wanted = [str(one) for one in ids]
        if not wanted:
            return {}
        call = self._client.retrieve(
            self._names.of(collection),
            wanted,
            with_payload=True if fields is None else list(fields),
            with_vectors=[DENSE] if with_vector and self._has_vectors(collection) else False,
        )
        return {point.id: point for point in map(_point, await _answer(call))}

    async def scroll(
        self,
        collection: str,
        where: Where,
        *,
        limit: int,
        after: UUID | None = None,
        fields: Sequence[str] | None = None,
        with_vector: bool = False,
    ) -> tuple[list[Point], UUID | None]:
        call = self._client.scroll(
            self._names.of(collection),
            scroll_filter=_filter(where),
            limit=limit,
            offset=None if after is None else str(after),
            with_payload=True if fields is None else list(fields),
            with_vectors=[DENSE] if with_vector and self._has_vectors(collection) else False,
        )
        records, following = await _answer(call)
        return [_point(record) for record in records], None if following is None else UUID(str(following))

    async def upsert(self, collection: str, points: Sequence[Point], *, order: Order | None = None) -> None:
        if not points:
            return
        call = self._client.upsert(
            self._names.of(collection),
            [self._struct(collection, point) for point in points],
            update_filter=None if order is None else _not_above(order),
            wait=True,
        )
        await _answer(call)

    async def delete(self, collection: str, ids: Sequence[UUID], *, order: Order | None = None) -> None:
        if not ids:
            return
        must: list[Any] = [q.HasIdCondition(has_id=[str(one) for one in ids])]
        if order is not None:
            must.append(_not_above(order))
        selector = q.FilterSelector(filter=q.Filter(must=must))
        await _answer(self._client.delete(self._names.of(collection), selector, wait=True))

    async def swap(self, collection: str, swaps: Sequence[Swap]) -> bool:
        """Looks afterwards whether ours is what stands there: a try whose answer was lost has succeeded, too."""
        operations = [
            q.UpsertOperation(
                upsert=q.PointsList(
                    points=[self._struct(collection, Point(id=swap.id, payload=swap.new))],
                    update_filter=None
                    if swap.expected is None
                    else q.Filter(must=[_has(swap.field, swap.expected)]),
                    update_mode=q.UpdateMode.INSERT_ONLY
                    if swap.expected is None
                    else q.UpdateMode.UPDATE_ONLY,
                )
            )
            for swap in swaps
        ]
        await _answer(self._client.batch_update_points(self._names.of(collection), operations, wait=True))
        found = await self.get(collection, [swap.id for swap in swaps])
        return all(swap.id in found and found[swap.id].payload == swap.new for swap in swaps)

    async def nearest(
        self, collection: str, query: bytes | Words, where: Where, *, limit: int, fields: Sequence[str]
    ) -> list[Hit]:
        is_words = isinstance(query, Words)
        call = self._client.query_points(
            self._names.of(collection),
            query=_sparse(query) if isinstance(query, Words) else _floats(query),
            using=WORDS if is_words else DENSE,
            query_filter=_filter(where),
            limit=limit,
            with_payload=list(fields),
        )
        found = await _answer(call)
        return [Hit(id=UUID(str(one.id)), score=one.score, payload=one.payload or {}) for one in found.points]

    async def count(self, collection: str) -> int:
        return (await _answer(self._client.count(self._names.of(collection), exact=True))).count

    async def flush(self) -> None:
        await self.check()

    async def check(self) -> None:
        for name, (_, id_) in self._opened.items():
            alias = self._names.of(name)
            if (await self._made(alias)).get("id") != id_:
                raise StoreLost(f"{alias} is another collection now")

    async def close(self) -> None:
        await self._client.close()

    async def _check_version(self) -> None:
        if self._is_version_checked:
            return
        server, client = (await _answer(self._client.info())).version, version("qdrant-client")
        major, minor = (int(number) for number in server.split(".")[:2])
        if (major, minor) < VERSION_MIN:
            least = ".".join(str(number) for number in VERSION_MIN)
            raise StoreMismatch(
                f"the Qdrant server is of version {server}: install {least} or newer, "
                "for an older one ignores the conditions that keep older content from overwriting newer"
            )
        if not is_compatible(client, server):
            _log.warning("store.version_unexpected", server=server, client=client)
        self._is_version_checked = True

    async def _aliases(self) -> dict[str, str]:
        found = await _answer(self._client.get_aliases())
        return {one.alias_name: one.collection_name for one in found.aliases}

    async def _made(self, alias: str) -> dict[str, Any]:
        return (await _answer(self._client.get_collection(alias))).config.metadata or {}

    async def _make(self, collection: Collection, alias: str) -> None:
        """Another writer may be making the same one: what it made is taken, and looked at by `open`."""
        name = f"{alias}-1"
        vectors = {DENSE: q.VectorParams(size=collection.dims, distance=q.Distance.DOT)}
        words = {WORDS: q.SparseVectorParams(modifier=q.Modifier.IDF)}
        call = self._client.create_collection(
            name,
            vectors_config=vectors if collection.has_words else {},
            sparse_vectors_config=words if collection.has_words else None,
            # Deleting by id and revision filters by a field that needs no index beside the ids.
            strict_mode_config=q.StrictModeConfig(enabled=False),
            metadata={
                "space": collection.space,
                "keywords": collection.keywords,
                "id": str(uuid.uuid4()),
            },
        )
        try:
            await _answer(call)
        except _Exists:
            _log.info("collection.made_elsewhere", collection=name)
        indexes: dict[str, Any] = {
            "project_id": q.UuidIndexParams(type=q.UuidIndexType.UUID, is_tenant=True),
            "document_id": q.UuidIndexParams(type=q.UuidIndexType.UUID),
            "kind": q.KeywordIndexParams(type=q.KeywordIndexType.KEYWORD),
        }
        for field, how in indexes.items():
            await _answer(self._client.create_payload_index(name, field, how, wait=True))
        create = q.CreateAlias(collection_name=name, alias_name=alias)
        await _answer(self._client.update_collection_aliases([q.CreateAliasOperation(create_alias=create)]))

    def _has_vectors(self, collection: str) -> bool:
        return self._opened[collection][0].has_words

    def _struct(self, collection: str, point: Point) -> q.PointStruct:
        vectors: dict[str, Any] = {}
        if self._has_vectors(collection):
            if point.vector:
                vectors[DENSE] = _floats(point.vector)
            if point.words is not None and len(point.words.indices):
                vectors[WORDS] = _sparse(point.words)
        return q.PointStruct(id=str(point.id), vector=vectors, payload=point.payload)


class _Exists(StoreMismatch):
    """A collection of that name is there already."""


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except ResourceExhaustedResponse as error:
        raise StoreAway(_cut(error.message), retry_after_s=float(error.retry_after_s)) from None
    except QdrantException as error:  # a Retry-After that is no number
        raise StoreAway(_cut(str(error))) from None
    except ResponseHandlingException as error:
        if isinstance(error.source, httpx.TransportError | aiohttp.ClientError | OSError):
            # The transport calls every lost connection a time-out; what it was is behind that.
            why = error.source.__cause__ or error.source
            raise StoreAway(f"no answer from the Qdrant server at QDRANT_URL: {type(why).__name__}") from None
        raise StoreMismatch(
            f"the Qdrant server's answer was not understood: {type(error.source).__name__}"
        ) from None
    except UnexpectedResponse as error:
        raise _translated(error) from None


def _translated(error: UnexpectedResponse) -> Exception:
    status = error.status_code or 0
    said = f"the Qdrant server answers {status}: {_cut(error.content.decode('utf-8', 'replace'))}"
    if status in (408, 425, 429) or status >= 500:
        after = error.headers.get("retry-after", "")
        return StoreAway(said, retry_after_s=float(after) if after.isdecimal() else None)
    if status in (401, 403):
        return StoreMismatch(f"{said}; look at QDRANT_API_KEY")
    if status == 404:
        return StoreLost(said)
    return _Exists(said) if status == 409 else StoreMismatch(said)


def _cut(text: str) -> str:
    return text[:_MESSAGE_LENGTH_MAX]


def _point(record: Any) -> Point:
    dense = (record.vector or {}).get(DENSE)
    vector = b"" if dense is None else np.asarray(dense, dtype="<f4").tobytes()
    return Point(id=UUID(str(record.id)), payload=record.payload or {}, vector=vector)


def _floats(vector: bytes) -> list[float]:
    found: list[float] = np.frombuffer(vector, dtype="<f4").tolist()
    return found


def _sparse(words: Words) -> q.SparseVector:
    return q.SparseVector(indices=list(words.indices), values=list(words.values))


def _filter(where: Where) -> q.Filter | None:
    must: list[Any] = []
    if where.project_id is not None:
        must.append(_has("project_id", str(where.project_id)))
    if where.document_ids:
        any_of = q.MatchAny(any=[str(one) for one in where.document_ids])
        must.append(q.FieldCondition(key="document_id", match=any_of))
    if where.kinds:
        must.append(q.FieldCondition(key="kind", match=q.MatchAny(any=list(where.kinds))))
    return q.Filter(must=must) if must else None


def _has(field: str, value: str | int) -> q.FieldCondition:
    return q.FieldCondition(key=field, match=q.MatchValue(value=value))


def _not_above(order: Order) -> q.Filter:
    revision, attempt = order
    not_later = q.FieldCondition(key="attempt", range=q.Range(lte=attempt))
    return q.Filter(
        should=[
            q.FieldCondition(key="revision", range=q.Range(lt=revision)),
            q.Filter(must=[_has("revision", revision), not_later]),
        ]
    )
