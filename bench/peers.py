"""Paperlog beside what people use today: the same chunks, the same model, the same machine, one run.

`python bench/peers.py [--chunks N] [--providers local openai] [--peers NAME …]`. Beside it: LlamaIndex's
IngestionPipeline (`run` and `arun`) and LangChain's `index()` into Qdrant's local mode on disk, each as its
documentation shows, and a hand-written script with eight requests of 100 at once (`peers/run.py` is all of them). They
have an environment of their own under .cache, made at the first use from `peers/requirements.lock`.

Paperlog is measured from the request to `ImportCompleted`: parsing, splitting, keywords and graph included. The others
get Paperlog's own chunks, read back from its log, ready in memory: for them only embedding and storing count. `openai`
is the stand-in provider on loopback with 200 ms and 1536 dimensions, `local` is wordllama with 256.
"""

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from harness.corpus import write_corpus
from harness.processes import MemorySampler
from harness.report import megabytes, print_head, print_step, print_table, save
from harness.stack import (
    OPENAI_SPACE,
    ROOT,
    SERVICES,
    BenchFailed,
    Provider,
    fake_provider,
    running_stack,
    scratch,
)

from eventlog.avro import Schemas, schemas_dir
from eventlog.events import ChunkExtracted
from eventlog.topics import CHUNKS, topic_table

LATENCY_MS = 200
LOCAL_SPACE = "local/wordllama@256"
PEERS = {
    "llama-index-run": "LlamaIndex `run()`",
    "llama-index-arun": "LlamaIndex `arun()`",
    "langchain-index": "LangChain `index()`",
    "plain-script": "hand-written script",
}
PEER_S_MAX = 900
LOCK = ROOT / "bench/peers/requirements.lock"
ENVIRONMENT = ROOT / ".cache/bench-peers"


