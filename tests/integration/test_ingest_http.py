"""Ingest's HTTP on a real socket: streams, broken-off uploads, memory, and a foreign client of the registry."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from tests.unit.ingest_http.world import T0, World, sha256

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import seal
from eventlog.events import ImportCancelled
from eventlog.ids import new_import_id, project_id
from ingest.http import imports

WAIT_S = 10.0


class Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        pass


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, prefix="t1")
    server = Server(
        uvicorn.Config(made.app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=2)
    )
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    made.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
    yield made
    await made.http.aclose()
    server.should_exit = True
    await serving
    made.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is on the other side of a socket
            await asyncio.sleep(0.01)


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, str, dict[str, object]]]:
    found: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line and "data" in found:
            yield found["event"], found["id"], json.loads(found["data"])
            found = {}
        elif ": " in line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


# --- the stream of progress --------------------------------------------------------------------------------------


async def test_a_watcher_hears_the_present_then_each_change_then_the_end(world: World):
    made = (await world.ask({"a.pdf": b"a"})).json()
    url = f"/api/imports/{made['import_id']}/events"
    async with asyncio.timeout(WAIT_S), world.http.stream("GET", url) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        heard = events(answer)
        name, _, status = await anext(heard)
        assert (name, status["state"]) == ("status", "parsing")
        assert (await world.http.post(f"/api/imports/{made['import_id']}/cancel")).status_code == 202
        name, position, status = await anext(heard)
        assert (name, status["state"]) == ("status", "cancelled")
        assert int(position) < world.projection.position
        assert (await anext(heard))[0] == "end"
        with pytest.raises(StopAsyncIteration):
            await anext(heard)


async def test_a_watcher_who_comes_back_is_not_told_again(world: World):
    made = (await world.ask({"a.pdf": b"a"})).json()
    url = f"/api/imports/{made['import_id']}/events"
    async with asyncio.timeout(WAIT_S):
        async with world.http.stream("GET", url) as answer:
            _, position, _ = await anext(events(answer))
        async with world.http.stream("GET", url, headers={"Last-Event-ID": position}) as answer:
            heard = events(answer)
            first = asyncio.ensure_future(anext(heard))
            await asyncio.sleep(0)
            await world.http.post(f"/api/imports/{made['import_id']}/cancel")
            assert (await first)[2]["state"] == "cancelled"


async def test_a_quiet_stream_beats(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(imports, "HEARTBEAT_S", 0.0)
    monkeypatch.setattr(imports, "LOOKED_AT_S", 0.01)
    made = (await world.ask({"a.pdf": b"a"})).json()
    async with (
        asyncio.timeout(WAIT_S),
        world.http.stream("GET", f"/api/imports/{made['import_id']}/events") as answer,
    ):
        comments = (line async for line in answer.aiter_lines() if line.startswith(":"))
        assert await anext(comments) == ": heartbeat"


# --- uploads that break off --------------------------------------------------------------------------------------


async def broken_off(world: World, head: bytes, body: bytes) -> None:
    """Sends a part of a request, waits until some of it has arrived, and hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.http.base_url.port)
    writer.write(head + body)
    await writer.drain()
    await until(lambda: any(size for size in incoming(world)))
    writer.close()
    del reader
    await until(lambda: world.blob_files() == [])


def incoming(world: World) -> list[int]:
    return [
        path.stat().st_size
        for path in (world.folder / "blobs").rglob("*")
        if path.is_file() and path.name != ".lock"
    ]


def a_head(method: str, path: str, length: int, content_type: str) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\nContent-Type: {content_type}\r\n\r\n"
    ).encode()


async def test_an_upload_that_breaks_off_leaves_nothing(world: World):
    body = b"x" * 3_000_000
    await broken_off(
        world, a_head("PUT", f"/api/blobs/{sha256(b'whole')}", 9_000_000, "application/octet-stream"), body
    )
    await broken_off(world, a_head("POST", "/api/blobs", 9_000_000, "application/octet-stream"), body)
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="%d.pdf"\r\n\r\n'
    form = part % 1 + b"whole\r\n" + part % 2 + body
    await broken_off(
        world, a_head("POST", "/api/imports", 9_000_000, "multipart/form-data; boundary=b"), form
    )
    assert world.commands.appended == []
    assert (await world.http.get("/livez")).status_code == 200


async def test_a_client_that_is_still_sending_hears_why_it_was_refused(world: World):
    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="../x"\r\n\r\n'
        for _ in range(100):
            yield bytes(65_536)
        yield b"\r\n--b--\r\n"

    answer = await world.http.post(
        "/api/imports", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "name_invalid")
    assert world.blob_files() == []


