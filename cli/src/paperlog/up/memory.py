"""Resident memory of processes with what they have started, as Linux tells it; nothing where it does not."""

from pathlib import Path


def _table() -> dict[int, tuple[int, int]]:
    """Pid to parent's pid and resident kB."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
            found[int(status.parent.name)] = (int(facts["PPid"]), int(facts.get("VmRSS", "0").split()[0]))
        except (OSError, KeyError, ValueError):
            continue  # Gone between the listing and the look.
    return found


def resident_mb(pids: dict[str, int]) -> dict[str, float]:
    """By name, children included; names whose process is gone are left out."""
    table = _table()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)

    def with_children(pid: int) -> int:
        return table[pid][1] + sum(with_children(child) for child in children.get(pid, ()))

    return {name: with_children(pid) / 1024 for name, pid in pids.items() if pid in table}
