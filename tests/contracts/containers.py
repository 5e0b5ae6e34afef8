"""Kafka's and Qdrant's own images, of the versions in docker-compose.yml, where a Docker daemon answers."""

import gc
import time
import urllib.request
import warnings
from collections.abc import Iterator

import docker
import pytest
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from tests.compose import services

from paperlog.up.kafka import MESSAGE_BYTES_MAX, can_list_topics
from paperlog.up.processes import free_port

READY_S_MAX = 90.0


def _why_no_docker() -> str | None:
    with warnings.catch_warnings():
        # Docker's client leaves a socket open when nobody answers.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            docker.from_env(timeout=5).close()
        except DockerException as error:
            return str(error)
        finally:
            gc.collect()
    return None


WHY_NO_DOCKER = _why_no_docker()
NEEDS_DOCKER = (
    pytest.mark.docker,
    pytest.mark.skipif(WHY_NO_DOCKER is not None, reason=f"no Docker daemon answers: {WHY_NO_DOCKER}"),
)


@pytest.fixture(scope="session")
def kafka_image() -> Iterator[str]:
    """The bootstrap address. The port is chosen here, for the broker must know where its clients find it."""
    port = free_port()
    container = DockerContainer(services()["kafka"]["image"], env=_environment(port)).with_bind_ports(
        9092, port
    )
    with container:
        deadline = time.monotonic() + READY_S_MAX
        while not can_list_topics(port):
            assert time.monotonic() < deadline, container.get_logs()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def qdrant_image() -> Iterator[str]:
    """The server's URL."""
    container = DockerContainer(
        services()["qdrant"]["image"], env={"QDRANT__TELEMETRY_DISABLED": "true"}
    ).with_exposed_ports(6333)
    with container:
        url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(6333)}"
        deadline = time.monotonic() + READY_S_MAX
        while not _is_ready(url):
            assert time.monotonic() < deadline, container.get_logs()
            time.sleep(0.1)
        yield url


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _environment(port: int) -> dict[str, str]:
    """One KRaft node; the image takes its defaults only as long as nothing is said at all."""
    settings = {
        "node.id": 1,
        "process.roles": "broker,controller",
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "auto.create.topics.enable": "false",
        "message.max.bytes": MESSAGE_BYTES_MAX,
    }
    return {f"KAFKA_{key.upper().replace('.', '_')}": str(value) for key, value in settings.items()}