async def test_a_small_form_that_is_damaged_is_answered_at_once(world: World):
    """All of its body has come when the damage is found: nobody waits for more of it."""
    name = "x" * 6000
    form = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}.pdf"\r\n\r\nx\r\n--b--\r\n'
    for body in (form.encode(), b"--b\r\nnonsense", b"nothing"):
        async with asyncio.timeout(10):
            answer = await world.http.post(
                "/api/imports", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
            )
        assert answer.status_code == 422
        assert answer.json()["action"]


SERVE = """
import asyncio, sys, pathlib
import uvicorn
from tests.unit.ingest_http.world import World

async def main():
    world = World(pathlib.Path(sys.argv[1]))
    server = uvicorn.Server(uvicorn.Config(world.app, host="127.0.0.1", port=0, log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving

asyncio.run(main())
"""


def anonymous_mb(pid: int) -> float:
    with Path(f"/proc/{pid}/smaps_rollup").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:")) / 1024


@pytest.mark.parametrize("way", ["raw", "form", "zip"])
def test_memory_does_not_grow_with_an_upload(way: str, tmp_path: Path):
    size_mb = 120
    block = hashlib.sha256(b"").digest() * 32 * 1024  # 1 MiB
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path / "world")], stdout=subprocess.PIPE, cwd=Path.cwd(),
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            httpx.get(f"{url}/livez")
            before_mb = anonymous_mb(server.pid)
            peak_mb, done = before_mb, threading.Event()

            def measure() -> None:
                nonlocal peak_mb
                while not done.wait(0.02):
                    peak_mb = max(peak_mb, anonymous_mb(server.pid))

            measuring = threading.Thread(target=measure)
            measuring.start()
            try:
                answer = upload(way, url, [block] * size_mb, tmp_path)
            finally:
                done.set()
                measuring.join()
            assert answer.status_code in (201, 202), answer.text
            assert peak_mb - before_mb < 25, (
                f"{before_mb:.0f} MB before, {peak_mb:.0f} MB at the peak of {size_mb} MB"
            )
        finally:
            server.terminate()


def upload(way: str, url: str, blocks: list[bytes], folder: Path) -> httpx.Response:
    if way == "raw":
        return httpx.post(f"{url}/api/blobs", content=iter(blocks), timeout=60)
    path = folder / "big.bin"
    with path.open("wb") as file:
        if way == "zip":
            with (
                zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
                archive.open("a.pdf", "w") as entry,
            ):
                for block in blocks:
                    entry.write(block)
        else:
            file.writelines(blocks)
    with path.open("rb") as file:
        return httpx.post(
            f"{url}/api/imports", files={"files": ("a.zip" if way == "zip" else "a.pdf", file)}, timeout=60
        )


# --- the registry ------------------------------------------------------------------------------------------------


@pytest.fixture
def client(world: World) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": str(world.http.base_url)}) as made:
        yield made


async def test_a_confluent_client_finds_every_schema(client: SchemaRegistryClient):
    schemas = Schemas(schemas_dir())
    subjects = await asyncio.to_thread(client.get_subjects)
    assert "t1-imports-paperlog.ImportCancelled" in subjects
    assert len(subjects) == len(set(subjects)) >= 26
    for subject in subjects:
        latest = await asyncio.to_thread(client.get_latest_version, subject)
        assert latest.schema_id is not None
        ours = schemas.by_id(latest.schema_id)
        assert ours is not None
        assert subject.endswith(f"-{ours.full_name}")
        found = await asyncio.to_thread(client.get_schema, latest.schema_id)
        assert json.loads(found.schema_str or "") == ours.raw
        looked_up = await asyncio.to_thread(
            client.lookup_schema, subject, Schema(json.dumps(ours.raw), "AVRO")
        )
        assert (looked_up.schema_id, looked_up.version) == (ours.id, ours.version)
    assert await asyncio.to_thread(client.get_versions, subjects[0]) == [1]


async def test_a_confluent_deserializer_reads_our_records(client: SchemaRegistryClient):
    event = ImportCancelled(
        import_id=new_import_id(), project_id=project_id("P"), attempt=2, occurred_at=T0, message="ü"
    )
    record = seal(Schemas(schemas_dir()), event, topic="imports", source="test")
    read = AvroDeserializer(client)
    found = await asyncio.to_thread(
        read, record.value, SerializationContext("t1-imports", MessageField.VALUE)
    )
    assert isinstance(found, dict)
    assert (found["attempt"], found["message"]) == (2, "ü")


async def test_the_registry_refuses_in_its_own_words(client: SchemaRegistryClient):
    for call, code in (
        (lambda: client.get_schema(1), 40403),
        (lambda: client.get_latest_version("nobody"), 40401),
        (lambda: client.get_version("t1-imports-paperlog.ImportCancelled", 99), 40402),
        (lambda: client.register_schema("x", Schema('"string"', "AVRO")), 42205),
    ):
        with pytest.raises(SchemaRegistryError) as caught:
            await asyncio.to_thread(call)
        assert caught.value.error_code == code
