"""From a request to an acknowledged command: one import for one key, whoever asks at once, and nothing lost.

The leader decides; here is remembered, for a while, what was just written and is not folded yet, so that a second
request with the same key and a first look at the status find it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakValueDictionary

from eventlog.events import RequestImport, Source
from eventlog.ids import ImportId, import_id_of_key, new_import_id, project_id
from eventlog.logs import Logger
from ingest.http.asked import Asked
from ingest.http.metrics import IMPORTS_ACCEPTED
from ingest.http.parts import HttpParts, Validation
from ingest.http.problems import Problem
from ingest.requests import request_sha256
from ingest.state import ChunkCounts, DocumentCounts, ImportStatus, State
from ingest.uploads import build_source, shown

_log = Logger("ingest.http")

CALLER = "anonymous"
"""There is no sign-in yet; an address is never a caller."""
FOLDED_WITHIN_S = 2.0
"""How long an answer waits for its own command to come back from the log."""
REMEMBERED_MAX = 2_000


class Accepting:
    def __init__(self, parts: HttpParts) -> None:
        self._parts = parts
        self._projection = parts.projection
        self._locks: WeakValueDictionary[ImportId, asyncio.Lock] = WeakValueDictionary()
        self._written: OrderedDict[ImportId, tuple[str, ImportStatus]] = OrderedDict()

    def status(self, import_id: ImportId) -> ImportStatus | None:
        """As folded, or as just accepted."""
        status = self._projection.status(import_id)
        if status is None and import_id in self._written:
            return self._written[import_id][1]
        return status

    async def accept(self, asked: Asked, key: str | None) -> tuple[ImportStatus, bool]:
        """The import and whether it is new. Raises Problem; TransientFailure when the log does not take it."""
        import_id = new_import_id() if key is None else import_id_of_key(CALLER, key)
        lock = self._locks.setdefault(import_id, asyncio.Lock())
        async with lock:
            command = RequestImport(
                occurred_at=self._parts.clock.now(),
                source=await build_source(asked.kind, asked.files, self._parts.blobs),
                import_id=import_id,
                project_name=asked.project,
                space=asked.space,
                idempotency_key=key,
                options=asked.options,
                requested_by=CALLER,
            )
            known = self._known(import_id, request_sha256(command))
            if known is not None:
                return known, False
            self._check_space(asked)
            found = await self.validated(command.source)
            _raise_fatal(found)
            command = replace(command, item_count=max(found.items, 0))
            await self._parts.commands.append(command)
            self._remember(command)
        IMPORTS_ACCEPTED.inc()
        _log.info(
            "import.accepted",
            import_id=import_id,
            files_count=command.source.file_count,
            size_bytes=command.source.size_bytes,
            item_count=command.item_count,
        )
        return await self.folded(import_id, lambda _: True) or self._written[import_id][1], True

    async def validated(self, source: Source) -> Validation:
        """What the parser finds in it. Raises Problem when a file went away in the meantime."""
        try:
            return await self._parts.validate(source)
        except FileNotFoundError:
            raise Problem(
                422,
                "files_missing",
                "A file was taken out of the blob store while it was looked at.",
                "Send the files again, then ask again.",
                retryable=True,
            ) from None

    def _known(self, import_id: ImportId, sha256: str) -> ImportStatus | None:
        """The import that this key already has. Raises Problem when it has another body."""
        source = self._projection.source(import_id)
        # The hash of a command that nobody decided yet is known to whoever wrote it.
        before = source[1] if source is not None and source[1] else ""
        if not before and import_id in self._written:
            before = self._written[import_id][0]
        if not before:
            return None  # Perhaps accepted elsewhere; the leader sees both.
        if before != sha256:
            raise Problem(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key belongs to an import with other files, project, space or options.",
                "Use a new key for a new import, or send the same request again.",
                import_id=str(import_id),
            )
        return self.status(import_id)

    def _check_space(self, asked: Asked) -> None:
        project = self._projection.project(asked.project)
        if project is not None and asked.space not in (None, project.space):
            raise Problem(
                422,
                "space_mismatch",
                f"The project “{shown(project.name)}” is embedded in {project.space}.",
                "Leave the space out, or import into another project.",
                space=project.space,
            )

    def _remember(self, command: RequestImport) -> None:
        assert command.import_id is not None, "HTTP draws or derives the id before it writes the command"
        project = self._projection.project(command.project_name)
        space = project.space if project else command.space or self._parts.settings.default_space
        status = ImportStatus(
            import_id=command.import_id,
            project_id=project_id(command.project_name),
            project=project.name if project else command.project_name,
            state=State.ACCEPTED,
            waiting=None,
            attempt=0,
            progress=0.0,
            documents=DocumentCounts(found=command.item_count),
            chunks=ChunkCounts(),
            warnings=0,
            tokens_billed=0,
            space=space,
            requested_at=command.occurred_at,
            finished_at=None,
            digest=None,
            problem=None,
            position=self._projection.position,
            cursor=0,
        )
        self._written[command.import_id] = (request_sha256(command), status)
        while len(self._written) > REMEMBERED_MAX:
            self._written.popitem(last=False)

    async def folded(
        self, import_id: ImportId, is_there: Callable[[ImportStatus], bool]
    ) -> ImportStatus | None:
        """The status as soon as it is as wanted, or as it is after a short while."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + FOLDED_WITHIN_S
        while True:
            status = self._projection.status(import_id)
            left_s = deadline_s - loop.time()
            if left_s <= 0 or (status is not None and is_there(status)):
                return status
            # Commands that nobody decided yet come in without moving the position.
            await self._projection.wait_for_change(self._projection.position, min(0.1, left_s))


def _raise_fatal(found: Validation) -> None:
    fatal = next((problem for problem in found.problems if problem.is_fatal), None)
    if fatal is not None:
        subject = f"“{shown(fatal.subject)}”: " if fatal.subject else ""
        raise Problem(
            422,
            fatal.code,
            f"{subject}{fatal.message}",
            "Correct it and import again; `paperlog validate` tells what is in a library.",
            problems=[problem_json(problem) for problem in list(found.problems)[:100]],
        )


def problem_json(problem: object) -> dict[str, object]:
    return {name: getattr(problem, name) for name in ("code", "subject", "message", "is_fatal")}
