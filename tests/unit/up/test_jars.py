import hashlib
from pathlib import Path

import pytest

from paperlog.up.jars import LOCK, Jar, JarsError, ensure_jars, read_lock

GOOD = b"the jar's bytes"


class Repository:
    """Stands for the network: hands out `content` and counts how often it was asked."""

    def __init__(self, content: bytes = GOOD, failures: int = 0) -> None:
        self.content, self.failures, self.asked = content, failures, 0

    def __call__(self, jar: Jar, folder: Path) -> Path:
        self.asked += 1
        if self.asked <= self.failures:
            raise RuntimeError("no route to host")
        path = folder / "elsewhere" / jar.filename
        path.parent.mkdir()
        path.write_bytes(self.content)
        return path


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "jars.lock"
    path.write_text(f"# a comment\norg.example:thing:1.0 {hashlib.sha256(GOOD).hexdigest()}\n")
    return path


def test_a_jar_is_fetched_once_and_then_taken_from_the_cache(lock: Path, tmp_path: Path):
    repository = Repository()
    for _ in range(2):
        (jar,) = ensure_jars(tmp_path / "cache", lock=lock, fetch=repository)
    assert jar.read_bytes() == GOOD
    assert repository.asked == 1
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["thing-1.0.jar"]


def test_a_jar_with_another_checksum_is_refused_and_named(lock: Path, tmp_path: Path):
    with pytest.raises(
        JarsError, match=r"org\.example:thing:1\.0 has the SHA-256 [0-9a-f]{64}, the lock says"
    ):
        ensure_jars(tmp_path / "cache", lock=lock, fetch=Repository(b"something else"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_jar_in_the_cache_is_fetched_again(lock: Path, tmp_path: Path):
    (jar,) = ensure_jars(tmp_path / "cache", lock=lock, fetch=Repository())
    jar.write_bytes(GOOD[:-1])
    repository = Repository()
    ensure_jars(tmp_path / "cache", lock=lock, fetch=repository)
    assert (jar.read_bytes(), repository.asked) == (GOOD, 1)


def test_a_failing_network_is_tried_again_and_then_said(lock: Path, tmp_path: Path):
    ensure_jars(tmp_path / "one", lock=lock, fetch=Repository(failures=2))
    with pytest.raises(JarsError, match=r"org\.example:thing:1\.0 could not be fetched: no route to host"):
        ensure_jars(tmp_path / "two", lock=lock, fetch=Repository(failures=99))


def test_a_line_that_is_no_jar_is_refused():
    with pytest.raises(JarsError, match="line 1"):
        read_lock("org.example:thing 00\n")


def test_our_lock_names_each_jar_once_and_the_broker_among_them():
    jars = read_lock(LOCK.read_text())
    assert len({jar.filename for jar in jars}) == len(jars)
    assert {"kafka_2.13-4.1.1.jar", "kafka-clients-4.1.1.jar"} <= {jar.filename for jar in jars}
