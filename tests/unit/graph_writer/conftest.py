from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.graph_writer.world import Process, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """With a project that has its space."""
    world = World(tmp_path)
    await world.project()
    yield world
    await world.close()


@pytest.fixture
async def process(world: World) -> Process:
    return await world.start()
