"""What a run of faults may call a success: so many of each kind as were planned, no fewer."""

import ast
from pathlib import Path

from tests.faults.catalogue import short_of
from tests.faults.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[3]
SYSTEM = {"eventlog", "ingest", "embedder", "graph_writer"}


def test_fewer_faults_than_planned_are_named_by_kind():
    assert short_of({"kill": 30, "outage": 1}, {"kill": 29, "outage": 2}) == ["kill: 29 of 30 injected"]
    assert short_of({"kill": 1}, {}) == ["kill: 0 of 1 injected"]
    assert short_of({"kill": 1}, {"kill": 1}) == []


def test_each_line_that_is_to_be_broken_is_there_once():
    assert [one.name for one in MUTANTS if (ROOT / one.path).read_text().count(one.old) != 1] == []


def test_the_auditor_shares_no_code_with_the_system():
    imported: set[str] = set()
    for path in sorted((ROOT / "tests/faults/auditor").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert "fastavro" in imported
    assert not imported & SYSTEM
