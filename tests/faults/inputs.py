"""Faults that come in: files that hold nothing or bite, poison on the topics, records twice and out of order."""

import json
import os
import signal
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.e2e.stack import until
from tests.faults.auditor.reading import REPEATED, Record, record_of
from tests.faults.catalogue import fault
from tests.faults.named_points import LAUNCHER
from tests.faults.world import DONE, TERMINAL, World

TOPICS = {"import-requests": 1, "imports": 1, "chunks": 48, "embeddings": 48}
LETTERS = ("ingest-dlq", "embedder-openai-test-embedding-64-1-dlq", "graph-writer-dlq")
SLOW = {"PAPERLOG_REQUESTS_MAX": "8"}
ONLY_POISON = 40
STOPPED = {
    "dead_letters": "ingest",
    "embedder_dead_letters": "embedder",
    "graph_writer_dead_letters": "graph-writer",
}
"""What `/readyz` says of who waits for an operator."""


REFUSED = ("refused",)
"""Before it is an import: there is nothing in it."""


# --- F10 and F24: files ------------------------------------------------------------------------------------------


@fault(
    "F10",
    "texts that are empty, blank, endless, half surrogates; imports of no chunk and of one",
    {"import": 6},
)
def odd_texts(world: World) -> None:
    for name, content, states, rejected in (
        ("empty", b"", REFUSED, 0),
        ("blank", b" \n\t \n" * 200, REFUSED, 0),
        ("endless", b"On words without end\n\n" + b"endless" * 40_000, DONE, 0),
        ("surrogates", b"On half pairs\n\n" + b"\xed\xa0\x80 half \xed\xbf\xbf pairs " * 300, DONE, 0),
        ("one", b"Title", DONE, 0),
    ):
        folder = world.folder / "libraries" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.txt").write_bytes(content)
        _imported(world, folder, name, states, rejected)
    folder = world.library("mixed", documents=6, chunks_each=10)
    (folder / "empty.md").write_bytes(b"")
    (folder / "blank.md").write_bytes(b"\n \n")
    _imported(world, folder, "mixed", DONE, 2)
    world.drain()


def _imported(world: World, folder: Path, name: str, states: tuple[str, ...], rejected: int) -> None:
    done = world.stack.command("import", str(folder), "--project", name, "--no-wait", "--json", check=None)
    world.injected["import"] += 1
    if states is REFUSED:
        world.check(
            done.returncode == 1 and "no text in it" in done.stderr, f"{name} is taken: {done.stdout}"
        )
        return
    import_id = json.loads(done.stdout)["import_id"]
    status = world.stack.wait(import_id, *TERMINAL)
    world.check(status["state"] in states, f"{name} ended as {status['state']}")
    world.check(
        status["documents"]["rejected"] == rejected,
        f"{name}: {status['documents']} instead of {rejected} rejected",
    )
    world.check(status["chunks"]["rejected"] == 0, f"{name}: {status['chunks']}")


@fault(
    "F24",
    "hostile files among good ones; the parser dies of SIGSEGV",
    {"hostile": 8, "segv": 3},
    # A bomb takes the parser's child to its limit, 224 MB of address space, before it is rejected; the container holds.
    memory_mb_max=400,
)
def hostile_files(world: World) -> None:
    folder = world.library("good", documents=60, chunks_each=30)
    hostile = folder / "hostile"
    hostile.mkdir()
    for name, content in _hostile():
        (hostile / name).write_bytes(content)
        world.injected["hostile"] += 1
    import_id = world.import_(folder, "Hostile")
    until(
        lambda: _shoot_parser(world) or world.injected["segv"] >= 3, 120, "the parser's child cannot be found"
    )
    status = world.stack.wait(import_id, *TERMINAL, timeout_s=300)
    world.check(status["state"] in DONE, f"the good ones do not go through: {status}")
    world.numbers["rejected"] = status["documents"]["rejected"]
    bomb = world.folder / "libraries" / "bomb"
    bomb.mkdir()
    with zipfile.ZipFile(bomb / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number}.txt", b"0" * 60_000_000)
    world.injected["hostile"] += 1
    said = world.stack.command("import", str(bomb / "bomb.zip"), "--project", "Bomb", "--no-wait", check=None)
    world.check(
        said.returncode == 1 and said.stderr.strip(), f"a zip bomb is taken: {said.returncode} {said.stdout}"
    )
    world.drain(import_id)


