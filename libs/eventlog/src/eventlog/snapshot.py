"""What a fold of `imports` knew at one record, kept in a file, so that a start reads only what came after it.

It is an accelerator and proves nothing. Where the file is damaged or of another version, or the log does not hold the
record that was folded last, it counts as absent, and the fold begins at the beginning. It may be deleted at any time.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from eventlog.envelope import header
from eventlog.errors import RecordGone
from eventlog.log import Log, Record
from eventlog.logs import Logger
from eventlog.topics import IMPORTS

RECORDS_BETWEEN = 10_000
"""A start reads as many at most beyond what it must: some tenths of a second."""

_log = Logger("eventlog.snapshot")


class SnapshotFile:
    """For one process and one fold. `version` is the fold's own: raise it when the state's shape or meaning changes."""

    def __init__(self, path: Path, version: int) -> None:
        self._path = path
        self._version = version
        self._kept_at = 0

    async def load(self, log: Log) -> tuple[int, Any] | None:
        """The next offset to be read and the state before it; null when there is nothing that this log proves.

        Raises TransientFailure while the log is away.
        """
        found = self._read()
        if found is None:
            return None
        end = (await log.ends(IMPORTS))[0]
        try:
            record = await log.read_at(IMPORTS, 0, found["last_offset"])
        except RecordGone:
            record = None
        if record is None or _identity(record) != found["last_id"] or found["position"] > end:
            _log.warning(
                "snapshot.discarded", file=self._path.name, why="the log is not the one it was made of"
            )
            return None
        self._kept_at = found["position"]
        return found["position"], found["state"]

    def _read(self) -> Any:
        try:
            digest, _, body = self._path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("snapshot.discarded", file=self._path.name, why=type(error).__name__)
            return None
        if digest != _digest(body):
            _log.warning("snapshot.discarded", file=self._path.name, why="damaged")
            return None
        found = json.loads(body)
        return found if found["version"] == self._version else None

    def is_due(self, position: int) -> bool:
        return position - self._kept_at >= RECORDS_BETWEEN

    def keep(self, position: int, last: Record, state: Any) -> None:
        """`state` is what JSON can say, after `last`, the last record before `position`. A disk that is full is no
        reason to stop: the next start takes longer.
        """
        self._kept_at = position
        body = json.dumps(
            {
                "version": self._version,
                "position": position,
                "last_offset": last.offset,
                "last_id": _identity(last),
                "state": state,
            }
        ).encode()
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(_digest(body) + b"\n" + body)
            new.replace(self._path)
        except OSError as error:
            _log.warning("snapshot.not_kept", file=self._path.name, why=type(error).__name__)


def _identity(record: Record) -> str:
    """What tells a record from another at the same place: a log that was wiped repeats offsets, not ids."""
    return header(record, "ce_id") or f"timestamp:{record.timestamp_ms}"


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
