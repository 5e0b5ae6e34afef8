"""Looks at ingest from outside, in a thread of its own, so that a slow answer never delays the supervisor's loop.

Knows two addresses of ingest: `/readyz` and `/api/spaces`. Decides nothing.
"""

import threading
from dataclasses import dataclass, field

import httpx

READY_EVERY_S = 0.25
SPACES_EVERY_S = 2.0


@dataclass(slots=True)
class IngestWatch:
    url: str
    is_ready: bool = False
    reasons: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="watch-ingest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        # No TLS on loopback: nothing to verify, and no authorities to load.
        with httpx.Client(base_url=self.url, timeout=2, trust_env=False, verify=False) as client:  # noqa: S501 - see above
            while not self._stopped.wait(SPACES_EVERY_S if self.is_ready else READY_EVERY_S):
                self.is_ready, self.reasons = _readiness(client)
                # Asked before it is ready too: an embedder that is missing may be why it is not.
                self.spaces = _spaces(client) or self.spaces


def _readiness(client: httpx.Client) -> tuple[bool, tuple[str, ...]]:
    try:
        answer = client.get("/readyz")
        reasons = answer.json().get("reasons", [])
    except (httpx.HTTPError, ValueError, AttributeError):
        return False, ("ingest does not answer",)
    return answer.status_code == httpx.codes.OK, tuple(str(each) for each in reasons)


def _spaces(client: httpx.Client) -> tuple[str, ...]:
    try:
        answer = client.get("/api/spaces").raise_for_status().json()
        return tuple(str(each) for each in answer["spaces"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ()
