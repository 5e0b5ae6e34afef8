"""Kafka's jars: fetched one by one as the lock file names them, and used only if their SHA-256 is the locked one.

Knows nothing of how Maven resolves dependencies: the lock is the whole set. Refuses every other bytes, whether they
come from the network or from an earlier run's cache.
"""

import hashlib
import os
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).with_name("kafka-jars.lock")
FETCHES_AT_ONCE = 8
TRIES_MAX = 3


class JarsError(Exception):
    """A jar could not be had, or is not the one that the lock names. The message says which and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def read_lock(text: str) -> tuple[Jar, ...]:
    """`group:artifact:version sha256`, one a line; `#` begins a comment."""
    jars = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        coordinates, _, sha256 = line.partition(" ")
        parts = coordinates.split(":")
        if len(parts) != 3 or len(sha256.strip()) != 64:
            raise JarsError(f"line {number} of the jars' lock is not 'group:artifact:version sha256'")
        jars.append(Jar(group=parts[0], artifact=parts[1], version=parts[2], sha256=sha256.strip()))
    return tuple(jars)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_by_maven(jar: Jar, folder: Path) -> Path:
    """Brings one jar, without its dependencies, into `folder` and returns its path."""
    from jgo.maven import MavenContext  # noqa: PLC0415 - 100 ms that a start with a full cache need not pay

    context = MavenContext(repo_cache=folder, local_repos=[], timeout=60)
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    return Path(component.artifact().resolve())


@contextmanager
def _machines_certificates() -> Iterator[None]:
    """Fetching goes through requests, which brings its own certificates; some networks have theirs in the machine's store."""
    paths = ssl.get_default_verify_paths()
    store = paths.cafile or paths.capath
    if store is None or {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} & set(os.environ):
        yield
        return
    os.environ["REQUESTS_CA_BUNDLE"] = store
    try:
        yield
    finally:
        del os.environ["REQUESTS_CA_BUNDLE"]


def _bring(jar: Jar, cache: Path, fetch: Callable[[Jar, Path], Path]) -> None:
    problem = ""
    for _ in range(TRIES_MAX):
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as folder:
            try:
                path = fetch(jar, Path(folder))
            except Exception as error:  # noqa: BLE001 - jgo raises bare RuntimeError and whatever requests does
                problem = f"could not be fetched: {error}"
                continue
            found = _sha256(path)
            if found == jar.sha256:
                # A rename, so that another process sees the whole jar or none.
                shutil.move(path, cache / jar.filename)
                return
            problem = f"has the SHA-256 {found}, the lock says {jar.sha256}; it was not used"
    raise JarsError(f"{jar.group}:{jar.artifact}:{jar.version} {problem}")


def ensure_jars(
    cache: Path,
    *,
    lock: Path = LOCK,
    fetch: Callable[[Jar, Path], Path] = fetch_by_maven,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Path, ...]:
    """The paths of all jars, each checked now. A jar in the cache with other bytes is fetched again."""
    jars = read_lock(lock.read_text(encoding="utf-8"))
    cache.mkdir(parents=True, exist_ok=True)
    missing = [
        jar
        for jar in jars
        if not (cache / jar.filename).is_file() or _sha256(cache / jar.filename) != jar.sha256
    ]
    if missing:
        say(f"fetching {len(missing)} of Kafka's {len(jars)} jars into {cache}")
        with _machines_certificates(), ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
            for done in [pool.submit(_bring, jar, cache, fetch) for jar in missing]:
                done.result()
    return tuple(cache / jar.filename for jar in jars)


def jars_cache(data_dir: Path) -> Path:
    """Inside the checkout when there is one around this file, so that all stacks and tests share it."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "requirements.lock").is_file() and (folder / "cli" / "pyproject.toml").is_file():
            return folder / ".cache" / "kafka-jars"
    return data_dir / "kafka-jars"