def _hostile() -> Iterator[tuple[str, bytes]]:
    yield "deep.json", b"[" * 2_000_000
    yield "wide.json", json.dumps([{"id": str(n), "title": "t" * 5_000} for n in range(200)]).encode()[:-1]
    yield "cut.pdf", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages"
    stream = zlib.compress(b"0 0 m 1 1 l S\n" * 20_000_000, 9)
    yield "bomb.pdf", (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj 4 0 obj<</Filter/FlateDecode/Length "
        + str(len(stream)).encode() + b">>stream\n" + stream + b"\nendstream endobj trailer<</Root 1 0 R>>\n%%EOF"
    )  # fmt: skip
    yield (
        "loop.pdf",
        (
            b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[2 0 R 2 0 R]/Count 99999999>>"
            b"endobj trailer<</Root 1 0 R>>\n%%EOF"
        ),
    )
    yield "noise.pdf", bytes((n * 7919 + n // 251) % 256 for n in range(300_000))
    yield "regex.txt", b"On patterns\n\n" + b"10.1000/" + b"(" * 200_000 + b"\n" + b"a" * 200_000 + b"!"


def _shoot_parser(world: World) -> bool:
    """True when three have died: a child of ingest that parses gets what a fault of its own would give it."""
    pid = world.pid("ingest")
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if b"parser" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGSEGV)
                world.injected["segv"] += 1
                time.sleep(0.5)
        except (OSError, ValueError):
            continue
    return world.injected["segv"] >= 3


# --- F13 and F19: records ----------------------------------------------------------------------------------------


@fault(
    "F13",
    "1 % poison on every topic, then nothing else on any of them",
    {"poison": 100, "only poison": 4 * ONLY_POISON, "stopped": 3},
    latency_ms=50,
    env=SLOW,
)
def poison(world: World) -> None:
    import_id = world.import_(world.library("texts", documents=60, chunks_each=40), "Texts")
    producer = Producer({"bootstrap.servers": world.stack.endpoints()["kafka"]})
    for number in range(1, 11):
        world.wait_settled(import_id, number * 150)
        for topic, partitions in TOPICS.items():
            send_poison(world, producer, topic, min(partitions, 4))
    # The embedder may be through with all chunks while poison still comes: then it has met enough of it in a row.
    until(
        lambda: _went_on(world, import_id) and world.is_ready(), 120, lambda: f"it waits: {_reasons(world)}"
    )
    world.drain(import_id)
    for topic, partitions in TOPICS.items():
        for number in range(ONLY_POISON):
            producer.produce(topic, value=world.chance.randbytes(40), partition=number % partitions)
        world.injected["only poison"] += ONLY_POISON
    assert producer.flush(20) == 0
    until(lambda: set(STOPPED) <= set(_reasons(world)), 60, lambda: f"some go on and on: {_reasons(world)}")
    world.injected["stopped"] += len(STOPPED)
    late = world.import_(world.library("late", documents=2, chunks_each=4), "Late")
    world.check(world.stack.request("GET", "/livez")[0] == 200, "a consumer that waits is not alive")
    world.check(
        world.stack.status(late)["waiting"] == "dead_letters", "nobody says what the import waits for"
    )
    until(lambda: _went_on(world, late), 60, lambda: f"it does not go on: {_reasons(world)}")
    world.drain(import_id, late)
    kept, poison_count = _letters(world), world.injected["poison"] + world.injected["only poison"]
    world.numbers["kept"] = kept
    world.check(
        kept >= poison_count, f"{kept} dead letters for {poison_count} records, some of several readers"
    )


def send_poison(world: World, producer: Producer, topic: str, count: int) -> None:
    for _ in range(count):
        kind = world.chance.randrange(4)
        value = (
            None,
            b"\x00",
            b"\x00\x00\x00\x00\x07" + world.chance.randbytes(20),
            world.chance.randbytes(50),
        )[kind]
        producer.produce(topic, value=value, partition=world.chance.randrange(TOPICS[topic]))
        world.injected["poison"] += 1
    assert producer.flush(20) == 0


def _reasons(world: World) -> list[str]:
    return list(world.stack.request("GET", "/readyz")[1]["reasons"])


def _went_on(world: World, import_id: str) -> bool:
    """Forty are two times as many as may come in a row, so an operator decides twice, for each who waits."""
    waiting = set(_reasons(world))
    for reason, name in STOPPED.items():
        if reason in waiting:
            world.post(f"{world.url(name)}/continue")
    return bool(world.stack.status(import_id)["state"] in DONE)


def _letters(world: World) -> int:
    return sum(1 for topic in LETTERS for _ in _read(world, topic, 1, lambda: True))


def _read(world: World, topic: str, partitions: int, is_over: Callable[[], bool]) -> Iterator[Record]:
    """Records of a topic from its start, on and on until it is over and the end is reached."""
    consumer = Consumer(
        {
            "bootstrap.servers": world.stack.endpoints()["kafka"],
            "group.id": "faults",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        silent = 0
        while silent < 10 or not is_over():
            records = [one for each in consumer.consume(200, timeout=0.2) if (one := record_of(each))]
            silent = 0 if records else silent + 1
            yield from records
    finally:
        consumer.close()


REPEATED_TOPICS = ("imports", "chunks", "embeddings")


@fault(
    "F19",
    "every record of imports, chunks and embeddings twice, out of order within a window; the seal last and first",
    {"imports": 100, "chunks": 2_000, "embeddings": 2_000, "sealed last": 1, "sealed first": 1},
    latency_ms=50,
    env=SLOW,
    program=LAUNCHER,
    needs_folder=True,
    others=("embedder",),
)
def repeats(world: World) -> None:
    is_over = threading.Event()
    threads = [
        threading.Thread(target=_repeat, args=(world, topic, is_over), daemon=True)
        for topic in REPEATED_TOPICS
    ]
    for thread in threads:
        thread.start()
    _seal_last(world)
    _seal_first(world)
    import_id = world.import_(world.library("texts", documents=60, chunks_each=40), "Texts")
    world.stack.wait(import_id, *TERMINAL)
    time.sleep(3)
    is_over.set()
    for thread in threads:
        thread.join(60)
    billed = len(world.provider.billed())
    world.drain()
    until(lambda: _lag(world) == 0, 60, "the repeats are not read")
    world.check(len(world.provider.billed()) == billed, "a repeat was billed")


def _seal_last(world: World) -> None:
    """All that is in the import has its outcome, and nobody says yet that this was all."""
    held = world.folder / "faults" / "held"
    held.write_text("ImportSealed")
    import_id = world.import_(world.library("last", documents=20, chunks_each=20), "Last")
    world.wait_parsed(import_id, 20)
    world.wait_settled(import_id, world.stack.status(import_id)["chunks"]["total"])
    world.check(
        world.stack.status(import_id)["state"] == "parsing", "it is sealed although nobody may say so"
    )
    held.unlink()
    world.stack.wait(import_id, *DONE)
    world.injected["sealed last"] += 1


def _seal_first(world: World) -> None:
    """No chunk has an outcome before the seal."""
    world.provider.tell(latency_ms=8_000)
    import_id = world.import_(world.library("first", documents=20, chunks_each=20), "First")
    until(
        lambda: world.stack.status(import_id)["state"] == "embedding",
        60,
        lambda: f"it is not sealed: {world.stack.status(import_id)}",
    )
    world.injected["sealed first"] += world.settled(import_id) == 0
    world.provider.tell(latency_ms=50)
    world.stack.wait(import_id, *DONE)


def _lag(world: World) -> int:
    return int(world.writer_status()["lag_count"])


def _repeat(world: World, topic: str, is_over: threading.Event) -> None:
    """Byte for byte, headers too, into the same partition; a window of records is shuffled before it goes out again."""
    producer = Producer({"bootstrap.servers": world.stack.endpoints()["kafka"]})
    window: list[Record] = []

    def out() -> None:
        world.chance.shuffle(window)
        for one in window:
            headers: list[tuple[str, str | bytes | None]] = [*one.headers, (REPEATED, b"1")]
            producer.produce(topic, key=one.key, value=one.value, headers=headers, partition=one.partition)
            world.injected[topic] += 1
        producer.flush(20)
        window.clear()

    for record in _read(world, topic, TOPICS[topic], is_over.is_set):
        if REPEATED not in dict(record.headers):
            window.append(record)
        if len(window) >= 100:
            out()
    out()


TEXT_CHARACTERS_MAX = 12_000_000
FILE_BYTES_MAX = 50 * 1024 * 1024
OVERHEAD_BYTES = 128 * 1024
"""What a topic allows a batch beyond its records, and more."""

# --- F15: sizes --------------------------------------------------------------------------------------------------


@fault(
    "F15",
    "records and files at, over and ten times over their limits",
    {"record": 9, "file": 3},
)
def sizes(world: World) -> None:
    import_id = world.import_(world.library("texts", documents=10, chunks_each=20), "Texts")
    limit = 4 * 1024 * 1024
    producer = Producer(
        {"bootstrap.servers": world.stack.endpoints()["kafka"], "message.max.bytes": 60_000_000}
    )
    outcomes: dict[str, int] = {"taken": 0, "refused": 0}

    def said(error: object, _message: object) -> None:
        outcomes["refused" if error else "taken"] += 1

    for topic in ("import-requests", "chunks", "embeddings"):
        for size in (limit - 200, limit + OVERHEAD_BYTES, 10 * limit):
            producer.produce(topic, value=world.chance.randbytes(size), partition=0, on_delivery=said)
            world.injected["record"] += 1
            producer.flush(60)
    world.check(outcomes == {"taken": 3, "refused": 6}, f"the broker: {outcomes}")
    word = "heron reeds water wind "
    for name, size, is_taken in (
        ("at", TEXT_CHARACTERS_MAX, True),
        ("over", TEXT_CHARACTERS_MAX + 1, False),
        ("ten", 10 * FILE_BYTES_MAX, False),
    ):
        folder = world.folder / "libraries" / name
        folder.mkdir(parents=True)
        text = "On size\n\n" + word * (min(size, FILE_BYTES_MAX) // len(word) + 1)
        with (folder / f"{name}.txt").open("wb") as file:
            file.write(text[:size].encode())
            file.truncate(size)
        world.injected["file"] += 1
        done = world.stack.command(
            "import", str(folder), "--project", name, "--no-wait", "--json", check=None
        )
        words = " ".join(done.stderr.split())
        world.check(
            (done.returncode == 0) is is_taken, f"a file {name} its limit: exit {done.returncode}, {words}"
        )
        world.check(is_taken or words, f"a file {name} its limit is refused without a word")
    world.drain(import_id)
