"""Forty files of all kinds in one folder, through the whole stack: imported, found, verified, and what was wrong is named."""

import json
from pathlib import Path
from urllib.parse import urlencode

import pytest
from tests.e2e.stack import Stack
from tests.unit.ingest.mixed_library import FILES, FOUND_BY, MERGED, REJECTED, TITLES

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

HIDDEN = ".scholarag"
"""The command takes no hidden files; nothing needs this one."""


def test_a_mixed_folder_is_imported_searched_and_verified(tmp_path: Path) -> None:
    library = tmp_path / "coast"
    for name, data in FILES.items():
        path = library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(data, bytes)
        path.write_bytes(data)

    with Stack(tmp_path / "data") as stack:
        validated = json.loads(stack.command("validate", str(library), "--json", check=None).stdout)
        assert (validated["kind"], validated["items"]) == ("mixed", len(TITLES) + len(MERGED))

        import_id = stack.import_folder(library, "Coast")
        stack.wait(import_id, "completed_with_rejections")
        page = stack.ask("GET", f"/api/imports/{import_id}/documents?limit=100")
        assert sorted(one["title"] for one in page["documents"]) == sorted(TITLES)
        rejected = {one["item"]: one["reason"] for one in page["rejections"]}
        assert rejected == {item: str(reason) for item, reason in REJECTED.items()}
        warnings = stack.ask("GET", f"/api/imports/{import_id}/warnings?limit=200")["warnings"]
        assert {one["subject"] for one in warnings if one["code"] == "item_merged"} == MERGED

        for words, title in FOUND_BY.items():
            found = stack.ask("GET", "/api/search?" + urlencode({"q": words, "project": "Coast", "limit": 3}))
            assert found["results"][0]["title"] == title, words
        stack.command("verify", import_id)
