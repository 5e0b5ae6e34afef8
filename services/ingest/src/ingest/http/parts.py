"""What the HTTP side is given by `app.py`, and nothing else; each part can be replaced in a test."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import httpx

from eventlog.avro import Schemas
from eventlog.clock import Clock
from eventlog.events import Command, Source, SourceKind
from ingest.blobs import Blobs
from ingest.projection import Projection
from ingest.settings import IngestSettings


class Commands(Protocol):
    async def append(self, command: Command) -> None:
        """Returns when the log has acknowledged it. Raises TransientFailure, or UnprocessableRecord if too large."""


class FoundProblem(Protocol):
    @property
    def code(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def is_fatal(self) -> bool: ...


class Validation(Protocol):
    """What the parser says is in a source before it is imported."""

    @property
    def kind(self) -> SourceKind: ...
    @property
    def items(self) -> int: ...
    @property
    def pdfs_found(self) -> int: ...
    @property
    def pdfs_missing(self) -> int: ...
    @property
    def problems(self) -> Sequence[FoundProblem]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpParts:
    settings: IngestSettings
    projection: Projection
    commands: Commands
    blobs: Blobs
    validate: Callable[[Source], Awaitable[Validation]]
    clock: Clock
    schemas: Schemas
    client: httpx.AsyncClient
    """For embedders and the graph-writer."""
    is_rebuilding: Callable[[], bool]
    """Whether what is known of imports is being folded from nothing: it is not told until it is all there."""
    log_reasons: Callable[[], Sequence[str]]
    """Why the log's side is not ready (`catching_up`, `log_unavailable`); empty when it is."""
    has_nameless_letter: Callable[[str, datetime], Awaitable[bool]]
    """Whether a chunk of this space was dead-lettered since then and nobody can tell whose it was."""
    go_on: Callable[[], None] = lambda: None
    """An operator's word to go on after many dead letters in a row."""
    on_damage: Callable[[], None] = lambda: None
    """The projection's file cannot be read: whoever hears this ends the process, and the next one makes it again."""
    is_stopping: Callable[[], bool] = lambda: False
    """Streams end themselves then, so that a stop need not wait for their readers."""
