"""`python -m tests.faults.mutants [NAME…]`: breaks a copy of the code on purpose, and shows which check caught it.

Each mutant is one line of the services changed, run under one fault, sometimes two. One that nothing catches is a hole
in the checks: exit code 1. It tests the auditor, not the system, so it is no part of `make faults`.

That a lost store's settlements are taken back is none of them: a store refills in the order of the log, so by the time
an import's last chunk is settled here, what was lost is back, and nobody can tell. The simulation orders it otherwise
(`tests/simulation/breaks.py`).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "libs/eventlog/src",
    "services/ingest/src",
    "services/embedder/src",
    "services/graph-writer/src",
    "cli/src",
)
EMBEDDER, WRITER, INGEST = (
    "services/embedder/src/embedder",
    "services/graph-writer/src/graph_writer",
    "services/ingest/src/ingest",
)
RUN_S_MAX = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    says: str
    path: str
    old: str
    new: str
    fault: str


MUTANTS = (
    Mutant(
        name="commit-early",
        says="the embedder commits a record when it is read, not when its event is acknowledged",
        path=f"{EMBEDDER}/worker.py",
        old="        answers, is_whole = await self._answer(batch.chunks, before)\n",
        new="        self.done_offset = batch.end_offset\n        answers, is_whole = await self._answer(batch.chunks, before)\n",
        fault="F1",
    ),
    Mutant(
        name="forget-the-index",
        says="the embedder does not look whether a text is paid for",
        path=f"{EMBEDDER}/worker.py",
        old="is_paid=lambda key: key in before.vectors or index.place_of(key) is not None",
        new="is_paid=lambda key: key in before.vectors",
        fault="F14",
    ),
    Mutant(
        name="advance-first",
        says="the writer's position advances before its settlements are in the log",
        path=f"{WRITER}/publish.py",
        old='            await self._sender.say([*((event, "") for event in said), *documents])\n            await self._patience.wait_out(lambda: self._opened.advance(read_to))\n',
        new='            await self._patience.wait_out(lambda: self._opened.advance(read_to))\n            await self._sender.say([*((event, "") for event in said), *documents])\n',
        fault="F12",
    ),
    Mutant(
        name="complete-early",
        says="an import is complete when it is sealed, whatever is settled",
        path=f"{INGEST}/core.py",
        old="return is_sealed and open_documents == 0 and open_chunks == 0",
        new="return is_sealed",
        fault="F8",
    ),
    Mutant(
        name="sweep-nothing",
        says="what a newer content takes away is left",
        path=f"{WRITER}/apply.py",
        old="gone = core.plan_sweep(held, part=part, revision=parsed.revision, kept=kept[part])",
        new="gone = core.plan_sweep(held, part=part, revision=parsed.revision, kept=kept[part])[:0]",
        fault="F14",
    ),
    Mutant(
        name="trust-the-order",
        says="vectors are taken in the order of the answer, not by their index",
        path=f"{EMBEDDER}/models/openai.py",
        old="return [by_index[index] for index in range(count)], billed(tokens)",
        new="return list(by_index.values()), billed(tokens)",
        fault="F9",
    ),
    Mutant(
        name="one-id-for-all",
        says="the id of an event does not follow from its content",
        path="libs/eventlog/src/eventlog/ids.py",
        old='_derive(NAMESPACE, "event", type_, subject, attempt, hashlib.sha256(body).hexdigest())',
        new='_derive(NAMESPACE, "event", type_, subject, attempt)',
        fault="F14",
    ),
    Mutant(
        name="say-the-key",
        says="a provider's words are passed on with the key in them",
        path=f"{EMBEDDER}/models/model.py",
        old='return " ".join(_SECRET.sub("…", text).split())[:MESSAGE_LENGTH_MAX]',
        new='return " ".join(str(message).split())[:MESSAGE_LENGTH_MAX]',
        fault="F6",
    ),
    Mutant(
        name="ignore-retry-after",
        says="a 429 pauses for half a second, whatever the provider says",
        path=f"{EMBEDDER}/core.py",
        old="        return failed.retry_after_s\n",
        new="        return 0.3\n",
        fault="F6",
    ),
    Mutant(
        name="wrong-digest",
        says="the digest of an import is one more than the sum of its hashes",
        path=f"{INGEST}/core.py",
        old='    return f"{total % (1 << 256):064x}"',
        new='    return f"{(total + 1) % (1 << 256):064x}"',
        fault="F14",
    ),
)  # fmt: skip


def run(mutant: Mutant, folder: Path) -> str:
    """The checks that caught it, or an empty string."""
    for name in ("libs", "services", "cli", "schemas"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / mutant.path
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: {mutant.path} is not as it was"
    path.write_text(text.replace(mutant.old, mutant.new))
    path_of_sources = os.pathsep.join(str(folder / one) for one in SOURCES)
    env = {**os.environ, "PYTHONPATH": path_of_sources, "TMPDIR": str(folder)}
    argv = [sys.executable, "-m", "tests.faults.run", "--seed", "1", mutant.fault]
    done = subprocess.run(
        argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=RUN_S_MAX, check=False
    )
    (folder / "output").write_text(done.stdout + done.stderr)
    caught = re.findall(r"^BROKEN *(I\d+)", done.stdout, re.MULTILINE)
    caught += re.findall(r"^   BROKEN (.{0,60})", done.stdout, re.MULTILINE)
    if not caught and done.returncode:
        caught = ["the run does not end"]
    return ", ".join(caught)


def main() -> int:
    wanted = set(sys.argv[1:]) or {mutant.name for mutant in MUTANTS}
    missed = 0
    print("| break | fault | caught by |\n|---|---|---|")
    for mutant in MUTANTS:
        if mutant.name not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="paperlog-mutant-") as folder:
            caught = run(mutant, Path(folder))
        missed += not caught
        print(f"| `{mutant.name}`: {mutant.says} | {mutant.fault} | {caught or 'NOBODY'} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
