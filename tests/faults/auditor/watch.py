"""`python -m tests.faults.auditor.watch DATA OUT`: looks at a running stack until it is ended, one JSON line a look.

Progress of each import over HTTP and over SSE; anonymous memory of each service; problem documents; and, as soon as an
`ImportCompleted` is readable, what the live store answers for that import.
"""

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from confluent_kafka import Consumer, TopicPartition
from tests.faults.auditor.reading import Reader, record_of

LOOK_EVERY_S = 0.4
ASKED_S_MAX = 90.0


class Out:
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def say(self, kind: str, said: Any) -> None:
        with self._lock:
            self._file.write(json.dumps([kind, said]) + "\n")
            self._file.flush()


class Stack:
    def __init__(self, data: Path, out: Out) -> None:
        self._data = data
        self._out = out

    def endpoints(self) -> dict[str, Any]:
        """Empty while the stack is away."""
        try:
            return dict(json.loads((self._data / "endpoints.json").read_text()))
        except (OSError, ValueError):
            return {}

    def open(self, method: str, path: str, timeout_s: float = 30) -> Any:
        request = urllib.request.Request(self.endpoints()["http"] + path, method=method)
        return urllib.request.urlopen(request, timeout=timeout_s)

    def ask(self, method: str, path: str, timeout_s: float = 30) -> Any:
        """None where there is no answer that counts; what it says instead is kept."""
        try:
            with self.open(method, path, timeout_s) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            self._out.say("problem", error.read().decode(errors="replace"))
        except (OSError, ValueError, KeyError):
            pass
        return None


def _progress(status: dict[str, Any], via: str) -> dict[str, Any]:
    chunks = status["chunks"]
    settled = sum(chunks[name] for name in ("stored", "rejected", "dead_lettered", "superseded"))
    return {
        "import_id": status["import_id"], "via": via, "attempt": status["attempt"],
        "progress": status["progress"], "settled": settled, "total": chunks["total"],
    }  # fmt: skip


def watch_progress(stack: Stack, out: Out) -> None:
    followed: set[str] = set()
    while True:
        for status in (stack.ask("GET", "/api/imports?limit=200") or {"imports": []})["imports"]:
            out.say("progress", _progress(status, "http"))
            if status["import_id"] not in followed and len(followed) < 4:
                followed.add(status["import_id"])
                threading.Thread(target=_follow, args=(stack, out, status["import_id"]), daemon=True).start()
        pids = {n: p for n, p in stack.endpoints().get("pids", {}).items() if p and n != "kafka"}
        out.say("memory", {name: _anonymous_kb(pid) for name, pid in pids.items()})
        time.sleep(LOOK_EVERY_S)


def _follow(stack: Stack, out: Out, import_id: str) -> None:
    """Over SSE, opened anew with `Last-Event-ID` whenever it ends."""
    last = ""
    while True:
        try:
            request = urllib.request.Request(f"{stack.endpoints()['http']}/api/imports/{import_id}/events")
            if last:
                request.add_header("Last-Event-ID", last)
            with urllib.request.urlopen(request, timeout=40) as answer:
                for name, id_, data in _events(answer):
                    last = id_
                    if name == "status":
                        out.say("progress", _progress(data, "sse"))
        except (OSError, KeyError, ValueError):
            pass
        time.sleep(1)


def _events(lines: Any) -> Iterator[tuple[str, str, Any]]:
    event: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            event[name] = value
        elif event.get("event"):
            yield event["event"], event["id"], json.loads(event["data"])
            event = {}


def _anonymous_kb(pid: int) -> int:
    """Of the process and its children."""
    total = 0
    try:
        for each in [pid, *_children(pid)]:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous:"))
    except OSError:
        pass  # gone in between
    return total


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [each for child in map(int, text.split()) for each in (child, *_children(child))]


def watch_completions(stack: Stack, out: Out) -> None:
    reader, offset = Reader(), 0
    while True:
        bootstrap = stack.endpoints().get("kafka")
        if bootstrap is None:
            time.sleep(LOOK_EVERY_S)
            continue
        consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "auditor-watch",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )
        try:
            consumer.assign([TopicPartition("imports", 0, offset)])
            while stack.endpoints().get("kafka") in (bootstrap, None):
                message = consumer.poll(LOOK_EVERY_S)
                record = None if message is None else record_of(message)
                if record is None:
                    continue
                offset = record.offset + 1
                fact = reader.fact(record)
                if fact is not None and fact.type == "ImportCompleted":
                    out.say("counted", _count(stack, fact.body))
        finally:
            consumer.close()


def _count(stack: Stack, completed: dict[str, Any]) -> dict[str, Any]:
    """Asked until it answers: a service may be dead just now, and what it then says must be as true."""
    id_, deadline = completed["import_id"], time.monotonic() + ASKED_S_MAX
    answer = None
    while answer is None and time.monotonic() < deadline:
        # 100,000 chunks take a minute; given up and asked anew, they would be looked at twice at once.
        answer = stack.ask("POST", f"/api/imports/{id_}/verify", ASKED_S_MAX)
        if answer is None:
            time.sleep(LOOK_EVERY_S)
    status = stack.ask("GET", f"/api/imports/{id_}") or {}
    return {
        "import_id": id_, "attempt": completed["attempt"], "stored": completed["stored_count"],
        "checked": (answer or {}).get("checked_count", 0), "missing": (answer or {}).get("missing_count", 0),
        "answered": answer is not None, "is_current": status.get("attempt") == completed["attempt"],
    }  # fmt: skip


def main() -> None:
    with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
        out = Out(file)
        stack = Stack(Path(sys.argv[1]), out)
        threading.Thread(target=watch_progress, args=(stack, out), daemon=True).start()
        watch_completions(stack, out)


if __name__ == "__main__":
    main()
