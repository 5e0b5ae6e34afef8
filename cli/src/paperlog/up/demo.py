"""What `make run` shows: the stack, a library going in, what came of it, three searches; then it serves.

Uses the service as any client does, over HTTP. Knows nothing of the stack's inside but its `endpoints.json`.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paperlog import show
from paperlog.failures import FAILED, Failure
from paperlog.importing import Request, request_import
from paperlog.not_used import FIRST_WARNINGS_MAX, show_rejections, show_warnings
from paperlog.plain import one_line, plain
from paperlog.progress import EXIT_CODES, count_of, follow, summary
from paperlog.service import Json, Service
from paperlog.up.command import say, up
from paperlog.up.memory import resident_mb
from paperlog.up.stack import Stack
from paperlog.watching import statuses

SEARCHES = 3
RESULTS_SHOWN = 2
_GRAPH_NODES_MAX = 5000


class _Stopping(Exception):  # noqa: N818 - not an error: somebody pressed Ctrl-C
    pass


@dataclass(slots=True)
class Demo:
    library: Path
    console: Console
    exit_code: int = 0

    def __call__(self, stack: Stack, is_stopping: Callable[[], bool]) -> None:
        """Runs in a thread of its own while the stack serves; what fails is said, and the stack goes on."""

        def say_or_end(text: str) -> None:
            # Who has to wait for the service says so; one that is being stopped is waited for by nobody.
            if is_stopping():
                raise _Stopping
            say(plain(text))

        try:
            with Service(stack.http, say=say_or_end) as service:
                self._show(stack, service, say_or_end)
        except _Stopping:
            return
        except Failure as failure:
            if is_stopping():
                return
            self.exit_code = FAILED
            for words in (failure.what, failure.why, failure.todo):
                if words:
                    say(plain(words))
        if not is_stopping():
            self._show_addresses(stack)

    def _show(self, stack: Stack, service: Service, say_: Callable[[str], None]) -> None:
        started = time.monotonic()
        request = Request(paths=(self.library,), project=None, kind="auto", key=None)
        accepted = request_import(service, request, self.console, say_)
        last = follow(statuses(service, str(accepted["import_id"]), say=say_, is_new=True), self.console)
        assert last is not None, "a watch ends with a status"
        took_s = time.monotonic() - started
        self.exit_code = FAILED if EXIT_CODES.get(str(last.get("state")), FAILED) == FAILED else 0
        graph = _graph(service, last)
        self._show_summary(stack, service, last, graph, took_s)
        for text in _searches(self.library, graph):
            answer = service.get(
                "/api/search", q=text, project=str(last.get("project_id")), limit=RESULTS_SHOWN
            )
            self.console.print()
            self.console.print(Text.assemble(("search: ", "bold"), one_line(text)))
            show.print_to(self.console, show.results(answer, text))

    def _show_summary(self, stack: Stack, service: Service, last: Json, graph: Json, took_s: float) -> None:
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for row in _rows(last, graph, took_s):
            table.add_row(*row)
        endpoints = json.loads((stack.data / "endpoints.json").read_text(encoding="utf-8"))
        sizes = resident_mb(endpoints["pids"])
        table.add_row("memory", ", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items()))
        self.console.print()
        show.print_to(self.console, table)
        self.console.print(summary(last), markup=False, highlight=False)
        show_rejections(service, last, self.console)
        show_warnings(service, last, self.console, FIRST_WARNINGS_MAX)

    def _show_addresses(self, stack: Stack) -> None:
        endpoints = json.loads((stack.data / "endpoints.json").read_text(encoding="utf-8"))
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, address in (
            ("page", f"{stack.http}/"),
            ("API", f"{stack.http}/docs"),
            ("Kafka", endpoints["kafka"]),
            ("command", f"{_command()} search TEXT --url {stack.http}"),
            ("data, logs", str(stack.data)),
        ):
            table.add_row(name, address)
        self.console.print()
        show.print_to(self.console, table)
        say("serving until Ctrl-C")


def _command() -> str:
    """As it can be typed here: beside the Python that runs this, which need not be on the PATH."""
    program = Path(sys.executable).with_name("paperlog")
    return os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)


def _graph(service: Service, last: Json) -> Json:
    path = f"/api/projects/{quote(str(last.get('project_id')), safe='')}/graph"
    return service.get(path, limit=_GRAPH_NODES_MAX)


def _rows(last: Json, graph: Json, took_s: float) -> list[tuple[str, str]]:
    nodes = graph.get("nodes") or ()
    kinds = Counter(str(node.get("type")) for node in nodes)
    more = " (of a part of the graph)" if len(nodes) >= _GRAPH_NODES_MAX else ""
    rejected = count_of(last, "documents", "rejected") + count_of(last, "chunks", "rejected")
    return [
        ("documents", f"{count_of(last, 'documents', 'stored'):,}"),
        ("chunks", f"{count_of(last, 'chunks', 'stored'):,}"),
        ("concepts", f"{kinds['Concept']:,}{more}"),
        ("rejected", f"{rejected:,}"),
        ("seconds", f"{took_s:.1f}"),
    ]


def _searches(library: Path, graph: Json) -> list[str]:
    """Those that stand beside the library, one a line before a tab; otherwise the concepts that most papers share."""
    own = library.with_name(f"{library.name}.searches.txt")  # Beside it: in it, it would be imported.
    if own.is_file():
        lines = own.read_text(encoding="utf-8").splitlines()
        return [text for line in lines if (text := line.split("\t")[0].strip())][:SEARCHES]
    names = {
        str(node["id"]): str(node.get("label") or "")
        for node in graph.get("nodes") or ()
        if node.get("type") == "Concept"
    }
    reached = Counter(
        str(edge.get("target"))
        for edge in graph.get("edges") or ()
        if edge.get("type") == "DISCUSSES_CONCEPT" and str(edge.get("target")) in names
    )
    return [names[node] for node, _ in reached.most_common(SEARCHES)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make run")
    parser.add_argument("library", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    wanted = parser.parse_args()
    demo = Demo(wanted.library.resolve(), Console(stderr=True))
    code = up(wanted.data, wanted.port, "local", on_ready=demo)
    demo.console.show_cursor()  # The progress display may have been cut short.
    return code or demo.exit_code
