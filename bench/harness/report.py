"""Tables for people and JSON for programs, with the hardware that was measured on."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


def hardware() -> dict[str, Any]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_kb / 1e6, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit() -> str:
    ran = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.strip()


def save(name: str, results: Any) -> Path:
    now = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    value = {
        "bench": name,
        "at": now.isoformat(),
        "commit": commit(),
        "hardware": hardware(),
        "results": results,
    }
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def print_head(title: str) -> None:
    facts = hardware()
    print(f"\n{title}")
    print(
        f"{facts['cores']} cores of {facts['cpu']}, {facts['memory_gb']} GB, Linux {facts['kernel']}, "
        f"Python {facts['python']}, {commit()}"
    )


def print_step(what: str) -> None:
    """To standard error, before what may take minutes."""
    print(f"{datetime.now():%H:%M:%S} {what}", file=sys.stderr, flush=True)  # noqa: DTZ005 - the clock on the wall


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(head), *(len(row[at]) for row in cells), 0) for at, head in enumerate(heads)]

    def line(values: Sequence[str]) -> str:
        first, *rest = (
            value.ljust(width) if not at else value.rjust(width)
            for at, (value, width) in enumerate(zip(values, widths, strict=True))
        )
        return "  ".join([first, *rest]).rstrip()

    print()
    print(line(heads))
    print("  ".join("-" * width for width in widths))
    for row in cells:
        print(line(row))
    sys.stdout.flush()


def megabytes(kilobytes: float) -> str:
    return f"{kilobytes / 1024:.0f}"
