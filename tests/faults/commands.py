"""Faults of those who ask: commands in every state and twice at once; several imports that bring one document."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.catalogue import fault
from tests.faults.world import DONE, SERVICES, TERMINAL, World

SLOW = {"PAPERLOG_REQUESTS_MAX": "8"}
STATES = ("accepted", "parsing", "embedding", "completed", "cancelled")


def at_once(*calls: Callable[[], tuple[int, Any]]) -> list[tuple[int, Any]]:
    """The answers to calls that begin together, in no order."""
    answers: list[tuple[int, Any]] = []
    start = threading.Barrier(len(calls))

    def one(call: Callable[[], tuple[int, Any]]) -> None:
        start.wait()
        answers.append(call())

    threads = [threading.Thread(target=one, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


@fault(
    "F20",
    "cancel and resume in every state, twice at once from two clients",
    {"cancel": 2 * len(STATES), "resume": 2 * len(STATES)},
    latency_ms=150,
    env=SLOW,
    others=SERVICES,
)
def commands_in_every_state(world: World) -> None:
    for state in STATES:
        import_id = world.import_(world.library(state, documents=30, chunks_each=30), f"In {state}")
        _bring_to(world, import_id, state)
        attempt = world.stack.status(import_id)["attempt"]
        said = _twice(world, import_id, "cancel")
        if state == "completed":
            world.check({code for code, _ in said} == {409}, f"{state}: cancelled all the same: {said}")
        else:
            world.check({code for code, _ in said} <= {200, 202}, f"{state}: cancel answered {said}")
            world.stack.wait(import_id, "cancelled")
        said = _twice(world, import_id, "resume")
        world.check({code for code, _ in said} <= {200, 202}, f"{state}: resume answered {said}")
        status = world.stack.wait(import_id, *DONE)
        expected = attempt if state == "completed" else max(attempt, 1) + 1
        world.check(
            status["attempt"] == expected,
            f"{state}: attempt {attempt} became {status['attempt']}, not {expected}",
        )
        _both_at_once(world, import_id)
    world.drain()


def _bring_to(world: World, import_id: str, state: str) -> None:
    match state:
        case "parsing":
            world.wait_parsed(import_id, 3)
        case "embedding":
            world.wait_settled(import_id, 60)
        case "completed":
            world.stack.wait(import_id, *DONE)
        case "cancelled":
            world.wait_settled(import_id, 60)
            world.stack.request("POST", f"/api/imports/{import_id}/cancel")
            world.stack.wait(import_id, "cancelled")


def _twice(world: World, import_id: str, command: str) -> list[tuple[int, Any]]:
    path = f"/api/imports/{import_id}/{command}"
    answers = at_once(*[lambda: world.stack.request("POST", path)] * 2)
    world.injected[command] += len(answers)
    return answers


def _both_at_once(world: World, import_id: str) -> None:
    """On an import that has completed: neither a cancel nor a resume changes what is whole."""
    before = world.stack.status(import_id)
    path = f"/api/imports/{import_id}"
    at_once(
        lambda: world.stack.request("POST", f"{path}/cancel"),
        lambda: world.stack.request("POST", f"{path}/resume"),
    )
    after = world.stack.wait(import_id, *TERMINAL)
    world.check(after["attempt"] == before["attempt"], "a command on what is whole began another attempt")


DOI = "10.5555/heron.2024.1"


def _paper(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "paper.txt").write_text(f"On herons and reeds\n\ndoi: {DOI}\n\n{text}\n")
    return folder / name


@fault(
    "F14",
    "one document by several imports: two projects, both orders, changed, its facts alone",
    {"import": 10},
    latency_ms=20,
    others=SERVICES,
)
def one_document_by_many(world: World) -> None:
    sentences = [
        f"Heron number {n} stood {n} hours in the reeds and saw {n * 7} fish pass by. " for n in range(400)
    ]
    old, new = " ".join(sentences), " ".join([*sentences[:150], "The reeds burned down. ", *sentences[200:]])
    folder = world.folder / "libraries"
    same, again, changed = (
        _paper(folder, name, text) for name, text in (("same", old), ("again", old), ("changed", new))
    )
    facts = folder / "facts"
    facts.mkdir()
    (facts / "facts.json").write_text(
        json.dumps(
            [{"id": "1", "type": "article-journal", "title": "On herons and reeds, in print", "DOI": DOI}]
        )
    )
    _import_all(world, [(same, "One"), (same, "Two")])
    for number in range(2):
        pair = [(same, f"Order {number}"), (again, f"Order {number}")]
        _import_all(world, pair if number == 0 else pair[::-1], key=f"order-{number}")
    _import_all(world, [(changed, "One")], key="changed")
    _import_all(world, [(facts, "One")], key="facts")
    _import_all(world, [(facts, "Two"), (changed, "Two")], key="both")
    world.drain()
    for project in ("One", "Two", "Order 0", "Order 1"):
        graph = json.loads(world.stack.command("graph", project, "--format", "json").stdout)
        papers = [node for node in graph["nodes"] if node["type"] == "Paper"]
        world.check(len(papers) == 1, f"{project} has {len(papers)} papers")
    graph = json.loads(world.stack.command("graph", "One", "--format", "json").stdout)
    label = next(node["label"] for node in graph["nodes"] if node["type"] == "Paper")
    world.check(label.endswith("in print"), f"the newest facts are not shown: {label}")


def _import_all(world: World, libraries: list[tuple[Path, str]], key: str = "") -> None:
    """One after the other without waiting for the end of one, then all are waited for."""
    ids = []
    for number, (library, project) in enumerate(libraries):
        more = ("--idempotency-key", f"{key}-{number}") if key else ()
        ids.append(world.stack.import_folder(library, project, *more))
        world.injected["import"] += 1
    for import_id in ids:
        status = world.stack.wait(import_id, *TERMINAL)
        world.check(status["state"] in DONE, f"an import of {key or 'the same'} ended as {status['state']}")
