"""Resident and anonymous memory of each service, children included, while imports of growing size come in.

`python bench/memory.py [--sizes N …]`: each size in a stack of its own, with a fake provider of 1536 dimensions and
200 ms; then the largest once more with the three services together under a hard limit of 512 MB, where this machine
lets us make one. The broker is measured apart.
"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from harness.cgroup import memory_limited
from harness.corpus import write_corpus
from harness.processes import MemorySampler
from harness.report import megabytes, print_head, print_table, save
from harness.stack import OPENAI_SPACE, SERVICES, BenchFailed, fake_provider, running_stack, scratch

LATENCY_MS = 200
LIMIT_BYTES = 512 * 1024 * 1024
TOGETHER_KB_MAX = 350 * 1024
GROWTH_KB_MAX = 10 * 1024


def measure(folder: Path, corpus: Path, size: int, *, is_limited: bool) -> dict[str, Any]:
    name = f"{size}{'-limited' if is_limited else ''}"
    with (
        memory_limited(LIMIT_BYTES) if is_limited else nullcontext() as cgroup,
        fake_provider(LATENCY_MS, folder / f"ledger-{name}.jsonl") as provider,
    ):
        if is_limited and cgroup is None:
            return {"size": size, "is_limited": True, "skipped": "no control group can be made here"}
        with running_stack(
            folder / f"data-{name}",
            embedding=OPENAI_SPACE,
            provider=provider,
            cgroup=cgroup,
        ) as stack:
            with MemorySampler(stack.pids, together=SERVICES) as sampler:
                imported = stack.import_folder(corpus, f"memory {name}", kind="text")
            result = {
                "size": size,
                "is_limited": is_limited,
                "chunks": imported.chunk_count,
                "seconds": round(imported.seconds, 1),
                "restarts": sampler.restart_count,
                "together_anonymous_kb_peak": sampler.together_anonymous_kb_peak,
                "together_rss_kb_peak": sampler.together_rss_kb_peak,
                "services": {
                    name: {
                        "rss_kb": [
                            _of(series.start, "rss_kb"),
                            series.rss_kb_peak,
                            _of(series.end, "rss_kb"),
                        ],
                        "anonymous_kb": [
                            _of(series.start, "anonymous_kb"),
                            series.anonymous_kb_peak,
                            _of(series.end, "anonymous_kb"),
                        ],
                    }
                    for name, series in sorted(sampler.series.items())
                },
            }
            if cgroup is not None:
                result["cgroup_peak_bytes"] = cgroup.peak_bytes
                result["oom_kills"] = cgroup.oom_kill_count
    return result


def _of(memory: Any, name: str) -> int:
    return int(getattr(memory, name)) if memory is not None else 0


def show(results: list[dict[str, Any]]) -> None:
    rows = []
    for each in results:
        for name, values in each.get("services", {}).items():
            rows.append(
                [
                    f"{each['size']:,}{' in 512 MB' if each['is_limited'] else ''}",
                    name,
                    *(megabytes(kb) for kb in values["rss_kb"]),
                    *(megabytes(kb) for kb in values["anonymous_kb"]),
                ]
            )
    heads = ["chunks", "process", "rss start", "peak", "end", "anon start", "peak", "end"]
    print_table(heads, rows)
    print("\nMB; the three services together at their highest moment:")
    print_table(
        ["chunks", "really", "seconds", "anon", "rss", "restarts", "oom kills"],
        [
            [
                f"{each['size']:,}{' in 512 MB' if each['is_limited'] else ''}",
                each["chunks"],
                each["seconds"],
                megabytes(each["together_anonymous_kb_peak"]),
                megabytes(each["together_rss_kb_peak"]),
                each["restarts"],
                each.get("oom_kills", "-"),
            ]
            for each in results
            if "chunks" in each
        ],
    )
    for each in results:
        if "skipped" in each:
            print(f"under {LIMIT_BYTES >> 20} MB: not measured, {each['skipped']}")


def judge(results: list[dict[str, Any]]) -> None:
    free = {each["size"]: each for each in results if not each["is_limited"]}
    highest = max(each["together_anonymous_kb_peak"] for each in free.values())
    verdict = "kept" if highest <= TOGETHER_KB_MAX else "NOT kept"
    print(
        f"\nthree services ≤ {megabytes(TOGETHER_KB_MAX)} MB anonymous: {verdict} ({megabytes(highest)} MB)"
    )
    if {20_000, 50_000} <= free.keys():
        for name in SERVICES:
            kb = [free[size]["services"][name]["anonymous_kb"][1] for size in (20_000, 50_000)]
            verdict = "kept" if kb[1] - kb[0] <= GROWTH_KB_MAX else "NOT kept"
            print(
                f"{name}: growth from 20,000 to 50,000 chunks ≤ {megabytes(GROWTH_KB_MAX)} MB: {verdict} "
                f"({(kb[1] - kb[0]) / 1024:+.1f} MB)"
            )
    for each in results:
        if each["is_limited"] and "chunks" in each:
            is_alive = each["restarts"] == 0 and not each["oom_kills"]
            print(f"alive under a hard {LIMIT_BYTES >> 20} MB: {'yes' if is_alive else 'NO'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 20_000, 50_000])
    parser.add_argument("--no-limit", action="store_true", help="leave the run under the hard limit out")
    args = parser.parse_args()
    print_head("memory of the services")
    results = []
    try:
        for size in args.sizes:
            with scratch() as folder:
                write_corpus(folder / "corpus", size)
                results.append(measure(folder, folder / "corpus", size, is_limited=False))
                if size == max(args.sizes) and not args.no_limit:
                    results.append(measure(folder, folder / "corpus", size, is_limited=True))
    except BenchFailed as failed:
        print(f"not all was measured: {failed}", file=sys.stderr)
        if not results:
            return 1
    show(results)
    judge(results)
    print(f"\n{save('memory', results).relative_to(Path(__file__).parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
