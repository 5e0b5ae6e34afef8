"""docker-compose.yml at work: its wiring by processes over the embedded broker, the same over the images, and the file
itself where a Docker daemon answers.
"""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.compose import ROOT
from tests.contracts.containers import NEEDS_DOCKER, WHY_NO_DOCKER, kafka_image, qdrant_image
from tests.e2e.composed import SERVICES, Composed
from tests.e2e.stack import Stack, until

from eventlog.topics import topic_table
from paperlog.up.processes import free_port

__all__ = ["kafka_image", "qdrant_image"]  # fixtures

LIBRARY = ROOT / "examples" / "library"
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=["processes", pytest.param("images", marks=NEEDS_DOCKER)])
def composed(request: pytest.FixtureRequest, tmp_path: Path, kafka_prefix: str) -> Composed:
    """A real Qdrant server too, where `QDRANT_URL` names one."""
    if request.param == "images":
        kafka, qdrant = request.getfixturevalue("kafka_image"), request.getfixturevalue("qdrant_image")
    else:
        kafka = request.getfixturevalue("kafka").bootstrap
        qdrant = os.environ.get("QDRANT_URL", "")
    return Composed(tmp_path, kafka=kafka, qdrant=qdrant, prefix=kafka_prefix)


@pytest.mark.kafka
def test_a_library_goes_in_is_searched_and_verified_though_services_are_killed(composed: Composed):
    for _ in range(2):
        made = composed.make_topics()
        assert made.returncode == 0, made.stderr
    named = made.stderr.partition("topics.there topics=")[2]
    assert all(name in named for name in topic_table() if name != "dlq"), made.stderr

    with composed:
        import_id = composed.import_folder(LIBRARY, "Docker")
        for service in SERVICES:
            composed.kill(service)
        status = composed.wait(import_id, "completed_with_rejections")
        assert status["chunks"]["stored"] == status["chunks"]["total"] > 10
        until(composed.are_healthy, 120, composed.tail)
        searched(composed)
        assert composed.command("verify", import_id).returncode == 0


def searched(stack: Stack) -> None:
    """The example searches, by meaning and by words: the embedder was found too."""
    for line in (ROOT / "examples" / "library.searches.txt").read_text(encoding="utf-8").splitlines():
        query, title = line.split("\t")
        asked = stack.command("search", query, "--project", "Docker", "--json")
        answer = json.loads(asked.stdout)
        assert answer["results"][0]["title"] == title, answer
        assert answer["mode"] == "hybrid", answer


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Stack]:
    """`docker compose up --wait` of a project of its own on free ports; images, containers and volumes go at the end."""
    port = free_port()
    env = {**os.environ, "PAPERLOG_PORT": str(port), "PAPERLOG_KAFKA_PORT": str(free_port())}
    argv = ["docker", "compose", "--project-name", f"paperlog-test-{uuid.uuid4().hex[:8]}"]

    def compose(*arguments: str) -> None:
        done = subprocess.run(
            [*argv, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    try:
        compose("up", "--build", "--detach", "--wait", "--wait-timeout", "300")
        stack = Stack(tmp_path)
        stack.http = f"http://127.0.0.1:{port}"
        yield stack
    finally:
        compose("down", "--volumes", "--rmi", "local", "--timeout", "20")


@pytest.mark.docker
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    WHY_NO_DOCKER is not None or shutil.which("docker") is None,
    reason=f"no Docker here: {WHY_NO_DOCKER or 'a daemon answers, but there is no docker command'}",
)
def test_docker_compose_up_and_a_library_goes_in_is_searched_and_verified(up: Stack):
    import_id = up.import_folder(LIBRARY, "Docker")
    up.wait(import_id, "completed_with_rejections")
    searched(up)
    assert up.command("verify", import_id).returncode == 0
