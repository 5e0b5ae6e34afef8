"""What stands before the routes: names, origins, limits, problem documents, the page."""

import errno
import json
import re

import pytest
from tests.unit.ingest_http.world import World, sha256

from ingest import blobs
from ingest.http import forms
from ingest.http.guard import names_answered, refusal
from ingest.settings import IngestSettings

MEMBERS = {"type", "title", "status", "detail", "code", "retryable", "action"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8800", "localhost.evil.example", "", "[::2]:8800", "["]
)
async def test_a_foreign_name_is_not_answered_on_loopback(host: str, world: World):
    answer = await world.http.get("/api/imports", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "host_unknown")


@pytest.mark.parametrize("host", ["127.0.0.1:8800", "localhost", "[::1]:8800", "LOCALHOST:1"])
async def test_loopbacks_names_are_answered(host: str, world: World):
    assert (await world.http.get("/api/imports", headers={"Host": host})).status_code == 200


async def test_another_sites_page_changes_nothing(world: World):
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        answer = await world.http.post("/api/blobs", content=b"x", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_foreign"), headers
        assert "access-control-allow-origin" not in answer.headers
    assert world.blob_files() == []
    own = {"Origin": "http://127.0.0.1:8800", "Sec-Fetch-Site": "same-origin"}
    assert (await world.http.post("/api/blobs", content=b"x", headers=own)).status_code == 201


def test_behind_a_public_address_any_name_is_answered_unless_names_are_told():
    def refused(host: str, told: tuple[str, ...]) -> bool:
        names = names_answered(told, bound_to="0.0.0.0")
        return refusal("GET", host=host, origin="", fetch_site="", names=names) is not None

    assert not refused("papers.example", ())
    assert refused("papers.example", ("localhost", "127.0.0.1"))
    assert not refused("127.0.0.1:8800", ("localhost", "127.0.0.1"))


async def test_every_error_is_a_problem_document(world: World):
    answers = [
        await world.http.get("/nowhere"),
        await world.http.delete("/api/imports"),
        await world.http.get("/api/imports", params={"limit": "many"}),
        await world.http.get("/api/imports/not-an-id"),
        await world.http.get("/api/search"),
        await world.http.post("/api/imports", content=b"{", headers={"Content-Type": "application/json"}),
        await world.http.post("/api/imports", content=b"x", headers={"Content-Type": "text/plain"}),
        await world.http.post("/api/imports", json={"source": {"files": []}, "surprise": 1}),
        await world.http.put("/api/blobs/xyz", content=b""),
    ]
    assert [answer.status_code for answer in answers] == [404, 405, 422, 422, 422, 422, 415, 422, 422]
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.json()) >= MEMBERS
        assert answer.json()["action"]


async def test_a_bug_is_a_problem_that_says_nothing_of_its_cause(world: World, monkeypatch):
    def broken(**_: object) -> None:
        raise RuntimeError("secret /path")

    monkeypatch.setattr(world.projection, "statuses", broken)
    answer = await world.http.get("/api/imports")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"source": {"files": [{"path": "\\ud800", "sha256": "' + b"0" * 64 + b'"}]}}',
        b'{"paths": ["/a"], "source": {"files": [{"path": "a", "sha256": "' + b"0" * 64 + b'"}]}}',
        b"{}",
        b"[" * 100_000,
        b'{"paths": ["/a"], "options": {"A B": "x"}}',
        b'{"source": {"kind": "nonsense", "files": [{"path": "a", "sha256": "' + b"0" * 64 + b'"}]}}',
    ],
)
async def test_a_body_that_makes_no_sense_is_refused(body: bytes, world: World):
    answer = await world.http.post("/api/imports", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert world.commands.appended == []


async def test_a_json_body_is_small(world: World):
    answer = await world.http.post(
        "/api/imports", content=b" " * (4 * 1024**2 + 1), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


async def test_a_file_is_named_by_its_hash(world: World):
    name = sha256(b"x")
    assert (await world.http.head(f"/api/blobs/{name}")).status_code == 404
    answer = await world.http.put(f"/api/blobs/{sha256(b'y')}", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (422, "hash_mismatch")
    assert world.blob_files() == []
    assert (await world.http.put(f"/api/blobs/{name}", content=b"x")).status_code == 201
    assert (await world.http.put(f"/api/blobs/{name}", content=b"x")).status_code == 200
    assert (await world.http.head(f"/api/blobs/{name}")).status_code == 200
    assert (await world.http.post("/api/blobs", content=b"z")).json() == {
        "sha256": sha256(b"z"),
        "size_bytes": 1,
    }


async def test_a_file_that_is_too_large_is_stopped_and_leaves_nothing(world: World, monkeypatch):
    from ingest.http import imports

    monkeypatch.setattr(imports, "FILE_BYTES_MAX", 1000)
    answer = await world.http.post("/api/blobs", content=b"x" * 1001)
    assert (answer.status_code, answer.json()["code"]) == (413, "file_too_large")
    assert world.blob_files() == []


async def test_a_full_disk_is_said_and_leaves_nothing(world: World, monkeypatch):
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blobs.Received, "write", write)
    answer = await world.http.post("/api/blobs", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert answer.json().keys() >= MEMBERS
    assert world.blob_files() == []


# --- forms -------------------------------------------------------------------------------------------------------

HEAD = {"Content-Type": "multipart/form-data; boundary=b"}


def a_part(name: str, data: bytes) -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode()
        + b'"\r\n\r\n'
        + data
        + b"\r\n"
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (a_part("a.pdf", b"x"), "form_invalid"),
        (a_part("../a.pdf", b"x") + b"--b--\r\n", "name_invalid"),
        (a_part("a%0Ab.pdf", b"x") + b"--b--\r\n", "name_invalid"),
        (a_part("a.pdf", b"x") + a_part("a.pdf", b"y") + b"--b--\r\n", "name_twice"),
        (b"garbage", "form_invalid"),
        (b"--b--\r\n", "source_empty"),
        (b'--b\r\nContent-Disposition: form-data; name="surprise"\r\n\r\nx\r\n' + a_part("a", b"") + b"--b--\r\n", "field_unknown"),
        (b'--b\r\nContent-Disposition: form-data; name="kind"\r\n\r\nx\r\n' + a_part("a", b"") + b"--b--\r\n", "kind_unknown"),
        (b'--b\r\nContent-Disposition: form-data; name="options"\r\n\r\n[]\r\n' + a_part("a", b"") + b"--b--\r\n", "request_invalid"),
        (b'--b\r\nContent-Disposition: form-data; name="project"\r\n\r\n' + b"x" * 70_000 + b"\r\n--b--\r\n", "form_invalid"),
        (b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--\r\n", "form_invalid"),
    ],
)  # fmt: skip
async def test_a_hostile_form_is_refused_and_leaves_nothing(body: bytes, code: str, world: World):
    answer = await world.http.post("/api/imports", content=body, headers=HEAD)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    if code in ("form_invalid", "name_invalid", "name_twice", "source_empty"):
        assert world.blob_files() == []
    assert world.commands.appended == []


async def test_a_form_may_come_in_single_bytes(world: World):
    async def slowly():
        for byte in a_part("L/ä.pdf", b"content") + b"--b--\r\n":
            yield bytes([byte])

    answer = await world.http.post("/api/imports", content=slowly(), headers=HEAD)
    assert answer.status_code == 202, answer.text
    assert world.blob_files() == [sha256(b"content")]


async def test_a_form_has_a_limit_as_a_whole(world: World, monkeypatch):
    monkeypatch.setattr(forms, "REQUEST_BYTES_MAX", 1000)
    body = a_part("a", b"x" * 600) + a_part("b", b"x" * 600) + b"--b--\r\n"
    answer = await world.http.post("/api/imports", content=body, headers=HEAD)
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert world.blob_files() == []


# --- paths on the server -----------------------------------------------------------------------------------------


async def test_paths_are_read_under_allowed_roots_only(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "lib").mkdir(parents=True)
    outside.mkdir()
    (root / "lib" / "a.pdf").write_bytes(b"a")
    (outside / "b.pdf").write_bytes(b"b")
    (root / "link").symlink_to(outside)
    world = World(tmp_path / "world", allowed_roots_raw=str(root))
    answer = await world.http.post("/api/imports", json={"paths": [str(root / "lib")]})
    assert (answer.status_code, answer.json()["project"]) == (202, "a")
    for path, status, code in (
        (outside, 403, "path_outside_roots"),
        (outside / "no such", 403, "path_outside_roots"),
        (root / "link", 403, "path_outside_roots"),
        (root / "link" / "b.pdf", 403, "path_outside_roots"),
        (root / ".." / "outside", 403, "path_outside_roots"),
        ("lib", 403, "path_outside_roots"),
        ("/a\x00b", 403, "path_outside_roots"),
        (root / "no such", 422, "path_missing"),
    ):
        answer = await world.http.post("/api/imports", json={"paths": [str(path)]})
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert str(tmp_path) not in answer.text
    world.close()


async def test_without_allowed_roots_no_path_is_read(world: World, tmp_path):
    answer = await world.http.post("/api/imports", json={"paths": [str(tmp_path)]})
    assert (answer.status_code, answer.json()["code"]) == (403, "paths_not_allowed")
    assert not answer.json()["retryable"]


# --- the page, the description, the settings ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_needs_nothing_from_elsewhere_and_writes_no_markup(path: str, world: World):
    answer = await world.http.get(path, headers={"Accept": "text/html"})
    html = answer.text
    assert answer.status_code == 200
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\son\w+=", html)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_what_the_page_asks_for_is_there(world: World):
    """No browser runs here: a name that was changed on one side alone is seen all the same."""
    html = (await world.http.get("/", headers={"Accept": "text/html"})).text
    assert set(re.findall(r'\$\("(\w+)"\)', html)) <= set(re.findall(r'id="(\w+)"', html))
    paths = (await world.http.get("/openapi.json")).json()["paths"]
    asked = re.sub(r"\$\{path\}", "/api/imports/${one.import_id}", html)
    asked = re.sub(r"\$\{(one\.import_|)id\}", "{import_id}", asked)
    wanted = set(re.findall(r"[\"`](/api/[\w/{}]+)", asked))
    assert wanted >= {
        "/api/imports/{import_id}/documents",
        "/api/imports/{import_id}/warnings",
        "/api/search",
    }
    assert wanted <= {*paths, "/api/imports/{import_id}/"}, "the last is made whole by what is to be done"


async def test_the_description_names_every_body(world: World):
    schema = (await world.http.get("/openapi.json")).json()
    assert set(schema["components"]["schemas"]) >= {"ImportIn", "SourceIn", "FileIn"}
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))
    assert references <= set(schema["components"]["schemas"])
    for path in ("/api/imports/{import_id}/resume", "/api/search", "/subjects", "/api/blobs/{sha256}"):
        assert path in schema["paths"]


