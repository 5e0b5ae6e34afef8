"""The whole stack on a Qdrant server: deaths of services, of the broker and of the server itself, lost collections, two writers.

Runs where QDRANT_URL names a server, or QDRANT_PROGRAM the program, which is then started here and can be killed.
"""

import asyncio
import json
import os
import random
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.qdrant_server import PROGRAM, URL, QdrantServer
from tests.e2e.reading import completed_events, read_topic
from tests.e2e.stack import Provider, Stack, provider, until, write_texts
from tests.integration.embedder_process import until as eventually
from tests.integration.services_apart import Apart, GraphWriter, apart

from paperlog.up.kafka import EmbeddedKafka

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not (URL or PROGRAM), reason="neither QDRANT_URL nor QDRANT_PROGRAM is set"),
]
killable = pytest.mark.skipif(not PROGRAM, reason="QDRANT_PROGRAM names no server that could be killed")

MODEL = "openai/test-embedding@64"
DOCUMENTS, CHUNKS_EACH = 24, 16
SLOW = {"PAPERLOG_REQUESTS_MAX": "4"}
LOST_PER_DEATH = 48 * 2 * 5
"""Texts that one death may cost (P4): two batches of five per assigned partition."""
Points = dict[str, dict[str, tuple[str, str]]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    server = QdrantServer(tmp_path_factory.mktemp("qdrant"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def prefix(server: QdrantServer) -> Iterator[str]:
    prefix = f"t{uuid.uuid4().hex[:10]}"
    yield prefix
    server.drop(prefix)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "texts"
    write_texts(folder, documents=DOCUMENTS, chunks_each=CHUNKS_EACH)
    return folder


def told(server: QdrantServer, prefix: str) -> dict[str, str]:
    return {"PAPERLOG_STORE": "qdrant", "QDRANT_URL": server.url, "PAPERLOG_PREFIX": prefix}


@pytest.fixture(scope="module")
def undisturbed(
    server: QdrantServer, library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    """The server after an import that nobody disturbed."""
    folder, prefix = tmp_path_factory.mktemp("undisturbed"), f"t{uuid.uuid4().hex[:10]}"
    with provider(folder) as fake:
        env = {**fake.env, **told(server, prefix)}
        with Stack(folder / "data", embedding=MODEL, env=env) as stack:
            import_id = stack.import_folder(library, "Texts")
            status = stack.wait(import_id)
            assert status["state"] == "completed"
            assert status["chunks"]["stored"] == status["chunks"]["total"] > 200
            texts = len(set(fake.billed()))
            stack.command("verify", import_id)
            assert json.loads(stack.command("search", "anything", "--project", "Texts", "--json").stdout)
        assert not (folder / "data" / "store").exists(), "nothing is embedded"
    found: dict[str, Any] = {
        "points": server.points(prefix),
        "digest": status["digest"],
        "texts": texts,
        "aliases": server.aliases(prefix),
    }
    found["collections"] = {name: server.collection(one) for name, one in found["aliases"].items()}
    server.drop(prefix)
    return found


def check_like_undisturbed(
    stack: Stack,
    server: QdrantServer,
    prefix: str,
    import_id: str,
    undisturbed: Mapping[str, Any],
) -> None:
    status = stack.wait(import_id)
    assert status["state"] == "completed"
    assert status["digest"] == undisturbed["digest"]
    stack.command("verify", import_id)
    assert len(completed_events(stack, import_id, prefix)) == 1
    assert server.points(prefix) == undisturbed["points"]


def check_billed(fake: Provider, total: int, *, deaths: int) -> None:
    billed = Counter(fake.billed())
    assert len(billed) == total
    assert billed.total() - len(billed) <= deaths * LOST_PER_DEATH


def settled_count(stack: Stack, import_id: str) -> int:
    chunks = stack.status(import_id)["chunks"]
    return int(chunks["stored"] + chunks["rejected"] + chunks["superseded"] + chunks["dead_lettered"])


def test_a_collection_stands_behind_an_alias_and_has_its_tenants_and_what_it_was_made_for(
    undisturbed: Mapping[str, Any],
) -> None:
    assert set(undisturbed["aliases"]) == {"graph", "openai-test-embedding-64-1"}
    for name, collection in undisturbed["collections"].items():
        assert undisturbed["aliases"][name] != name
        tenant = collection["payload_schema"]["project_id"]
        assert (tenant["data_type"], tenant["params"]["is_tenant"]) == ("uuid", True)
        assert collection["config"]["metadata"]["space"] == (
            "" if name == "graph" else "openai/test-embedding@64:1"
        )


def test_killed_services_and_broker_cost_nothing_but_time(
    tmp_path: Path, server: QdrantServer, prefix: str, library: Path, undisturbed: Mapping[str, Any]
) -> None:
    deaths = ["ingest", "embedder", "graph-writer"] * 2 + ["kafka"]
    random.Random(7).shuffle(deaths)
    with provider(tmp_path, latency_ms=200) as fake:
        env = {**fake.env, **SLOW, **told(server, prefix)}
        with Stack(tmp_path / "data", embedding=MODEL, env=env) as stack:
            import_id = stack.import_folder(library, "Texts")
            for number, name in enumerate(deaths):
                share = number / len(deaths) * 0.6
                until(
                    lambda share=share: stack.status(import_id)["progress"] >= share,
                    120,
                    lambda share=share: f"no progress to {share}: {stack.status(import_id)} {stack.tail()}",
                )
                stack.kill(name)
            check_like_undisturbed(stack, server, prefix, import_id, undisturbed)
            check_billed(fake, undisturbed["texts"], deaths=3)


@killable
def test_a_server_killed_again_and_again_pauses_the_writing_and_loses_nothing(
    tmp_path: Path, server: QdrantServer, prefix: str, library: Path, undisturbed: Mapping[str, Any]
) -> None:
    with provider(tmp_path, latency_ms=200) as fake:
        env = {**fake.env, **SLOW, **told(server, prefix)}
        with Stack(tmp_path / "data", embedding=MODEL, env=env) as stack:
            import_id = stack.import_folder(library, "Texts")
            topic, writer = f"{prefix}-imports", stack.endpoints()["pids"]["graph-writer"]
            for share in (0.1, 0.2, 0.3, 0.4, 0.5):
                until(
                    lambda share=share: stack.status(import_id)["progress"] >= share,
                    120,
                    lambda share=share: f"no progress to {share}: {stack.status(import_id)} {stack.tail()}",
                )
                server.kill()
                if share == 0.3:  # long enough to be said
                    until(
                        lambda: bool(read_topic(stack, topic, "WritingPaused")),
                        60,
                        lambda: f"{stack.status(import_id)} {stack.tail()}",
                    )
                    until(
                        lambda: stack.status(import_id)["waiting"] == "store_down",
                        60,
                        lambda: f"{stack.status(import_id)} {stack.tail()}",
                    )
                    assert stack.request("GET", "/readyz")[0] == 503
                server.start()
            check_like_undisturbed(stack, server, prefix, import_id, undisturbed)
            check_billed(fake, undisturbed["texts"], deaths=0)
            assert stack.endpoints()["pids"]["graph-writer"] == writer, "it paused, and did not crash"
            said = [len(read_topic(stack, topic, one)) for one in ("WritingPaused", "WritingContinued")]
            assert said[0] == said[1] > 0


def test_collections_that_are_lost_half_way_are_filled_again_without_a_bill(
    tmp_path: Path, server: QdrantServer, prefix: str, library: Path, undisturbed: Mapping[str, Any]
) -> None:
    with provider(tmp_path, latency_ms=100) as fake:
        env = {**fake.env, **SLOW, **told(server, prefix)}
        with Stack(tmp_path / "data", embedding=MODEL, env=env) as stack:
            import_id = stack.import_folder(library, "Texts")
            total = undisturbed["texts"]
            until(
                lambda: settled_count(stack, import_id) > total // 2, 120, "the import does not get half-way"
            )
            server.drop(prefix)
            check_like_undisturbed(stack, server, prefix, import_id, undisturbed)
            check_billed(fake, total, deaths=0)


def test_a_server_whose_collections_were_filled_from_another_log_is_refused_with_what_to_do(
    tmp_path: Path, server: QdrantServer, prefix: str, library: Path
) -> None:
    with provider(tmp_path) as fake:
        env = {**fake.env, **told(server, prefix)}
        with Stack(tmp_path / "first", embedding=MODEL, env=env) as stack:
            stack.wait(stack.import_folder(library, "Texts"))
        second = Stack(tmp_path / "second", embedding=MODEL, env=env)
        try:
            with pytest.raises(AssertionError):
                second.start(ready_s_max=30)
            assert "Take another PAPERLOG_PREFIX" in second.tail()
        finally:
            second.stop()


TwoWriters = tuple[Provider, Apart, GraphWriter, str]


@pytest.fixture
async def two_writers(
    tmp_path: Path, kafka: EmbeddedKafka, server: QdrantServer, prefix: str, library: Path
) -> AsyncIterator[TwoWriters]:
    """A provider, a stack, a second graph-writer beside its own, and an import that has just been asked for."""
    store = told(server, prefix)

    def kafka_of(_: str) -> Mapping[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "PAPERLOG_PREFIX": prefix}

    with provider(tmp_path, latency_ms=200) as fake:
        model = {**fake.env, **SLOW, "PAPERLOG_EMBEDDING": MODEL}
        async with apart(tmp_path / "one", kafka_of, store, model) as stack:
            second = GraphWriter(tmp_path / "two", {**kafka_of("graph-writer"), **store})
            try:
                await second.start()
                said = stack.command("import", str(library), "--project", "Texts", "--no-wait", "--json")
                yield fake, stack, second, json.loads(said)["import_id"]
            finally:
                second.close()


async def test_two_active_writers_share_the_work_and_deaths_of_one_lose_nothing(
    two_writers: TwoWriters, server: QdrantServer, prefix: str, undisturbed: Mapping[str, Any]
) -> None:
    """Beside each other on one server, each started again when it dies, one of them killed twice in the middle."""
    fake, stack, second, import_id = two_writers
    ends, settled = await kept_alive(stack, second, import_id, kills=(0.2, 0.4))
    for one in (stack.writer, second):
        await one.until_ready()
    stack.command("verify", import_id)
    second.close()
    assert server.points(prefix) == undisturbed["points"], stack.said[-3000:]
    check_billed(fake, undisturbed["texts"], deaths=0)
    assert all(count > 0 for count in settled), f"both take part: {settled}"
    assert set(ends) <= {70}, "crash-only: whatever was unexpected, the next process starts from the store"
    assert len(ends) <= 4, f"ended by themselves: {ends}"


async def test_a_writer_that_stands_still_is_overtaken_and_changes_nothing_when_it_goes_on(
    two_writers: TwoWriters, server: QdrantServer, prefix: str, undisturbed: Mapping[str, Any]
) -> None:
    """Longer than its session, with a batch in hand or what it has not said yet; the other ends the import alone."""
    fake, stack, second, import_id = two_writers

    def progress() -> float:
        return float(stack.ingest.get(f"/api/imports/{import_id}")[1].get("progress", 0))

    await eventually(lambda: progress() >= 0.3, lambda: stack.said[-3000:])
    os.kill(second.pid, signal.SIGSTOP)
    await eventually(lambda: progress() == 1, lambda: stack.said[-3000:], timeout_s=120)
    assert server.points(prefix) == undisturbed["points"]
    opened = second.log_text.count("store.opened")
    os.kill(second.pid, signal.SIGCONT)
    # It joins again, or ends and is started again.
    await eventually(
        lambda: second.exit_code is not None or second.log_text.count("store.opened") > opened,
        lambda: second.log_text[-3000:],
    )
    if second.exit_code is not None:
        assert second.exit_code == 70
        second.spawn()
    await second.until_ready()
    stack.command("verify", import_id)
    assert server.points(prefix) == undisturbed["points"]
    check_billed(fake, undisturbed["texts"], deaths=0)


def settled_by(writer: GraphWriter) -> int:
    """By this life of it; 0 while it does not answer."""
    said = str(writer.get("/metrics")[1])
    counts = [line.split()[-1] for line in said.splitlines() if "chunks_settled_total" in line]
    return int(counts[-1]) if counts else 0


async def kept_alive(
    stack: Apart, second: GraphWriter, import_id: str, kills: tuple[float, ...]
) -> tuple[list[int], list[int]]:
    """Until the import is complete; the exit codes of writers that ended by themselves and were started again, and the
    most that each has settled in one life."""
    ends: list[int] = []
    settled = [0, 0]
    waiting = list(kills)
    async with asyncio.timeout(200):
        while True:
            status = stack.ingest.get(f"/api/imports/{import_id}")[1]
            settled = [
                max(most, settled_by(one)) for most, one in zip(settled, (stack.writer, second), strict=True)
            ]
            if status.get("state") == "completed":
                assert not waiting, f"the import was over before {waiting}"
                return ends, settled
            if waiting and status.get("progress", 0) >= waiting[0]:
                waiting.pop(0)
                second.kill()
                second.spawn()
            for one in (stack.writer, second):
                if (code := one.exit_code) is not None:
                    ends.append(code)
                    one.spawn()
            await asyncio.sleep(0.1)
