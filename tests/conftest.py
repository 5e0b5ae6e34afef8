"""What tests of several kinds share: one real broker for the whole session, started when the first test asks."""

import signal
import uuid
from collections.abc import Iterator

import pytest

from paperlog.up.kafka import EmbeddedKafka, embedded_kafka


def pytest_configure() -> None:
    """A shell starts what it runs in the background with SIGINT ignored; the commands that tests interrupt would inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """`kafka.bootstrap`. A test that kills the broker starts it again, and is better off with one of its own."""
    with embedded_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def kafka_prefix() -> str:
    """Stands before topics, groups and transactional ids of one test, so that tests share a broker, not records."""
    return f"t{uuid.uuid4().hex[:10]}"
