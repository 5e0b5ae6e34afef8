"""Which spaces each project has had, and which store was opened last, folded from the start of `imports`: one small
entry per project, and one per partition. A snapshot of it makes a start short.

It reads by a consumer of its own, outside the group, so that a batch may wait for it: waiting inside the group would
stop the very partition that is waited for. It judges no record but the few it needs; what it cannot read, the group's
consumer dead-letters.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from eventlog.avro import Schemas
from eventlog.envelope import header
from eventlog.errors import TransientFailure, UnprocessableRecord
from eventlog.events import ProjectCreated, ProjectSpaceChanged, ProjectSpaceMoveStarted, StoreOpened
from eventlog.ids import ProjectId, StoreId
from eventlog.log import Log, Record, TopicPartition
from eventlog.logs import Logger
from eventlog.snapshot import SnapshotFile
from eventlog.topics import IMPORTS

_log = Logger("graph_writer.projects")

_WANTED = {
    f"paperlog.{cls.__name__}"
    for cls in (ProjectCreated, ProjectSpaceMoveStarted, ProjectSpaceChanged, StoreOpened)
}
_PARTITION = TopicPartition(IMPORTS, 0)
SNAPSHOT_VERSION = 1


class Projects:
    def __init__(self, log: Log, schemas: Schemas, snapshot: SnapshotFile) -> None:
        self._kafka = log
        self._schemas = schemas
        self._snapshot = snapshot
        self._spaces: dict[ProjectId, frozenset[str]] = {}
        self._stores: dict[TopicPartition, StoreId] = {}
        self._position = 0
        self._moved = asyncio.Condition()

    async def run(self) -> None:
        """Never returns; reads on after an outage of the log."""
        while True:
            try:
                await self._read()
            except TransientFailure as error:
                _log.warning("projects.log_down", error=error)
                await asyncio.sleep(0.5)

    async def has_space(self, project: ProjectId, space: str, *, revision: int) -> bool:
        """Whether the project has had that space, or is being moved to it, as far as `revision` at least.

        Waits until the fold has passed the revision. Raises UnprocessableRecord for one that `imports` does not
        hold yet: no event may name a decision before it was made.
        """
        if self._position <= revision:
            await self._wait_to_pass(revision)
        return space in self._spaces.get(project, frozenset())

    async def stores(self) -> Mapping[TopicPartition, StoreId]:
        """Which store was last said to go on in each partition, as far as `imports` reaches now."""
        await self._wait_for((await self._kafka.ends(IMPORTS))[0])
        return self._stores

    async def _wait_to_pass(self, revision: int) -> None:
        ends = await self._kafka.ends(IMPORTS)
        if revision >= ends[0]:
            raise UnprocessableRecord(
                "revision_unknown", f"{revision} is not on {IMPORTS}, which ends at {ends[0]}"
            )
        await self._wait_for(revision + 1)

    async def _wait_for(self, position: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self._position >= position)

    async def _read(self) -> None:
        if self._position == 0:
            await self._restore()
        begins = await self._kafka.begins(IMPORTS)
        reader = await self._kafka.reader({_PARTITION: max(self._position, begins[0])})
        last: Record | None = None
        try:
            while True:
                for record in await reader.poll(records_max=1_000, timeout_s=1.0):
                    self._fold(record)
                    last = record
                await self._move(await reader.position(_PARTITION))
                if last is not None and self._snapshot.is_due(self._position):
                    self._snapshot.keep(self._position, last, self._state())
        finally:
            await reader.close()

    async def _move(self, position: int) -> None:
        if position > self._position:
            async with self._moved:
                self._position = position
                self._moved.notify_all()

    async def _restore(self) -> None:
        found = await self._snapshot.load(self._kafka)
        if found is None:
            return
        position, state = found
        self._spaces = {
            ProjectId(UUID(project)): frozenset(spaces) for project, spaces in state["spaces"].items()
        }
        self._stores = {
            TopicPartition(topic, partition): StoreId(UUID(store))
            for topic, partition, store in state["stores"]
        }
        await self._move(position)

    def _state(self) -> Any:
        return {
            "spaces": {str(project): sorted(spaces) for project, spaces in self._spaces.items()},
            "stores": [[at.topic, at.partition, str(store)] for at, store in self._stores.items()],
        }

    def _fold(self, record: Record) -> None:
        if header(record, "ce_type") not in _WANTED:
            return
        try:
            event = self._schemas.decode(record.value)
        except UnprocessableRecord as error:
            _log.warning("projects.record_unreadable", offset=record.offset, reason=error.reason)
            return
        if isinstance(event, ProjectCreated | ProjectSpaceMoveStarted | ProjectSpaceChanged):
            had = self._spaces.get(event.project_id, frozenset())
            self._spaces[event.project_id] = had | {event.space}
        elif isinstance(event, StoreOpened):
            for one in event.positions:
                self._stores[TopicPartition(one.topic, one.partition)] = event.store_id
