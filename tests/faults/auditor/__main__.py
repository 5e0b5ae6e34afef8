"""`python -m tests.faults.auditor FOLDER`: judges a run that has stopped, prints I1 to I12 with their numbers.

Exit code 1 when one is broken. FOLDER is what `tests/faults/run.py` leaves: `data` (of `paperlog up`), `store-before`,
`ledger.jsonl`, `watched.jsonl`, `run.json`. The findings go into FOLDER/findings.json too.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.faults.auditor.checks import judge
from tests.faults.auditor.evidence import Evidence
from tests.faults.auditor.reading import read_log, read_run

from paperlog.up.kafka import embedded_kafka

SHOWN_MAX = 8


def main(folder: Path) -> int:
    evidence = Evidence()
    read_run(folder, evidence)
    with embedded_kafka(folder / "data" / "kafka") as kafka:
        read_log(kafka.bootstrap, evidence)
    findings = judge(evidence)
    (folder / "findings.json").write_text(json.dumps([asdict(one) for one in findings], indent=2))
    for one in findings:
        numbers = ", ".join(f"{name} {value}" for name, value in one.numbers.items())
        print(f"{'BROKEN' if one.broken else 'ok':7}{one.name:4} {one.says}: {numbers}")
        for line in one.broken[:SHOWN_MAX]:
            print(f"           {line}")
        if len(one.broken) > SHOWN_MAX:
            print(f"           and {len(one.broken) - SHOWN_MAX} more")
    return int(any(one.broken for one in findings))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
