"""The embedder through a real broker, with a provider that keeps a ledger: what is lost, what is paid, what is said."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from eventlog.events import ChunkEmbedded, ChunkRejected, ImportCancelled
from eventlog.ids import text_sha256
from paperlog.up.kafka import EmbeddedKafka
from tests.fakes.provider import FakeProvider, running
from tests.integration.embedder_process import SPACE, Embedder, Library, environment, log_of, new_import

pytestmark = pytest.mark.kafka


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with running(FakeProvider()) as fake:
        yield fake


@pytest.fixture
async def library(kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path) -> AsyncIterator[Library]:
    async with log_of(kafka.bootstrap, kafka_prefix, tmp_path) as log:
        yield Library(log)


@pytest.fixture
async def embedder(
    kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path, provider: FakeProvider
) -> AsyncIterator[Embedder]:
    process = Embedder(tmp_path / "embedder", environment(kafka.bootstrap, kafka_prefix, provider))
    yield process
    process.close()


async def test_chunks_become_vectors_of_the_local_model(
    kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path, library: Library
) -> None:
    process = Embedder(tmp_path / "local", environment(kafka.bootstrap, kafka_prefix, None))
    try:
        await process.start()
        texts = [f"a text about thing {number}" for number in range(30)]
        chunks = library.chunks(texts, new_import(), space="local/wordllama@256:1")
        await library.give(chunks)
        for event in await library.answered(chunks):
            assert isinstance(event, ChunkEmbedded)
            vector = np.frombuffer(event.vector, dtype="<f4")
            assert len(vector) == event.dims == 256
            assert abs(float(np.linalg.norm(vector)) - 1.0) < 1e-5
        status, answer = process.post("/embed", {"text": texts[3], "side": "query"})
        assert status == 200
        query = np.frombuffer(base64.b64decode(answer["vector"]), dtype="<f4")
        stored = np.frombuffer((await library.answered(chunks))[3].vector, dtype="<f4")
        assert float(query @ stored) > 0.999
        assert process.stop() == 0
    finally:
        process.close()
