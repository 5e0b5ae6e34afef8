"""From paths on this machine to an import that the service has accepted. Following it is `watching.py`'s business."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from paperlog.failures import WRONG_USAGE, Failure
from paperlog.local_files import LocalFile, Selection, select
from paperlog.plain import one_line
from paperlog.service import Json, Service
from paperlog.uploading import Uploaded, default_key, source_of, upload

_LEFT_OUT_SAID_MAX = 10
_CAN_GO_ON = frozenset({"cancelled", "failed", "completed_with_rejections"})
_EXPORTS = (".rdf", ".bib", ".ris", ".csv", ".json")
"""Zotero writes `files/` beside each."""
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,198}[\x21-\x7e])?")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    paths: tuple[Path, ...]
    project: str | None
    kind: str
    key: str | None


def request_import(service: Service, request: Request, console: Console, say: Say) -> Json:
    """The status of the import; says whether it is new. Nothing is accepted before every file is there."""
    if request.key is not None and not _KEY.fullmatch(request.key):
        raise Failure(
            "This idempotency key cannot be sent",
            why="It is put into a header: 1 to 200 ASCII letters, digits and signs, with no space at its ends.",
            code=WRONG_USAGE,
        )
    selection = _selected(request.paths, say)
    uploaded = _uploaded(service, selection, console)
    project = request.project or selection.project
    key = request.key or default_key(request.kind, project, uploaded)
    body = {"source": source_of(request.kind, uploaded), "project": project}
    _, accepted = service.post("/api/imports", body, headers={"Idempotency-Key": key})
    if "import_id" not in accepted:
        raise service.stranger()
    if accepted.get("is_new") is False:
        say(
            f"already imported into {project!r}: the same files are the same import, and nothing is done twice"
        )
        if accepted.get("state") in _CAN_GO_ON:
            say(f"what is missing in it is tried again by: paperlog resume {accepted['import_id']}")
    return accepted


def validate_files(service: Service, paths: Sequence[Path], kind: str, console: Console, say: Say) -> Json:
    selection = _selected(paths, say)
    uploaded = _uploaded(service, selection, console)
    _, answer = service.post(
        "/api/imports/validate",
        {"source": source_of(kind, uploaded), "project": selection.project},
        is_slow=True,
    )
    return answer


def _selected(paths: Sequence[Path], say: Say) -> Selection:
    selection = select(paths)
    for each in selection.left_out[:_LEFT_OUT_SAID_MAX]:
        say(f"left out: {one_line(each.path)} ({each.why})")
    if (rest := len(selection.left_out) - _LEFT_OUT_SAID_MAX) > 0:
        say(f"left out: {rest} more")
    alone = selection.files[0]
    if len(selection.files) == 1 and alone.name.lower().endswith(_EXPORTS):
        folder = alone.path.parent / "files"
        if folder.is_dir():
            say(f"without {one_line(folder)}; to import its PDFs too, name the folder {alone.path.parent}")
    return selection


def _uploaded(service: Service, selection: Selection, console: Console) -> list[Uploaded]:
    columns = (
        TextColumn("uploading", style="bold", markup=False, table_column=Column(min_width=9)),
        BarColumn(bar_width=24, table_column=Column(min_width=4)),
        MofNCompleteColumn(table_column=Column(min_width=2 * len(str(len(selection.files))) + 1)),
        TextColumn("files  {task.fields[name]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(selection.files), name="")

        def on_file(file: LocalFile, is_sent: bool) -> None:
            progress.update(
                task, advance=1, name=one_line(file.name) + ("" if is_sent else " (is there already)")
            )

        return upload(service, selection, on_file)
