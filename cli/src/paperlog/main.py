"""The command that people type. Each command here reads its arguments and prints; what it does stands in its own module.

Stdout carries what was asked and nothing else; every other word goes to stderr. Exit codes: 0 done, 1 failed,
2 wrong usage, 3 completed with rejected items, 130 ended by Ctrl-C.
"""

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import httpx
import typer
from rich.console import Console

from paperlog import show
from paperlog.failures import FAILED, INTERRUPTED, WRONG_USAGE, Failure
from paperlog.graphml import NotAGraph, write_graphml
from paperlog.importing import Request, request_import, validate_files
from paperlog.not_used import FIRST_WARNINGS_MAX, WARNINGS_MAX, show_rejections, show_warnings
from paperlog.plain import json_text, plain, safe_json
from paperlog.progress import EXIT_CODES, follow, summary
from paperlog.service import DEFAULT_URL, Json, Service
from paperlog.watching import TERMINAL, statuses

app = typer.Typer(
    name="paperlog",
    help="Import a research library, search it, look at its graph.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Kind(StrEnum):
    auto = "auto"
    zotero_rdf = "zotero_rdf"
    pdf = "pdf"
    scholarag = "scholarag"
    csl_json = "csl_json"
    bibtex = "bibtex"
    ris = "ris"
    zotero_csv = "zotero_csv"
    docx = "docx"
    epub = "epub"
    text = "text"
    mixed = "mixed"


class Mode(StrEnum):
    hybrid = "hybrid"
    meaning = "meaning"
    words = "words"


class GraphFormat(StrEnum):
    json = "json"
    graphml = "graphml"


Url = Annotated[
    str, typer.Option("--url", envvar="PAPERLOG_URL", help="Address of the service.", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ImportId = Annotated[str, typer.Argument(metavar="ID", help="The import's id, as `import` printed it.")]
Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH…",
        help="An export of Zotero or another program, PDFs, DOCX, EPUB, texts; a folder or a zip of them.",
    ),
]
KindOption = Annotated[Kind, typer.Option(help="What it is, where that cannot be seen.")]
PAGE_MAX = 200
"""So many imports the service lists at once."""
NODES_MAX = 1_000_000
"""All that the service gives: it has limits of its own, and says so where they cut something."""
WAIT_HELP = "Follow the import to its end. Default: where messages go to a terminal."


def say(text: str) -> None:
    print(f"paperlog: {plain(text)}", file=sys.stderr, flush=True)  # noqa: T201 - the terminal is the interface


def _out() -> Console:
    """Plain and as wide as its longest line where it is no terminal, so that grep and less see whole lines."""
    is_terminal = sys.stdout.isatty()
    return Console(file=sys.stdout, highlight=False, width=None if is_terminal else 160)


def _err() -> Console:
    return Console(file=sys.stderr, highlight=False, width=None if sys.stderr.isatty() else 160)


def _as_utf8() -> None:
    """JSON and our XML are UTF-8, whatever the terminal is set to."""
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a text stream


def _print_json(value: Any) -> None:
    _as_utf8()
    sys.stdout.write(json_text(value) + "\n")


def _service(url: str) -> Service:
    return Service(url, say=say)


def _of(import_id: str, *rest: str) -> str:
    try:
        known = UUID(import_id.strip())
    except ValueError:
        raise Failure(
            f"{import_id!r} is not the id of an import",
            todo="List them with: paperlog imports",
            code=WRONG_USAGE,
        ) from None
    return "/".join(["/api/imports", str(known), *rest])


@app.callback()
def paperlog() -> None:
    """Import a research library, search it, look at its graph."""


@app.command()
def up(
    data: Annotated[Path, typer.Option(help="Folder of this stack's log, store and files.")] = Path("var"),
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.", min=0, max=65535)] = 8800,
    embedding: Annotated[
        str, typer.Option(help="Model of new projects, provider/model\\[@dims]; `local` needs no key.")
    ] = "local",
) -> None:
    """Run the whole stack here, in the foreground: Kafka, the services, the page."""
    from paperlog.up.command import up as run_up  # noqa: PLC0415 - other commands start without the stack's modules

    raise typer.Exit(run_up(data, port, embedding))


@app.command("import")
def import_(
    paths: Paths,
    url: Url = DEFAULT_URL,
    project: Annotated[
        str | None, typer.Option(help="Project to import into. Default: the name of the file or folder.")
    ] = None,
    kind: KindOption = Kind.auto,
    wait: Annotated[bool | None, typer.Option("--wait/--no-wait", help=WAIT_HELP, show_default=False)] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="The same key is the same import. Default: from project, names and contents."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Upload files, a folder or a zip, and import them. Prints the import's id."""
    with _service(url) as service:
        request = Request(paths=tuple(paths), project=project, kind=kind.value, key=idempotency_key)
        try:
            accepted = request_import(service, request, _err(), say)
        except KeyboardInterrupt:
            say(
                "stopped. What was uploaded is kept; if the import was accepted, `paperlog imports` lists it."
            )
            raise typer.Exit(INTERRUPTED) from None
        import_id = str(accepted["import_id"])
        if not as_json:
            sys.stdout.write(f"{import_id}\n")
            sys.stdout.flush()
        if not (sys.stderr.isatty() if wait is None else wait):
            if as_json:
                _print_json(accepted)
            is_over = accepted.get("state") in TERMINAL
            say(
                f"it has ended before; look with: paperlog status {import_id}"
                if is_over
                else f"it is being imported; look with: paperlog watch {import_id}"
            )
            return
        code = _follow(service, import_id, as_json=as_json, is_new=True)
    raise typer.Exit(code)


def _follow(service: Service, import_id: str, *, as_json: bool, is_new: bool = False) -> int:
    """Shows an import to its end; the exit code says how it ended."""
    try:
        last = follow(statuses(service, import_id, say=say, is_new=is_new), _err())
    except KeyboardInterrupt:
        say(
            f"not watching any more; the import goes on.\n"
            f"  watch it:  paperlog watch {import_id}\n  cancel it: paperlog cancel {import_id}"
        )
        return INTERRUPTED
    assert last is not None, "a watch ends with a status"
    say(summary(last))
    show_rejections(service, last, _err())
    show_warnings(service, last, _err(), FIRST_WARNINGS_MAX)
    if last.get("state") == "failed":
        say(f"when the reason is gone: paperlog resume {import_id}")
    if as_json:
        _print_json(last)
    return EXIT_CODES.get(str(last.get("state")), FAILED)


@app.command()
def validate(
    paths: Paths, url: Url = DEFAULT_URL, kind: KindOption = Kind.auto, as_json: AsJson = False
) -> None:
    """Say what is in files, a folder or a zip, without importing. Exit code 1 where an import would be refused."""
    with _service(url) as service:
        answer = validate_files(service, paths, kind.value, _err(), say)
    if as_json:
        _print_json(answer)
    else:
        show.print_to(_out(), show.validation(answer))
    if any(each.get("is_fatal") for each in answer.get("problems") or ()):
        raise typer.Exit(FAILED)


@app.command()
def status(import_id: ImportId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Say how far an import is."""
    with _service(url) as service:
        answer = service.get(_of(import_id))
        if as_json:
            _print_json(answer)
        else:
            out = _out()
            show.print_to(out, show.status_table(answer))
            show_rejections(service, answer, out)
            show_warnings(service, answer, out, WARNINGS_MAX)


@app.command()
def imports(
    url: Url = DEFAULT_URL,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List imports, newest first."""
    found: list[Json] = []
    before = None
    with _service(url) as service:
        while len(found) < limit:
            page = min(limit - len(found), PAGE_MAX)
            answer = service.get("/api/imports", project=project, limit=page, before=before)
            found += answer.get("imports") or []
            before = answer.get("next")
            if before is None:
                break
    if as_json:
        _print_json({"imports": found, "next": before})
    elif found:
        out = _out()
        show.print_to(out, show.imports_list(found, out.width))
    else:
        say("no imports yet; begin with: paperlog import PATH")
    if before is not None and not as_json:
        say(f"there are more; ask with --limit {limit * 2}")


@app.command()
def watch(import_id: ImportId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Follow an import live to its end; the exit code says how it ended. With --json: one status a line, as they come."""
    with _service(url) as service:
        service.get(
            _of(import_id)
        )  # An id that nobody knows is said at once, and a service that is not there.
        if not as_json:
            code = _follow(service, import_id, as_json=False)
        else:
            last: Json = {}
            for last in statuses(service, import_id, say=say):
                sys.stdout.write(json_text(last, indent=None) + "\n")
                sys.stdout.flush()
            code = EXIT_CODES.get(str(last.get("state")), FAILED)
    raise typer.Exit(code)


@app.command()
def resume(import_id: ImportId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Drive what an import is missing; nothing is uploaded or paid again."""
    with _service(url) as service:
        code, answer = service.post(_of(import_id, "resume"), is_slow=True)
    if as_json:
        _print_json(answer)
    if code == 202:
        say(f"it goes on; look with: paperlog watch {import_id}")
    elif str(answer.get("state", "")).startswith("completed"):
        say("nothing is missing: the store has all that the log says")
    else:
        say(f"it is running already; look with: paperlog watch {import_id}")


@app.command()
def cancel(import_id: ImportId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Stop an import. What is stored stays and is found; `resume` goes on with it."""
    with _service(url) as service:
        code, answer = service.post(_of(import_id, "cancel"))
    if as_json:
        _print_json(answer)
    if code == 202:
        say(f"cancelled; what is stored stays. To go on: paperlog resume {import_id}")
    else:
        say("it was cancelled before")


@app.command()
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT")],
    url: Url = DEFAULT_URL,
    project: Annotated[str | None, typer.Option(help="Only in this project (name or id).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 10,
    mode: Annotated[Mode, typer.Option(help="By meaning, by words, or both.")] = Mode.hybrid,
    as_json: AsJson = False,
) -> None:
    """Find passages, abstracts and titles."""
    if not text.strip():
        raise Failure("There is nothing to search for", todo="Write some words.", code=WRONG_USAGE)
    with _service(url) as service:
        answer = service.get("/api/search", q=text, project=project, limit=limit, mode=mode.value)
    if answer.get("message"):
        say(str(answer["message"]))
    if as_json:
        _print_json(answer)
    elif answer.get("results"):
        show.print_to(_out(), show.results(answer, text))
    else:
        say("nothing found")


@app.command()
def graph(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Name or id.")],
    url: Url = DEFAULT_URL,
    format_: Annotated[GraphFormat, typer.Option("--format", help="GraphML opens in Gephi and networkx.")] = (
        GraphFormat.json
    ),
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print a project's nodes and edges."""
    if as_json and format_ is GraphFormat.graphml:
        raise Failure("--json and --format graphml exclude each other", code=WRONG_USAGE)
    with _service(url) as service:
        path = f"/api/projects/{quote(project, safe='')}/graph"
        try:
            with service.stream(path, limit=NODES_MAX) as response:
                _print_graph(service, response, project, format_)
        except httpx.TransportError as error:
            raise service.not_there(error) from error
        except NotAGraph as error:
            raise Failure("The graph did not come whole", why=str(error), todo="Ask again.") from error


def _print_graph(service: Service, response: httpx.Response, project: str, format_: GraphFormat) -> None:
    if not response.headers.get("Content-Type", "").startswith("application/json"):
        raise service.stranger()
    _as_utf8()
    if format_ is GraphFormat.graphml:
        written = write_graphml(response.iter_text(), sys.stdout, project=project)
        say(f"{written.node_count:,} nodes, {written.edge_count:,} edges")
        is_cut = written.is_cut
    else:
        tail = ""
        for piece in response.iter_text():
            sys.stdout.write(safe_json(piece))
            tail = (tail + piece)[-100:]
        sys.stdout.write("\n")
        is_cut = '"truncated":true' in tail.replace(" ", "")
    if is_cut:
        say("this is not the whole graph: the service leaves out what is beyond its limits")


@app.command()
def verify(import_id: ImportId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Compare the store with the log. Exit code 1 where points are missing, extra or different."""
    with _service(url) as service:
        _, answer = service.post(_of(import_id, "verify"), is_slow=True)
    if as_json:
        _print_json(answer)
    else:
        show.print_to(_out(), show.verification(answer))
    if not answer.get("is_clean"):
        say(f"to bring back what is missing: paperlog resume {import_id}")
        raise typer.Exit(FAILED)


@app.command("schemas-register")
def schemas_register(
    registry: Annotated[
        str,
        typer.Option(
            envvar="SCHEMA_REGISTRY_URL", help="Address of the schema registry.", show_default=False
        ),
    ] = "",
) -> None:
    """Write the schemas under their own ids into a schema registry of yours. What is there already is left alone."""
    from paperlog.registering import register  # noqa: PLC0415 - other commands start without Avro

    done = register(
        registry,
        environ=os.environ,
        said=lambda one: print(f"{one.subject} version {one.schema.version} id {one.schema.id}", flush=True),  # noqa: T201 - what was asked for
    )
    say(f"{len(done.new)} registered, {done.known_count} were there")


def _guarded(run: Callable[[], None]) -> int:
    try:
        run()
    except Failure as failure:
        _say_failure(failure)
        return failure.code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has seen enough. Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say_failure(failure: Failure) -> None:
    say(failure.what)
    for head, words in (("why", failure.why), ("what to do", failure.todo)):
        for number, line in enumerate(plain(words).splitlines()):
            lead = f"{head}: " if number == 0 else " " * (len(head) + 2)
            print(f"  {lead}{line}", file=sys.stderr)  # noqa: T201 - the terminal is the interface


def main() -> int:
    """The exit code. No traceback reaches a person for anything that can happen outside this program."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter shows its number.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # text streams, both
    return _guarded(app)


if __name__ == "__main__":
    sys.exit(main())
