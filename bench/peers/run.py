"""One peer, once: embeds the chunks and stores them in Qdrant's local mode on disk, as its own documentation shows.

Runs in the environment of requirements.lock beside it. `run.py PEER CHUNKS STORE PROVIDER`: CHUNKS holds a JSON object
with `id`, `text` and `document` on each line; PROVIDER is an address that speaks OpenAI's wire format, or `local`.
Imports, the model's weights and reading the chunks are not counted. Prints one JSON object: seconds, points stored,
and the most resident memory in kB.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLLECTION = "chunks"
MODEL = "text-embedding-3-small"
KEY = "bench"
BATCH = 100
"""Texts in a request; the default of LlamaIndex's OpenAIEmbedding and of LangChain's `index()`."""
IN_FLIGHT = 8
"""Requests of the hand-written script at once."""
DIMS = {"local": 256}
OPENAI_DIMS = 1536

Run = Callable[[], int]
"""Does the work that is timed; answers how many points are stored."""


def wordllama() -> Any:
    """Offline: the weights come in the wheel."""
    import wordllama

    folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=folder, disable_download=True)


def llama_index_parts(chunks: list[dict[str, str]], provider: str) -> tuple[list[Any], Any]:
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    if provider == "local":
        from llama_index.core.embeddings import BaseEmbedding
        from pydantic import PrivateAttr

        class WordLlamaEmbedding(BaseEmbedding):
            _model: Any = PrivateAttr()

            def __init__(self, **more: Any) -> None:
                super().__init__(**more)
                self._model = wordllama()

            def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
                return self._model.embed(texts, norm=True).tolist()

            def _get_text_embedding(self, text: str) -> list[float]:
                return self._get_text_embeddings([text])[0]

            def _get_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

        model: Any = WordLlamaEmbedding(embed_batch_size=BATCH)
    else:
        from llama_index.embeddings.openai import OpenAIEmbedding

        model = OpenAIEmbedding(model=MODEL, api_base=provider, api_key=KEY)
    nodes = [
        TextNode(
            id_=one["id"],
            text=one["text"],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=one["document"])},
        )
        for one in chunks
    ]
    return nodes, model


def llama_index_run(chunks: list[dict[str, str]], store: str, provider: str) -> Run:
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    nodes, model = llama_index_parts(chunks, provider)
    client = QdrantClient(path=store)
    vector_store = QdrantVectorStore(client=client, collection_name=COLLECTION)
    pipeline = IngestionPipeline(transformations=[model], vector_store=vector_store)

    def run() -> int:
        pipeline.run(nodes=nodes)
        return client.count(COLLECTION).count

    return run


def llama_index_arun(chunks: list[dict[str, str]], store: str, provider: str) -> Run:
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import AsyncQdrantClient

    nodes, model = llama_index_parts(chunks, provider)

    async def run() -> int:
        client = AsyncQdrantClient(path=store)
        vector_store = QdrantVectorStore(aclient=client, collection_name=COLLECTION)
        pipeline = IngestionPipeline(transformations=[model], vector_store=vector_store)
        await pipeline.arun(nodes=nodes)
        return (await client.count(COLLECTION)).count

    return lambda: asyncio.run(run())


def langchain_index(chunks: list[dict[str, str]], store: str, provider: str) -> Run:
    from langchain_classic.indexes import SQLRecordManager, index
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, VectorParams

    class WordLlamaEmbeddings(Embeddings):
        def __init__(self) -> None:
            self._model = wordllama()

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return self._model.embed(texts, norm=True).tolist()

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    if provider == "local":
        embeddings: Embeddings = WordLlamaEmbeddings()
    else:
        from langchain_openai import OpenAIEmbeddings

        # Without the check it sends texts, as it must to any server but OpenAI's own, and needs no tokenizer's download.
        embeddings = OpenAIEmbeddings(
            model=MODEL, base_url=provider, api_key=KEY, check_embedding_ctx_length=False
        )
    client = QdrantClient(path=store)
    client.create_collection(
        COLLECTION,
        vectors_config=VectorParams(size=DIMS.get(provider, OPENAI_DIMS), distance=Distance.COSINE),
    )
    vector_store = QdrantVectorStore(client=client, collection_name=COLLECTION, embedding=embeddings)
    record_manager = SQLRecordManager(f"qdrant/{COLLECTION}", db_url=f"sqlite:///{store}-records.sqlite")
    record_manager.create_schema()
    documents = [Document(page_content=one["text"], metadata={"source": one["document"]}) for one in chunks]

    def run() -> int:
        index(documents, record_manager, vector_store, cleanup=None, source_id_key="source")
        return client.count(COLLECTION).count

    return run


def plain_script(chunks: list[dict[str, str]], store: str, provider: str) -> Run:
    """What one writes in an afternoon: eight requests of 100 at once, no log, no resume."""
    from openai import AsyncOpenAI
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, PointStruct, VectorParams

    client = QdrantClient(path=store)
    client.create_collection(
        COLLECTION,
        vectors_config=VectorParams(size=DIMS.get(provider, OPENAI_DIMS), distance=Distance.COSINE),
    )
    batches = [chunks[at : at + BATCH] for at in range(0, len(chunks), BATCH)]
    local = wordllama() if provider == "local" else None

    async def run() -> int:
        openai = None if local else AsyncOpenAI(base_url=provider, api_key=KEY)
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def embedded(texts: list[str]) -> list[list[float]]:
            if openai is None:
                return local.embed(texts, norm=True).tolist()
            answer = await openai.embeddings.create(model=MODEL, input=texts)
            return [one.embedding for one in answer.data]

        async def take(batch: list[dict[str, str]]) -> None:
            async with slots:
                vectors = await embedded([one["text"] for one in batch])
            client.upsert(
                COLLECTION,
                [
                    PointStruct(
                        id=one["id"],
                        vector=vector,
                        payload={"text": one["text"], "document": one["document"]},
                    )
                    for one, vector in zip(batch, vectors, strict=True)
                ],
            )

        await asyncio.gather(*(take(batch) for batch in batches))
        return client.count(COLLECTION).count

    return lambda: asyncio.run(run())


PEERS = {
    "llama-index-run": llama_index_run,
    "llama-index-arun": llama_index_arun,
    "langchain-index": langchain_index,
    "plain-script": plain_script,
}


def main() -> None:
    peer, chunks_file, store, provider = sys.argv[1:]
    with Path(chunks_file).open(encoding="utf-8") as file:
        chunks = [json.loads(line) for line in file]
    run = PEERS[peer](chunks, store, provider)
    began = time.monotonic()
    points = run()
    seconds = time.monotonic() - began
    rss_kb_max = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "points": points, "rss_kb_max": rss_kb_max}))


if __name__ == "__main__":
    main()
