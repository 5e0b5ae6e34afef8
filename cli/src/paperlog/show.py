"""How answers look on a terminal: tables, found passages, lists. Gets JSON, gives rich text; asks nobody."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paperlog.plain import one_line, plain
from paperlog.progress import STATES, count_of, problem_words, settled_count, waiting_words
from paperlog.service import Json

_WORD = re.compile(r"\w+")
_SHOWN_MAX = 50
_AUTHORS_MAX = 3
_IMPORTS_TABLE_WIDTH = 120


def status_table(status: Json) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _status_rows(status):
        table.add_row(name, Text(plain(value)))
    return table


def _status_rows(status: Json) -> Iterable[tuple[str, str]]:
    def counts(group: str, *names: str) -> str:
        return ", ".join(f"{count_of(status, group, name):,} {name.replace('_', '-')}" for name in names)

    state = str(status.get("state"))
    yield "import", str(status.get("import_id"))
    yield "project", one_line(status.get("project"))
    yield "state", STATES.get(state, state)
    if words := waiting_words(status):
        yield "waiting", words
    progress = status.get("progress")
    yield "progress", f"{progress:.0%}" if isinstance(progress, int | float) else ""
    yield "attempt", str(status.get("attempt"))
    yield "papers", counts("documents", "found", "parsed", "merged", "stored", "rejected")
    yield (
        "chunks",
        counts("chunks", "total", "embedded", "reused", "stored", "rejected", "dead_lettered", "superseded"),
    )
    yield "tokens billed", f"{status.get('tokens_billed') or 0:,}"
    yield "space", one_line(status.get("space"))
    yield "requested", _time(status.get("requested_at"))
    if status.get("finished_at"):
        yield "finished", _time(status.get("finished_at"))
    if status.get("digest"):
        yield "digest", one_line(status.get("digest"))
    if status.get("warnings"):
        yield "warnings", one_line(status.get("warnings"))
    if words := problem_words(status):
        yield "problem", words


def imports_list(imports: Sequence[Json], width: int) -> Table | Group:
    """One line each where that fits, otherwise two: an id is never broken, for it is there to be copied."""
    if width < _IMPORTS_TABLE_WIDTH:
        return Group(*(line for each in imports for line in _import_lines(each)))
    table = Table(box=None, pad_edge=False)
    table.add_column("import", no_wrap=True, min_width=36)
    table.add_column("project", overflow="fold")
    table.add_column("state", overflow="fold")
    for name in ("papers", "chunks"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("requested", no_wrap=True)
    for each in imports:
        table.add_row(*(Text(cell) for cell in _import_cells(each)))
    return table


def _import_cells(status: Json) -> tuple[str, ...]:
    state = str(status.get("state"))
    return (
        one_line(status.get("import_id")),
        one_line(status.get("project")),
        STATES.get(state, state) + (" (waiting)" if status.get("waiting") else ""),
        f"{count_of(status, 'documents', 'stored')}/{count_of(status, 'documents', 'found')}",
        f"{settled_count(status)}/{count_of(status, 'chunks', 'total')}",
        _time(status.get("requested_at")),
    )


def _import_lines(status: Json) -> Iterable[Any]:
    import_id, project, state, papers, chunks, requested = _import_cells(status)
    yield Text.assemble((import_id, "bold"), "  ", project)
    yield Padding(Text(f"{requested}  {state}  papers {papers}  chunks {chunks}"), (0, 0, 0, 2))


def validation(answer: Json) -> Group:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, key in (
        ("kind", "kind"),
        ("items", "items"),
        ("PDFs found", "pdfs_found"),
        ("PDFs missing", "pdfs_missing"),
    ):
        table.add_row(name, Text(one_line(answer.get(key))))
    problems = _dicts(answer.get("problems"))
    if not problems:
        return Group(table, Text("no problems"))
    return Group(table, Text(), problems_table(problems))


def problems_table(problems: Sequence[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("problem", no_wrap=True)
    table.add_column("where", overflow="fold")
    table.add_column("what", overflow="fold")
    for each in problems[:_SHOWN_MAX]:
        style = "bold red" if each.get("is_fatal") else "yellow"
        table.add_row(
            Text(one_line(each.get("code")), style=style),
            Text(one_line(each.get("subject"))),
            Text(one_line(each.get("message"))),
        )
    if len(problems) > _SHOWN_MAX:
        table.add_row(f"and {len(problems) - _SHOWN_MAX} more", "", "")
    return table


def rejections_table(rejections: Sequence[Json], count: int) -> Table:
    """`count` is how many there are, where those at hand are only the first."""
    table = Table(box=None, pad_edge=False)
    for name in ("rejected", "reason", "what"):
        table.add_column(name, overflow="fold")
    for each in rejections:
        table.add_row(*(Text(one_line(each.get(key))) for key in ("item", "reason", "message")))
    if count > len(rejections):
        table.add_row(f"and {count - len(rejections)} more", "", "")
    return table


def warnings_table(warnings: Sequence[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("warning", no_wrap=True)
    for name in ("where", "paper", "what"):
        table.add_column(name, overflow="fold")
    for each in warnings:
        table.add_row(*(Text(one_line(each.get(key))) for key in ("code", "subject", "title", "message")))
    return table


def results(answer: Json, query: str) -> Group:
    found = _dicts(answer.get("results"))
    parts: list[Any] = []
    for number, each in enumerate(found, 1):
        parts += [*_passage(number, each, query), Text()]
    return Group(*parts[:-1])


def _passage(number: int, result: Json, query: str) -> Iterable[Any]:
    head = Text(f"{number}. ", style="bold")
    head.append(one_line(result.get("title")) or "(without a title)", style="bold")
    yield head
    score = result.get("score")
    facts = [
        authors_words(result.get("creators")),
        one_line(result.get("year")),
        _place(result),
        _pages(result),
        f"score {score:.3f}" if isinstance(score, int | float) else "",
        " and ".join(f"by {one_line(name)}" for name in result.get("found_by") or ()),
    ]
    yield Padding(Text(" · ".join(fact for fact in facts if fact), style="dim"), (0, 0, 0, 3))
    words = [str(word) for word in result.get("words") or ()] or _WORD.findall(query)
    yield Padding(highlighted(one_line(result.get("text")), words), (0, 0, 0, 3))


def authors_words(creators: object) -> str:
    if not isinstance(creators, list):
        return one_line(creators)
    names = [_person(each) for each in creators]
    shown = "; ".join(name for name in names[:_AUTHORS_MAX] if name)
    return shown + (" and others" if len(names) > _AUTHORS_MAX else "")


def _person(creator: object) -> str:
    if isinstance(creator, dict):
        return one_line(f"{creator.get('given') or ''} {creator.get('family') or ''}")
    return one_line(creator)


def _place(result: Json) -> str:
    kind = one_line(result.get("kind"))
    return one_line(result.get("section")) or ("" if kind == "passage" else kind)


def _pages(result: Json) -> str:
    first, last = result.get("page_first"), result.get("page_last")
    if first is None:
        return ""
    return f"p. {first}" if last in (None, first) else f"pp. {first}-{last}"


def highlighted(text: str, words: Iterable[str]) -> Text:
    """Whole words, whatever their case; a word that was matched by its stem is found by its beginning."""
    shown = Text(text)
    stems = sorted({re.escape(plain(word)) for word in words if word.strip()}, key=len, reverse=True)
    if stems:
        shown.highlight_regex(re.compile(rf"(?i)\b(?:{'|'.join(stems)})\w*"), style="bold yellow")
    return shown


def verification(answer: Json) -> Group:
    is_clean = bool(answer.get("is_clean"))
    head = Text(
        f"{answer.get('checked_count', 0):,} points checked: "
        + ("the store has exactly what the log says" if is_clean else "the store differs from the log"),
        style="green" if is_clean else "bold red",
    )
    parts: list[Any] = [head]
    for name in ("missing", "extra", "different"):
        points = _dicts(answer.get(name))
        if not points:
            continue
        count = answer.get(f"{name}_count", len(points))
        table = Table(title=f"{name}: {count}", title_justify="left", box=None, pad_edge=False)
        table.add_column("what", no_wrap=True)
        table.add_column("id", no_wrap=True)
        table.add_column("paper", overflow="fold")
        for each in points[:_SHOWN_MAX]:
            table.add_row(
                Text(one_line(each.get("kind")) or "chunk"),
                Text(one_line(each.get("chunk_id") or each.get("id"))),
                Text(one_line(each.get("title") or each.get("document_id"))),
            )
        if len(points) > _SHOWN_MAX:
            table.add_row("…", "", f"and more; --json has up to {len(points)}")
        parts.append(table)
    return Group(*parts)


def print_to(console: Console, renderable: Any) -> None:
    """Without the spaces by which tables fill their last column: what is copied or piped has none at its ends."""
    with console.capture() as captured:
        console.print(renderable, markup=False, highlight=False, soft_wrap=False)
    lines = (line.rstrip(" ") for line in captured.get().split("\n"))
    console.file.write("\n".join(lines))
    console.file.flush()


def _time(value: object) -> str:
    return one_line(value).replace("T", " ")[:19]


def _dicts(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
