"""What the adapter makes of a Qdrant server's answers, given in the server's shape over a real socket."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from graph_writer.settings import Settings, StoreKind
from graph_writer.stores import qdrant
from graph_writer.stores.qdrant import QdrantStore, connect
from graph_writer.stores.store import Collection, Point, StoreAway, StoreLost, StoreMismatch

GRAPH = Collection(name="graph", dims=2)
SECRET = "s3cr3t-key"


def settings(url: str) -> Settings:
    return Settings(
        kafka_bootstrap_servers="127.0.0.1:1",
        http_port=0,
        data_dir=Path("unused"),
        store=StoreKind.QDRANT,
        qdrant_url=url,
        qdrant_api_key=SECRET,
    )


@asynccontextmanager
async def answering(
    status: int, body: object, headers: dict[str, str] | None = None
) -> AsyncIterator[QdrantStore]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    with pytest.warns(UserWarning, match="Api key is used with an insecure connection"):
        store = connect(settings(f"http://127.0.0.1:{port}"))
    try:
        yield store
    finally:
        await store.close()
        await runner.cleanup()


def error(text: str) -> dict[str, object]:
    return {"status": {"error": text}, "time": 0.0}


async def test_a_server_that_is_too_busy_is_away_for_as_long_as_it_says():
    async with answering(429, error("too many"), {"Retry-After": "7"}) as store:
        with pytest.raises(StoreAway, match="too many") as caught:
            await store.count("graph")
        assert caught.value.retry_after_s == 7.0
    async with answering(503, error("starting"), {"Retry-After": "3"}) as store:
        with pytest.raises(StoreAway, match="starting") as caught:
            await store.count("graph")
        assert caught.value.retry_after_s == 3.0


async def test_what_was_sent_is_gone_when_it_is_answered():
    """And not only when the collector of cycles comes, for it comes seldom and counts objects, not bytes."""
    async with answering(200, {"result": {"count": 3}, "status": "ok", "time": 0.0}) as store:
        await store.count("graph")
        gc.collect()
        gc.disable()
        try:
            others = _requests()  # kept here, so that none of ours takes the place of one in memory
            assert await store.count("graph") == 3
            held = [one for one in _requests() if not any(one is other for other in others)]
        finally:
            gc.enable()
    assert not held


def _requests() -> list[httpx.Request]:
    return [one for one in gc.get_objects() if isinstance(one, httpx.Request)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_waited_out(status: int):
    async with answering(status, error("for a while")) as store:
        with pytest.raises(StoreAway, match=str(status)) as caught:
            await store.count("graph")
        assert caught.value.retry_after_s is None


async def test_a_retry_after_that_is_no_number_is_still_away():
    async with answering(429, error("x"), {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}) as store:
        with pytest.raises(StoreAway):
            await store.count("graph")


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_what_only_an_operator_can_mend_is_a_mismatch_that_names_no_secret(status: int):
    async with answering(status, error("dimension error: expected 8, got 3")) as store:
        with pytest.raises(StoreMismatch, match=f"{status}.*expected 8") as caught:
            await store.count("graph")
        assert SECRET not in f"{caught.value!r} {store!r} {settings('http://x')!r}"


async def test_a_collection_that_is_gone_is_a_lost_store():
    async with answering(404, error("Not found: Collection `graph` doesn't exist!")) as store:
        with pytest.raises(StoreLost, match="graph"):
            await store.count("graph")


async def test_an_answer_of_another_program_is_a_mismatch():
    async with answering(200, {"hello": "world"}) as store:
        with pytest.raises(StoreMismatch):
            await store.open(GRAPH)


async def test_no_server_is_away(unused_tcp_port: int):
    with pytest.warns(UserWarning, match="insecure"):
        store = connect(settings(f"http://127.0.0.1:{unused_tcp_port}"))
    with pytest.raises(StoreAway, match="ClientConnectorError"):
        await store.open(GRAPH)
    await store.close()


@asynccontextmanager
async def saying(said: bytes) -> AsyncIterator[QdrantStore]:
    """A listener that reads what it is asked, says this and hangs up; that says nothing hangs up when all is over."""
    is_over = asyncio.Event()

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        if not said:
            await is_over.wait()
        writer.close()

    listener = await asyncio.start_server(say, "127.0.0.1", 0)
    with pytest.warns(UserWarning, match="insecure"):
        store = connect(settings(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"))
    try:
        yield store
    finally:
        await store.close()
        is_over.set()
        listener.close()
        await listener.wait_closed()


async def test_a_server_that_takes_the_call_and_says_nothing_is_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(qdrant, "TIMEOUT_S", 1)
    async with saying(b"") as store:
        with pytest.raises(StoreAway, match="SocketTimeoutError"):
            await store.count("graph")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", id="cut off in the body"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", id="cut off in the head"),
    ],
)
async def test_an_answer_that_is_none_is_away(said: bytes):
    async with saying(said) as store:
        with pytest.raises(StoreAway, match="no answer from the Qdrant server"):
            await store.count("graph")


async def test_a_proxy_of_the_environment_is_used_but_for_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
        writer.write(b"HTTP/1.1 503 Away\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "far.invalid")
    for host, why in (("store.invalid", "503"), ("far.invalid", "ClientConnectorDNSError")):
        with pytest.warns(UserWarning, match="insecure"):
            store = connect(settings(f"http://{host}:6333"))
        with pytest.raises(StoreAway, match=why):
            await store.count("graph")
        await store.close()
    assert asked == ["POST http://store.invalid:6333/collections/graph/points/count HTTP/1.1"]
    listener.close()
    await listener.wait_closed()


async def test_a_server_that_would_ignore_conditions_is_refused():
    async with answering(200, {"title": "qdrant - vector search engine", "version": "1.15.4"}) as store:
        with pytest.raises(StoreMismatch, match=r"1\.15\.4.*install 1\.17"):
            await store.open(GRAPH)


async def test_a_server_of_an_unexpected_version_is_said(caplog: pytest.LogCaptureFixture):
    said = {"title": "qdrant", "version": "2.3.0", "result": {"aliases": []}}
    async with answering(200, said) as store:
        with pytest.raises(StoreMismatch):  # this stand-in makes no collections
            await store.open(GRAPH)
    (line,) = [one for one in caplog.records if one.msg == "store.version_unexpected"]
    assert line.fields["server"] == "2.3.0"


async def test_nothing_is_asked_of_the_server_where_nothing_is_to_be_done(unused_tcp_port: int):
    with pytest.warns(UserWarning, match="insecure"):
        store = connect(settings(f"http://127.0.0.1:{unused_tcp_port}"))
    assert await store.get("graph", []) == {}
    none: list[Point] = []
    await store.upsert("graph", none)
    await store.delete("graph", [])
    await store.close()
