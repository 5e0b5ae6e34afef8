"""The shell scripts that run before anything is installed."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[3] / ".ci"


def run(script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CI / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environ},
    )


@pytest.fixture
def python_that_fails_at(tmp_path: Path):
    def make(words: str) -> str:
        stub = tmp_path / "python3"
        stub.write_text(f'#!/bin/sh\ncase "$*" in *{words}*) exit 1;; esac\nexec {sys.executable} "$@"\n')
        stub.chmod(0o755)
        return str(stub)

    return make


def test_a_python_that_works_is_chosen_over_one_that_only_has_the_name(python_that_fails_at):
    shim = python_that_fails_at("sys")
    assert run("python", PYTHON=f"{shim} {sys.executable}").stdout.strip() == sys.executable


def test_a_python_without_venv_is_said_with_the_package_to_install(python_that_fails_at):
    done = run("python", PYTHON=python_that_fails_at("ensurepip"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "apt install python3-venv" in done.stderr


def test_no_python_at_all_is_said():
    done = run("python", PYTHON="/no/such/python")
    assert done.returncode == 1
    assert "no Python 3.11, 3.12 or 3.13 found" in done.stderr


def test_a_taken_port_is_named_before_anything_is_installed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run("preflight", "--port", str(port))
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert f"PORT={port + 1}" in done.stderr


def test_a_library_that_is_not_there_is_named(tmp_path: Path):
    done = run("preflight", "--port", "0", "--library", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert f"there is no {tmp_path / 'nowhere'}" in done.stderr
    assert run("preflight", "--port", "0", "--library", str(tmp_path)).returncode == 0


@pytest.mark.parametrize("port", ["65536", "http", "-1"])
def test_what_is_no_port_is_not_called_taken(port: str):
    done = run("preflight", f"--port={port}")
    assert done.returncode == 1
    assert f"{port} is no port" in done.stderr
