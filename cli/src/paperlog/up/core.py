"""What the supervisor decides, without doing it: when a dead child comes back, which embedders are wanted, what a
child may see of the environment.

No clock, no process, no file: times, spaces and environments come in as values.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eventlog.spaces import Space, parse_space

WRONG_SETTINGS = 2
"""The exit code by which a service says that starting it again would change nothing."""

_SETTINGS_OF_PROVIDER = {
    "local": (),
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "cohere": ("CO_API_KEY", "CO_API_URL"),
}
"""By provider: the variable of its key, then the one of its address; a server of one's own may need no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """A child that lived a while comes back at once; one that dies at once waits longer each time."""

    lived_s_min: float = 10.0
    backoff_s_first: float = 0.2
    backoff_s_max: float = 15.0

    def quick_deaths(self, before: int, *, lived_s: float) -> int:
        return 0 if lived_s >= self.lived_s_min else before + 1

    def backoff_s(self, quick_deaths: int) -> float:
        if quick_deaths == 0:
            return 0.0
        return float(min(self.backoff_s_max, self.backoff_s_first * 2 ** min(quick_deaths - 1, 30)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderPlan:
    start: tuple[Space, ...]
    without_key: tuple[tuple[Space, str], ...]
    """The space and the name of the variable that is missing."""
    unknown: tuple[str, ...]
    """Ids that this version cannot read; somebody else's projects may have them."""


def missing_key(space: Space, environ: Mapping[str, str]) -> str | None:
    """The variable that this space's provider needs and the environment has not."""
    settings = _SETTINGS_OF_PROVIDER[space.provider]
    if not settings or any(environ.get(name) for name in (*settings, f"{settings[0]}_FILE")):
        return None
    return settings[0]


def store_settings(environ: Mapping[str, str], folder: str) -> dict[str, str]:
    """What the graph-writer is told of its store: the embedded one in `folder`, or the caller's Qdrant server.

    Raises ValueError that says what is missing.
    """
    kind = environ.get("PAPERLOG_STORE") or "edge"
    if kind == "qdrant":
        if not environ.get("QDRANT_URL"):
            raise ValueError("PAPERLOG_STORE=qdrant needs QDRANT_URL, the address of the server")
        names = ("QDRANT_URL", "QDRANT_API_KEY", "QDRANT_API_KEY_FILE")
        return {"PAPERLOG_STORE": kind, **{name: environ[name] for name in names if environ.get(name)}}
    if kind != "edge":
        raise ValueError(f"PAPERLOG_STORE={kind} is neither edge nor qdrant")
    return {
        "PAPERLOG_STORE": kind,
        "PAPERLOG_STORE_DIR": folder,
        # With these the allocator gives back what sealing the store has used.
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }


def plan_embedders(
    in_use: Iterable[str], running: Iterable[Space], environ: Mapping[str, str]
) -> EmbedderPlan:
    start, without_key, unknown = [], [], []
    known = set(running)
    for name in sorted(set(in_use)):
        try:
            space = parse_space(name)
        except ValueError:
            unknown.append(name)
            continue
        if space in known:
            continue
        known.add(space)
        if key := missing_key(space, environ):
            without_key.append((space, key))
        else:
            start.append(space)
    return EmbedderPlan(start=tuple(start), without_key=tuple(without_key), unknown=tuple(unknown))


def child_env(
    environ: Mapping[str, str], own: Mapping[str, str], *, provider: str = "local"
) -> dict[str, str]:
    """The environment of one child: no key but its own provider's, no settings of somebody else's Kafka.

    Children find each other on loopback, so a proxy is never asked for that.
    """
    allowed = _SETTINGS_OF_PROVIDER[provider]
    inherited = {
        name: value
        for name, value in environ.items()
        if name in allowed or not (name.endswith("_API_KEY") or name.startswith("KAFKA_"))
    }
    loopback = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    # What numpy brings starts a thread for each processor, and nothing here is large enough for them.
    small = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
    return {**inherited, **loopback, "PYTHONUNBUFFERED": "1", **small, **own}
