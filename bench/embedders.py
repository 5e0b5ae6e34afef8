"""The same import behind other embedders: a provider that caps what it takes, three embedders in place of one, and the
local model.

`python bench/embedders.py [--cases capped three local] [--chunks N]`. `capped`: 200 ms, and 429 with `Retry-After` in whole
seconds above 100 texts a second, of which one second's may come at once. `three`: 200 ms without a cap; the
ceiling is that of bench/throughput.py, and is no higher for three, for it is the largest partition's. `local`: wordllama,
on the same two cores as everything else.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx
from harness.corpus import write_corpus
from harness.report import print_head, print_step, print_table, save
from harness.stack import (
    OPENAI_SPACE,
    ROOT,
    BenchFailed,
    Imported,
    fake_provider,
    more_embedders,
    running_stack,
    scratch,
)
from throughput import requests_of_largest_partition

LATENCY_MS = 200
CAP_TEXTS_PER_S = 100
LOCAL_SPACE = "local/wordllama@256"
TO_REACH_SHARE = 0.95


def facts(case: str, imported: Imported) -> dict[str, Any]:
    return {
        "case": case,
        "chunks": imported.chunk_count,
        "seconds": round(imported.seconds, 2),
        "chunks_per_s": round(imported.chunk_count / imported.seconds, 1),
        "restarted": imported.restarted,
        "load_average": os.getloadavg()[0],
        "cpu_us_per_chunk": {
            name: round(cpu / imported.chunk_count * 1e6) for name, cpu in imported.cpu_s.items()
        },
    }


def capped(folder: Path, corpus: Path) -> dict[str, Any]:
    ledger = folder / "ledger-capped.jsonl"
    with (
        fake_provider(LATENCY_MS, ledger, texts_per_s=CAP_TEXTS_PER_S) as provider,
        running_stack(folder / "capped", embedding=OPENAI_SPACE, provider=provider) as stack,
    ):
        imported = stack.import_folder(corpus, "capped", kind="text")
        control = provider.url.removesuffix("/v1") + "/control"
        requests = httpx.get(control, timeout=30, trust_env=False).json()["requests"]
    refused = sum(1 for _, _, met in requests if met == "rate_limit")
    texts = sum(count for _, count, met in requests if met != "rate_limit")
    # The first second's texts came at once, before there was any cap to wait for.
    rate = (texts - CAP_TEXTS_PER_S) / imported.seconds
    return facts("capped", imported) | {
        "texts_embedded": texts,
        "requests": len(requests),
        "requests_refused": refused,
        "of": f"{CAP_TEXTS_PER_S} texts/s",
        "share": round(rate / CAP_TEXTS_PER_S, 3),
    }


def three(folder: Path, corpus: Path) -> dict[str, Any]:
    with (
        fake_provider(LATENCY_MS, folder / "ledger-three.jsonl") as provider,
        running_stack(folder / "three", embedding=OPENAI_SPACE, provider=provider) as stack,
        more_embedders(stack, 2, OPENAI_SPACE),
    ):
        imported = stack.import_folder(corpus, "three", kind="text")
        requests = asyncio.run(requests_of_largest_partition(stack.kafka, imported.import_id))
    ceiling = imported.chunk_count / (requests * LATENCY_MS / 1000)
    return facts("three", imported) | {
        "of": f"{ceiling:.0f} chunks/s",
        "share": round(imported.chunk_count / imported.seconds / ceiling, 3),
    }


def local(folder: Path, corpus: Path) -> dict[str, Any]:
    with running_stack(folder / "local", embedding=LOCAL_SPACE) as stack:
        return facts("local", stack.import_folder(corpus, "local", kind="text"))


CASES = {"capped": capped, "three": three, "local": local}


def show(results: list[dict[str, Any]]) -> None:
    print_table(
        ["case", "chunks", "seconds", "chunks/s", "of", "share", "requests refused"],
        [
            [
                each["case"],
                each["chunks"],
                each["seconds"],
                each["chunks_per_s"],
                each.get("of", "-"),
                f"{each['share']:.0%}" if "share" in each else "-",
                f"{each['requests_refused']} of {each['requests']}" if "requests" in each else "-",
            ]
            for each in results
        ],
    )
    names = sorted({name for each in results for name in each["cpu_us_per_chunk"]})
    print("\nprocessor microseconds per chunk, children included")
    print_table(
        ["case", *names, "all"],
        [
            [
                each["case"],
                *(each["cpu_us_per_chunk"].get(name, "-") for name in names),
                sum(each["cpu_us_per_chunk"].values()),
            ]
            for each in results
        ],
    )
    for each in results:
        if each["restarted"]:
            print(f"{each['case']}: died on the way: {', '.join(each['restarted'])}")
        if "share" in each:
            verdict = "reached" if each["share"] >= TO_REACH_SHARE else "NOT reached"
            print(f"{each['case']}: {TO_REACH_SHARE:.0%} of {each['of']} {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--chunks", type=int, default=10_000, metavar="N")
    args = parser.parse_args()
    print_head("one import behind other embedders")
    results: list[dict[str, Any]] = []
    try:
        with scratch() as folder:
            write_corpus(folder / "corpus", args.chunks)
            for case in args.cases:
                print_step(case)
                results.append(CASES[case](folder, folder / "corpus"))
    except BenchFailed as failed:
        print(f"nothing measured: {failed}", file=sys.stderr)
        return 1
    show(results)
    print(f"\n{save('embedders', results).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