async def test_the_description_names_the_type_of_each_answer(world: World):
    """With a nought in each path: most answers are errors, which have a type as well."""
    paths = (await world.http.get("/openapi.json")).json()["paths"]
    for path, methods in paths.items():
        for method in methods.keys() - {"head"}:
            answer = await world.http.request(method.upper(), re.sub(r"\{\w+\}", "0", path))
            described = methods[method]["responses"]
            named = described.get(str(answer.status_code), described["default"])["content"]
            assert answer.headers["Content-Type"].split(";")[0] in named, (method, path, answer.status_code)


async def test_metrics_name_no_id(world: World):
    made = (await world.ask({"a.pdf": b"a"})).json()
    await world.http.get(f"/api/imports/{made['import_id']}")
    text = (await world.http.get("/metrics")).text
    assert 'route="/api/imports/{import_id}"' in text
    assert made["import_id"] not in text


def test_every_wrong_setting_is_named_at_once(monkeypatch, capsys, tmp_path):
    from eventlog.settings import load

    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "PAPERLOG_HTTP_PORT": "99999",
        "PAPERLOG_DATA_DIR": str(tmp_path),
        "PAPERLOG_BLOBS": str(tmp_path),
        "PAPERLOG_GRAPH_WRITER_URL": "nonsense",
        "PAPERLOG_EMBEDDERS": '{"nobody": "http://x"}',
        "PAPERLOG_DEFAULT_SPACE": "nobody/knows",
        "PAPERLOG_ALLOWED_ROOTS": "relative",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        load(IngestSettings)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    for name in ("HTTP_PORT", "GRAPH_WRITER_URL", "EMBEDDERS", "DEFAULT_SPACE", "ALLOWED_ROOTS"):
        assert f"PAPERLOG_{name}" in said


def test_embedders_are_read_from_a_file_at_each_use(tmp_path):
    from ingest.settings import Embedders

    path = tmp_path / "embedders.json"
    embedders = Embedders(str(path))
    assert embedders.url_of("local/wordllama@256:1") is None
    path.write_text('{"local": "http://127.0.0.1:1/"}')
    assert embedders.url_of("local/wordllama@256:1") == "http://127.0.0.1:1"
