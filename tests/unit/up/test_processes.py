import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from paperlog.up import processes
from paperlog.up.processes import Child, free_port, port_is_free, reserve_port


def eventually(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def python(code: str, log: Path, *arguments: str) -> Child:
    return Child([sys.executable, "-c", textwrap.dedent(code), *arguments], env=os.environ, log=log)


FAMILY = """
    import subprocess, sys, time, signal
    if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_a_child_has_started_goes_with_it(tmp_path: Path, how: str):
    child = python(FAMILY, tmp_path / "log", "deaf" if how == "stop" else "")
    (grandchild,) = eventually(child.last_lines)
    assert is_alive(int(grandchild))
    if how == "stop":
        assert child.stop(timeout_s=0.2) == -signal.SIGKILL
    else:
        child.kill()
    eventually(lambda: not is_alive(int(grandchild)))
    assert child.exit_code() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the scheduler's groups are Linux's")
def test_a_nice_child_leaves_the_processor_to_the_others_by_process_and_by_session(tmp_path: Path):
    says = "import os; print(os.nice(0)); print(*open('/proc/self/autogroup')) if os.path.exists('/proc/self/autogroup') else None"
    child = python(says, tmp_path / "log", "")
    assert child.wait(10) == 0
    ours, *our_group = child.last_lines()
    child = Child([sys.executable, "-c", says], env=os.environ, log=tmp_path / "nice", niceness=7)
    assert child.wait(10) == 0
    nice, *group = child.last_lines()
    assert (int(ours), int(nice)) == (os.nice(0), min(19, os.nice(0) + 7))
    if our_group:
        assert (our_group[0].split()[-1], group[0].split()[-1]) == ("0", "7")


def test_what_is_left_of_a_child_that_died_by_itself_goes_too(tmp_path: Path):
    child = python(
        """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
        sys.exit(3)
        """,
        tmp_path / "log",
    )
    assert eventually(lambda: child.exit_code() is not None)
    assert child.exit_code() == 3
    eventually(lambda: not is_alive(int(child.last_lines()[0])))


STARTER = """
    import os, sys, time
    from pathlib import Path
    from paperlog.up.processes import Child
    child = Child([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"], env=os.environ, log=Path(sys.argv[1]))
    while child.last_lines() != ["here"]: time.sleep(0.02)
    print(child.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a signal for the death of the parent")
def test_a_child_dies_with_its_starter_even_by_sigkill(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STARTER), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert is_alive(pid)
        assert os.getsid(pid) == pid
        starter.kill()
    eventually(lambda: not is_alive(pid))


def test_a_child_whose_starter_is_already_gone_does_not_begin():
    from paperlog.up import processes

    done = subprocess.run(
        [sys.executable, "-I", "-S", str(processes._BOUND), "1", "0", "echo", "begun"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "begun" not in done.stdout
    assert "gone" in done.stderr


def test_the_last_lines_are_of_this_child_and_not_of_the_one_before(tmp_path: Path):
    for word in ("first", "second"):
        child = python(f"print('{word}')", tmp_path / "log")
        assert eventually(lambda: child.wait(5) is not None)  # noqa: B023 - called within the loop's turn
    assert child.last_lines() == ["second"]


def test_a_large_log_is_put_aside_at_the_next_start(tmp_path: Path):
    log = tmp_path / "log"
    log.write_bytes(b"x" * 6_000_000)
    child = python("print('new')", log)
    assert child.wait(10) == 0
    assert log.read_text() == "new\n"
    assert (tmp_path / "log.1").stat().st_size == 6_000_000


def test_a_free_port_is_below_the_range_that_outgoing_connections_use():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = free_port()
    assert port < lowest
    assert port_is_free(port)


def test_no_port_is_drawn_for_two_before_either_listens(monkeypatch: pytest.MonkeyPatch):
    """Once a broker's and an embedder's were the same, and the embedder could never start."""
    drawn = {free_port() for _ in range(3)}
    assert len(drawn) == 3
    monkeypatch.setattr(processes, "_PORTS", range(min(drawn), min(drawn) + 1))
    with pytest.raises(OSError, match="no free port"):
        free_port()


def test_a_port_that_somebody_chose_is_drawn_for_nothing_else(monkeypatch: pytest.MonkeyPatch):
    port = free_port()
    monkeypatch.setattr(processes, "_PORTS", range(port, port + 1))
    monkeypatch.setattr(processes, "_spoken_for", set())
    assert reserve_port(port)
    with pytest.raises(OSError, match="no free port"):
        free_port()


def test_a_port_on_which_somebody_listens_cannot_be_chosen():
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert not reserve_port(server.getsockname()[1])
