"""A Qdrant server for end-to-end tests: the one at QDRANT_URL, or the program QDRANT_PROGRAM, which can also be killed.

Read over plain HTTP, with none of the writer's code and none of Qdrant's client.
"""

import hashlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.edge_files import BOOKKEEPING
from tests.e2e.reading import VOLATILE
from tests.e2e.stack import until

from paperlog.up.processes import free_port

URL, PROGRAM = os.environ.get("QDRANT_URL"), os.environ.get("QDRANT_PROGRAM")
PAGE = 500


class QdrantServer:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = URL or ""
        if PROGRAM:
            self._port = free_port()
            self._grpc_port = free_port()
            self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        if PROGRAM:
            self._folder.mkdir(parents=True, exist_ok=True)
            settings = {
                "QDRANT__SERVICE__HOST": "127.0.0.1",
                "QDRANT__SERVICE__HTTP_PORT": str(self._port),
                "QDRANT__SERVICE__GRPC_PORT": str(self._grpc_port),
                "QDRANT__TELEMETRY_DISABLED": "true",
                "QDRANT__STORAGE__STORAGE_PATH": str(self._folder / "storage"),
                "QDRANT__STORAGE__SNAPSHOTS_PATH": str(self._folder / "snapshots"),
            }
            with (self._folder / "qdrant.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [PROGRAM], env={**os.environ, **settings}, cwd=self._folder, stdout=log, stderr=log
                )
        until(self._answers, 60, f"no Qdrant server answers at {self.url}")

    def _answers(self) -> bool:
        try:
            return bool(self._ask("GET", "/collections"))
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL; nobody starts it again."""
        assert self._process is not None, "only a program of ours is killed"
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        if key := os.environ.get("QDRANT_API_KEY"):
            request.add_header("api-key", key)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())["result"]

    def aliases(self, prefix: str) -> dict[str, str]:
        """By the name without the prefix, the collection behind it."""
        found = self._ask("GET", "/aliases")["aliases"]
        return {
            one["alias_name"].removeprefix(f"{prefix}-"): one["collection_name"]
            for one in found
            if one["alias_name"].startswith(f"{prefix}-")
        }

    def collection(self, name: str) -> dict[str, Any]:
        return dict(self._ask("GET", f"/collections/{name}"))

    def drop(self, prefix: str) -> None:
        for collection in self.aliases(prefix).values():
            self._ask("DELETE", f"/collections/{collection}")

    def points(self, prefix: str) -> dict[str, dict[str, tuple[str, str]]]:
        """As `reading.store_points`: by collection and id, the payload without what differs between runs, and the vectors."""
        return {
            name: {
                point["id"]: (
                    json.dumps(
                        {k: v for k, v in point["payload"].items() if k not in VOLATILE}, sort_keys=True
                    ),
                    hashlib.sha256(json.dumps(point["vector"], sort_keys=True).encode()).hexdigest(),
                )
                for point in self._scroll(collection)
                if point["payload"].get("kind") not in BOOKKEEPING
            }
            for name, collection in sorted(self.aliases(prefix).items())
        }

    def _scroll(self, collection: str) -> list[dict[str, Any]]:
        points: list[dict[str, Any]] = []
        offset = None
        while True:
            body = {"limit": PAGE, "offset": offset, "with_payload": True, "with_vector": True}
            page = self._ask("POST", f"/collections/{collection}/points/scroll", body)
            points += page["points"]
            if (offset := page["next_page_offset"]) is None:
                return points
