"""Faults of the store: its writer killed, its folder old or gone, points deleted behind its back."""

import json
import shutil
import signal
from pathlib import Path

from tests.e2e.edge_files import delete_points
from tests.e2e.stack import until
from tests.faults.catalogue import fault
from tests.faults.named_points import LAUNCHER
from tests.faults.world import DONE, STANDBY, TERMINAL, World

WRITER = "graph-writer"
WRITER_KILLS = 10
DELETED = 7
LATENCY_MS = 100
COLLECTION = "openai-test-embedding-64-1"


@fault(
    "F12",
    "writer or the standby that has taken over killed 10 times; its folder older, then deleted; points deleted behind its back",
    {"kill": WRITER_KILLS, "older": 1, "deleted": 1, "points": DELETED},
    latency_ms=LATENCY_MS,
    env={"PAPERLOG_REQUESTS_MAX": "8"},
    program=LAUNCHER,
    needs_folder=True,
    others=(WRITER,),
)
def store_losses(world: World) -> None:
    import_id = world.import_(world.library("texts", documents=200, chunks_each=40), "Texts")
    for number in range(WRITER_KILLS):
        world.wait_settled(import_id, 100 + number * 150)
        world.kill(_owner(world))
    world.provider.tell(latency_ms=5_000)  # or the import may be over before its store is lost
    world.give_store_back()
    older = copy_while_it_stands(world)
    world.wait_settled(import_id, 2_600)
    replace_store(world, older)
    _check_open(world, import_id)
    world.wait_settled(import_id, 3_200)
    until(lambda: has_opened(world), 60, "the writer does not get ready")
    world.start_other(WRITER)
    world.wait_up(STANDBY)
    replace_store(world, None)
    _check_open(world, import_id)
    world.provider.tell(latency_ms=LATENCY_MS)
    world.give_store_back()
    until(lambda: has_opened(world), world.finish_s_max, "the store is not filled again")
    world.drain()
    world.wait_watched()  # what is deleted now was there when the import was said to be complete
    billed = len(world.provider.billed())
    _delete_behind_its_back(world, import_id)
    world.check(len(world.provider.billed()) == billed, "the repair of the store was billed")


def _check_open(world: World, import_id: str) -> None:
    """A store that is lost behind the completion says nothing of settlements that are taken back before it."""
    state = world.stack.status(import_id)["state"]
    world.check(state not in TERMINAL, f"the import was {state} when its store was lost")


def _owner(world: World) -> str:
    """Who has the store, as the kernel tells by the lock of its folder."""
    names: dict[int | None, str] = {world.other_pid(STANDBY): STANDBY}
    owners: list[str] = []

    def is_owned() -> bool:
        inode = (world.stack.folder / "store" / "lock").stat().st_ino
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pids = [int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].endswith(f":{inode}")]
        names[world.pid(WRITER)] = WRITER
        owners.extend(names[pid] for pid in pids if pid in names)
        return bool(owners)

    until(is_owned, 60, "nobody has the store")
    return owners[0]


def copy_while_it_stands(world: World) -> Path:
    """What a snapshot of the disk would hold: the writer is stopped for the length of the copy, not asked to flush."""
    world.send(WRITER, signal.SIGSTOP)
    try:
        return Path(shutil.copytree(world.stack.folder / "store", world.folder / "older"))
    finally:
        world.send(WRITER, signal.SIGCONT)


def replace_store(world: World, by: Path | None) -> None:
    """Under a writer that has opened it, which must notice by itself, end and come back."""
    until(lambda: has_opened(world), 60, "the writer does not get ready")
    before = world.pid(WRITER)
    store = world.stack.folder / "store"
    world.send(WRITER, signal.SIGSTOP)
    store.rename(world.folder / f"lost-{world.injected.total()}")
    if by is not None:
        by.rename(store)
    world.send(WRITER, signal.SIGCONT)
    until(
        lambda: world.pid(WRITER) not in (None, before),
        60,
        "the writer does not notice that its store is gone",
    )
    world.injected["deleted" if by is None else "older"] += 1


def has_opened(world: World) -> bool:
    """Asked of the writer itself: what ingest says of it is a second old."""
    try:
        return bool(world.writer_status()["is_ready"])
    except (OSError, KeyError):
        return False


def _delete_behind_its_back(world: World, import_id: str) -> None:
    world.stack.stop()
    collection = world.stack.folder / "store" / COLLECTION
    deleted = _drawn(world, collection)
    delete_points(collection, deleted)
    world.injected["points"] += len(deleted)
    world.stack.start()
    said = json.loads(world.stack.command("verify", import_id, "--json", check=1).stdout)
    named = sorted(one["chunk_id"] for one in said["missing"])
    world.check(named == deleted, f"verify names {named[:3]}… of {deleted[:3]}…")
    world.check(said["extra_count"] == said["different_count"] == 0, f"verify says more: {said}"[:300])
    world.stack.command("resume", import_id)
    world.stack.wait(import_id, *DONE)
    world.stack.command("verify", import_id)
    world.drain()


def _drawn(world: World, collection: Path) -> list[str]:
    from tests.faults.auditor.reading import read_store

    points = read_store(collection.parent)[collection.name]
    passages = sorted(id_ for id_, point in points.items() if point.payload.get("kind") == "passage")
    return sorted(world.chance.sample(passages, DELETED))
