"""The command run as a person runs it, in this process: arguments in, exit code and both streams out."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tests.unit.cli.fake_service import FakeService, fake_service

from paperlog.main import main


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def service() -> Iterator[FakeService]:
    with fake_service() as fake:
        yield fake


@pytest.fixture
def run(service: FakeService, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    def run_it(*argv: str) -> Ran:
        monkeypatch.setenv("PAPERLOG_URL", service.url)
        monkeypatch.setattr(sys, "argv", ["paperlog", *argv])
        capfd.readouterr()
        code = main()
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return run_it
