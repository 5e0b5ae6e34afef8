"""P1 to P4 where they could break: SIGKILL of everything in the middle of an import, and the loss of the store.

What is compared: point ids, payloads and vectors of the store with those of an import that nobody disturbed
(revision, attempt and the store's id apart); the provider's ledger; the number of `ImportCompleted`.
"""

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.edge_files import delete_points
from tests.e2e.reading import completed_events, store_points
from tests.e2e.stack import Provider, Stack, provider, until, write_texts

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

MODEL = "openai/test-embedding@64"
DOCUMENTS, CHUNKS_EACH = 24, 16
SLOW = {"PAPERLOG_REQUESTS_MAX": "4"}
"""With a provider that takes its time the import then lasts some seconds, so that what is done to it meets it half-way."""
LOST_PER_DEATH = 48 * 2 * 5
"""Texts that one death may cost (P4): two batches of five per assigned partition."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "texts"
    write_texts(folder, documents=DOCUMENTS, chunks_each=CHUNKS_EACH)
    return folder


@pytest.fixture(scope="module")
def undisturbed(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The store after an import that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with provider(folder) as fake:
        with Stack(folder / "data", embedding=MODEL, env=fake.env) as stack:
            import_id = stack.import_folder(library, "Texts")
            status = stack.wait(import_id)
            assert status["state"] == "completed"
            assert status["chunks"]["stored"] == status["chunks"]["total"] > 200
            assert status["tokens_billed"] > 0
        billed = fake.billed()
        assert len(billed) == len(set(billed)) > 0
    return {
        "data": folder / "data",
        "import_id": import_id,
        "points": store_points(folder / "data"),
        "texts": len(billed),
        "digest": status["digest"],
    }


def settled_count(stack: Stack, import_id: str) -> int:
    chunks = stack.status(import_id)["chunks"]
    return int(chunks["stored"] + chunks["rejected"] + chunks["superseded"] + chunks["dead_lettered"])


def check_like_undisturbed(
    stack: Stack, import_id: str, fake: Provider, undisturbed: dict[str, Any], *, deaths: int
) -> None:
    status = stack.wait(import_id)
    assert status["state"] == "completed"
    assert status["digest"] == undisturbed["digest"]
    stack.command("verify", import_id)
    assert len(completed_events(stack, import_id)) == 1
    billed = Counter(fake.billed())
    assert len(billed) == undisturbed["texts"]
    assert billed.total() - len(billed) <= deaths * LOST_PER_DEATH
    stack.stop()
    assert store_points(stack.folder) == undisturbed["points"]


def test_killed_services_and_broker_cost_nothing_but_time(
    tmp_path: Path, library: Path, undisturbed: dict[str, Any]
) -> None:
    chance = random.Random(7)
    deaths = ["ingest", "embedder", "graph-writer"] * 2 + ["kafka"]
    chance.shuffle(deaths)
    with (
        provider(tmp_path, latency_ms=200) as fake,
        Stack(tmp_path / "data", embedding=MODEL, env={**fake.env, **SLOW}) as stack,
    ):
        import_id = stack.import_folder(library, "Texts")
        for number, name in enumerate(deaths):
            share = number / len(deaths) * 0.6
            until(
                lambda share=share: stack.status(import_id)["progress"] >= share,
                120,
                lambda share=share: f"no progress to {share}: {stack.status(import_id)} {stack.tail()}",
            )
            stack.kill(name)
        check_like_undisturbed(
            stack, import_id, fake, undisturbed, deaths=deaths.count("embedder") + deaths.count("kafka")
        )


def test_a_store_deleted_half_way_refills_itself_without_a_bill(
    tmp_path: Path, library: Path, undisturbed: dict[str, Any]
) -> None:
    with (
        provider(tmp_path, latency_ms=100) as fake,
        Stack(tmp_path / "data", embedding=MODEL, env={**fake.env, **SLOW}) as stack,
    ):
        import_id = stack.import_folder(library, "Texts")
        total = undisturbed["texts"]
        until(lambda: settled_count(stack, import_id) > total // 2, 120, "the import does not get half-way")
        shutil.rmtree(stack.folder / "store")
        check_like_undisturbed(stack, import_id, fake, undisturbed, deaths=0)


def test_the_whole_stack_killed_goes_on_by_itself(
    tmp_path: Path, library: Path, undisturbed: dict[str, Any]
) -> None:
    with provider(tmp_path, latency_ms=200) as fake:
        stack = Stack(tmp_path / "data", embedding=MODEL, env={**fake.env, **SLOW})
        with stack:
            import_id = stack.import_folder(library, "Texts")
            until(lambda: settled_count(stack, import_id) > 20, 120, "nothing was settled")
            stack.kill_up()
        with stack:
            check_like_undisturbed(stack, import_id, fake, undisturbed, deaths=1)


def test_a_cancelled_import_stops_asking_and_resumes_without_an_upload(
    tmp_path: Path, library: Path, undisturbed: dict[str, Any]
) -> None:
    with (
        provider(tmp_path, latency_ms=200) as fake,
        Stack(tmp_path / "data", embedding=MODEL, env={**fake.env, **SLOW}) as stack,
    ):
        import_id = stack.import_folder(library, "Texts")
        until(lambda: settled_count(stack, import_id) > 20, 120, "nothing was settled")
        assert stack.request("POST", f"/api/imports/{import_id}/cancel")[0] == 202
        stack.wait(import_id, "cancelled")
        billed_at_cancel = len(fake.billed())
        assert billed_at_cancel < undisturbed["texts"]
        # By words, for a question that is embedded is billed too.
        stack.command("search", "anything", "--project", "Texts", "--mode", "words", "--json")
        for blob in (stack.folder / "blobs").rglob("*"):
            blob.touch()
        stack.command("resume", import_id)
        check_like_undisturbed(stack, import_id, fake, undisturbed, deaths=1)


def test_a_damaged_store_is_named_and_repaired_and_the_same_library_again_adds_nothing_without_a_bill(
    tmp_path: Path, library: Path, undisturbed: dict[str, Any]
) -> None:
    """In the folder of the undisturbed import, started once more, with a provider that has billed nothing yet."""
    collection = next(name for name in undisturbed["points"] if name.startswith("openai"))
    points = undisturbed["points"][collection]
    deleted = sorted(id_ for id_, (payload, _) in points.items() if '"kind": "passage"' in payload)[:3]
    delete_points(undisturbed["data"] / "store" / collection, deleted)
    first = undisturbed["import_id"]
    with provider(tmp_path) as fake:
        with Stack(undisturbed["data"], embedding=MODEL, env=fake.env) as stack:
            said = json.loads(stack.command("verify", first, "--json", check=1).stdout)
            assert sorted(each["chunk_id"] for each in said["missing"]) == deleted
            assert (said["extra_count"], said["different_count"]) == (0, 0)
            stack.command("resume", first)
            assert stack.wait(first)["attempt"] == 2
            stack.command("verify", first)

            assert stack.import_folder(library, "Texts") == first, "the same folder is the same import"
            again = stack.import_folder(library, "Texts", "--idempotency-key", "again")
            assert again != first
            status = stack.wait(again)
            assert (status["tokens_billed"], status["chunks"]["reused"]) == (0, status["chunks"]["total"])
            assert status["digest"] == undisturbed["digest"]
            stack.command("verify", again)
            assert len(completed_events(stack, again)) == 1
        assert fake.billed() == []
    assert store_points(undisturbed["data"]) == undisturbed["points"]