def environment() -> Path:
    """The Python of the peers' own environment; made anew where the lock or our Python has changed."""
    python, made_of = ENVIRONMENT / "bin/python", ENVIRONMENT / "made-of"
    wanted = f"{hashlib.sha256(LOCK.read_bytes()).hexdigest()} {sys.version}"
    if made_of.exists() and made_of.read_text() == wanted:
        return python
    print("installing the peers into .cache (once)", file=sys.stderr)
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    uv = str(Path(sys.executable).with_name("uv"))
    env = {"UV_CACHE_DIR": str(ROOT / ".cache/uv"), "UV_SYSTEM_CERTS": "true", "UV_PYTHON_DOWNLOADS": "never"}
    env = {**os.environ, **env, "VIRTUAL_ENV": str(ENVIRONMENT)}
    try:
        made = [uv, "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)]
        subprocess.run(made, env=env, check=True)
        install = [uv, "pip", "install", "--quiet", "--require-hashes", "-r", str(LOCK)]
        subprocess.run(install, env=env, check=True)
    except subprocess.CalledProcessError as failed:
        raise BenchFailed(f"the peers' environment could not be made: {failed}") from None
    made_of.write_text(wanted)
    return python


async def write_chunks(bootstrap: str, file: Path) -> int:
    """All of Paperlog's own chunks, as the peers read them; how many."""
    schemas = Schemas(schemas_dir())
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    count = 0
    try:
        partitions = [TopicPartition(CHUNKS, n) for n in range(topic_table()[CHUNKS].partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        with file.open("w", encoding="utf-8") as out:
            while any([await consumer.position(each) < ends[each] for each in partitions]):
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    for record in records:
                        event = schemas.decode(record.value)
                        assert isinstance(event, ChunkExtracted)
                        chunk = {
                            "id": str(event.chunk_id),
                            "text": event.text,
                            "document": str(event.document_id),
                        }
                        out.write(json.dumps(chunk) + "\n")
                        count += 1
    finally:
        await consumer.stop()
    return count


def measure_paperlog(
    folder: Path, corpus: Path, space: str, provider: Provider | None, chunks: Path
) -> dict[str, Any]:
    with running_stack(folder, embedding=space, provider=provider) as stack:
        with MemorySampler(stack.pids, together=SERVICES) as sampler:
            imported = stack.import_folder(corpus, "peers", kind="text")
        if not chunks.exists():
            count = asyncio.run(write_chunks(stack.kafka, chunks))
            if count != imported.chunk_count:
                raise BenchFailed(f"{count} chunks in the log, {imported.chunk_count} in the import")
    return {
        "name": "Paperlog",
        "chunks": imported.chunk_count,
        "seconds": round(imported.seconds, 2),
        "rss_kb_max": sampler.together_rss_kb_peak,
        "anonymous_kb_max": sampler.together_anonymous_kb_peak,
        "broker_rss_kb_max": sampler.series["kafka"].rss_kb_peak,
        "cpu_s": {name: round(cpu, 1) for name, cpu in imported.cpu_s.items()},
        "restarted": imported.restarted,
    }


def measure_peer(
    python: Path, peer: str, folder: Path, provider: Provider | None, chunks: Path
) -> dict[str, Any]:
    program = [str(python), str(ROOT / "bench/peers/run.py")]
    argv = [*program, peer, str(chunks), str(folder), provider.url if provider else "local"]
    # Nothing is traced, and nothing asked, over a network that may not be there.
    env = {**os.environ, "LANGSMITH_TRACING": "false", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        argv, env=env, cwd=folder.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with MemorySampler(lambda: {peer: process.pid}, together=(peer,)) as sampler:
        try:
            out, err = process.communicate(timeout=PEER_S_MAX)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{peer} has not ended in {PEER_S_MAX} s") from None
        finally:
            process.kill()
            process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    if process.returncode:
        raise BenchFailed(f"{peer} ended with {process.returncode}: {err[-2000:]}")
    said = json.loads(out.splitlines()[-1])
    return {
        "name": PEERS[peer],
        "chunks": said["points"],
        "seconds": round(said["seconds"], 2),
        "rss_kb_max": said["rss_kb_max"],
        "anonymous_kb_max": sampler.together_anonymous_kb_peak,
    }


def measure(folder: Path, python: Path, corpus: Path, which: str, peers: list[str]) -> list[dict[str, Any]]:
    chunks = folder / "chunks.jsonl"
    results = []
    for name in ("paperlog", *peers):
        print_step(f"{which}: {name}")
        run = folder / f"{which}-{name}"
        # A ledger and a process for each: nobody pays for what another one left behind.
        if which == "local":
            results.append(_measured(name, run, python, corpus, None, chunks))
            continue
        with fake_provider(LATENCY_MS, folder / f"ledger-{name}.jsonl") as provider:
            results.append(_measured(name, run, python, corpus, provider, chunks))
    wanted = results[0]["chunks"]
    for each in results:
        each |= {"provider": which, "chunks_per_s": round(each["chunks"] / each["seconds"], 1)}
        if each["chunks"] != wanted:
            raise BenchFailed(f"{each['name']} stored {each['chunks']} of {wanted} chunks")
    return results


def _measured(
    name: str, run: Path, python: Path, corpus: Path, provider: Provider | None, chunks: Path
) -> dict[str, Any]:
    if name == "paperlog":
        return measure_paperlog(run, corpus, OPENAI_SPACE if provider else LOCAL_SPACE, provider, chunks)
    return measure_peer(python, name, run, provider, chunks)


def show(results: list[dict[str, Any]]) -> None:
    names = {"local": "wordllama, 256", "openai": f"{LATENCY_MS} ms, 1536"}
    print_table(
        ["model", "who", "chunks", "seconds", "chunks/s", "peak MB", "anonymous MB"],
        [
            [
                names[each["provider"]],
                each["name"],
                each["chunks"],
                each["seconds"],
                each["chunks_per_s"],
                megabytes(each["rss_kb_max"]),
                megabytes(each["anonymous_kb_max"]),
            ]
            for each in results
        ],
    )
    print(
        "\nresident and anonymous memory at its highest; Paperlog: three services together, and what they share thrice"
    )
    for which in dict.fromkeys(each["provider"] for each in results):
        ours, *others = (each for each in results if each["provider"] == which)
        print(f"{names[which]}: Paperlog's broker besides {megabytes(ours['broker_rss_kb_max'])} MB")
        if ours["restarted"]:
            print(f"{names[which]}: died on the way: {', '.join(ours['restarted'])}")
        for each in others:
            verdict = "faster" if ours["chunks_per_s"] > each["chunks_per_s"] else "NOT faster"
            ratio = ours["chunks_per_s"] / each["chunks_per_s"]
            print(f"{names[which]}: Paperlog is {verdict} than {each['name']} ({ratio:.2f} times)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000, metavar="N")
    parser.add_argument("--providers", nargs="+", choices=["local", "openai"], default=["local", "openai"])
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    args = parser.parse_args()
    results = []
    try:
        python = environment()
        print_head("Paperlog beside others, end to end")
        with scratch() as folder:
            write_corpus(folder / "corpus", args.chunks)
            for which in args.providers:
                results += measure(folder, python, folder / "corpus", which, args.peers)
    except BenchFailed as failed:
        print(f"nothing measured: {failed}", file=sys.stderr)
        return 1
    show(results)
    print(f"\n{save('peers', results).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
