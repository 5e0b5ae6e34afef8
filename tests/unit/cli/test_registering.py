"""`paperlog schemas-register` against a registry over HTTP: a small one of ours, and a real one where there is one."""

import datetime as dt
import ipaddress
import json
import os
import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_registry import FakeRegistry, fake_registry

from eventlog.avro import Schemas, schemas_dir
from eventlog.topics import Names, subjects, topic_table

SCHEMAS = Schemas(schemas_dir())
SUBJECTS = subjects(SCHEMAS, topic_table().values(), Names())
SCHEMAS_COUNT = sum(map(len, SUBJECTS.values()))
COMPLETED = "imports-paperlog.ImportCompleted"
SETTINGS = ("URL", "BASIC_AUTH_USER_INFO", "BASIC_AUTH_USER_INFO_FILE", "SSL_CA_LOCATION")
REAL = os.environ.get("SCHEMA_REGISTRY_URL")


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    for name in SETTINGS:
        monkeypatch.delenv(f"SCHEMA_REGISTRY_{name}", raising=False)
    monkeypatch.delenv("PAPERLOG_PREFIX", raising=False)
    with fake_registry() as fake:
        monkeypatch.setenv("SCHEMA_REGISTRY_URL", fake.url)
        yield fake


def test_every_schema_stands_there_under_its_own_id_and_no_subject_stays_in_import_mode(
    registry: FakeRegistry, run: Run
):
    ran = run("schemas-register")
    assert ran.code == 0, ran.err
    found = {
        subject: {v: row[0] for v, row in versions.items()} for subject, versions in registry.subjects.items()
    }
    assert found == {
        subject: {v: schema.id for v, schema in versions.items()} for subject, versions in SUBJECTS.items()
    }
    assert registry.modes == {}
    assert f"{COMPLETED} version 1 id {SCHEMAS.newest('ImportCompleted').id}\n" in ran.out
    assert f"{SCHEMAS_COUNT} registered, 0 were there" in ran.err


def test_a_second_time_nothing_is_written(registry: FakeRegistry, run: Run):
    run("schemas-register")
    writes = list(registry.writes)
    again = run("schemas-register")
    assert (again.code, again.out, registry.writes) == (0, "", writes)
    assert f"0 registered, {SCHEMAS_COUNT} were there" in again.err


def test_what_is_missing_is_added_to_a_subject_that_has_versions_and_has_a_mode_of_its_own(
    registry: FakeRegistry, run: Run
):
    run("schemas-register")
    registry.subjects[COMPLETED][2] = (
        2,
        '{"type": "record", "name": "Newer", "namespace": "paperlog", "fields": []}',
    )
    del registry.subjects[COMPLETED][1]
    registry.modes[COMPLETED] = "READONLY"
    ran = run("schemas-register")
    assert (ran.code, len(ran.out.splitlines())) == (0, 1), ran.err
    assert registry.subjects[COMPLETED][1][0] == SCHEMAS.newest("ImportCompleted").id
    assert registry.modes == {COMPLETED: "READONLY"}


@pytest.mark.parametrize("what", ["id", "version", "id of a version"])
def test_a_conflict_is_named_and_nothing_is_written(what: str, registry: FakeRegistry, run: Run):
    ours = SCHEMAS.newest("ImportCompleted")
    other = '{"type": "record", "name": "Other", "fields": []}'
    match what:
        case "id":
            registry.subjects["theirs-value"] = {1: (ours.id, other)}
            words = f"id {ours.id} is another schema there; ours is paperlog.ImportCompleted"
        case "version":
            registry.subjects[COMPLETED] = {1: (7, other)}
            words = f"{COMPLETED} version 1 is another schema there"
        case _:
            registry.subjects[COMPLETED] = {1: (7, json.dumps(ours.raw))}
            words = f"{COMPLETED} version 1 has id 7 there; ours is {ours.id}"
    before = json.dumps(registry.subjects)
    ran = run("schemas-register")
    assert ran.code == 1
    assert words in ran.err
    assert "nothing was written" in ran.err
    assert json.dumps(registry.subjects) == before
    assert registry.writes == []


def test_a_registry_without_import_mode_says_so(registry: FakeRegistry, run: Run):
    registry.is_mutable = False
    ran = run("schemas-register")
    assert ran.code == 1
    assert "does not let us choose ids" in ran.err
    assert "Mode changes are not allowed" in ran.err


def test_a_registry_that_gives_ids_of_its_own_is_found_out_and_left_as_it_was(
    registry: FakeRegistry, run: Run
):
    """As Apicurio's 3.3.3 does: it takes the mode and the id, and gives another."""
    registry.keeps_ids = False
    for tries in (1, 2):
        ran = run("schemas-register")
        assert ran.code == 1
        assert "did not keep what it was given" in ran.err
        assert "The version was deleted again." in ran.err
        assert (len(registry.writes), registry.modes) == (tries, {})
        assert (not any(registry.subjects.values()), registry.deleted) == (True, set())


def test_a_version_that_cannot_be_deleted_again_is_named(registry: FakeRegistry, run: Run):
    registry.keeps_ids = registry.may_delete = False
    ran = run("schemas-register")
    assert ran.code == 1
    assert "did not keep what it was given" in ran.err
    assert "The version stays there" in ran.err
    assert "405" in ran.err
    assert registry.modes == {}


def test_a_password_opens_and_is_never_shown(
    registry: FakeRegistry, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    registry.user_info = "writer:the secret"
    ran = run("schemas-register")
    assert ran.code == 1
    assert "HTTP 401" in ran.err
    assert "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO" in ran.err
    (tmp_path / "user").write_text("writer:the secret\n")
    monkeypatch.setenv("SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO_FILE", str(tmp_path / "user"))
    ran = run("schemas-register")
    assert ran.code == 0, ran.err
    assert "secret" not in ran.out + ran.err


def test_a_registry_behind_a_companys_own_authority_is_trusted_by_its_certificate(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    certificate = _self_signed(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with fake_registry(tls) as registry:
        monkeypatch.setenv("SCHEMA_REGISTRY_URL", registry.url)
        ran = run("schemas-register")
        assert ran.code == 1
        assert "SCHEMA_REGISTRY_SSL_CA_LOCATION" in ran.err
        monkeypatch.setenv("SCHEMA_REGISTRY_SSL_CA_LOCATION", str(certificate))
        ran = run("schemas-register")
        assert ran.code == 0, ran.err
        assert set(registry.subjects) == set(SUBJECTS)


def _self_signed(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "registry")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "registry.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "SCHEMA_REGISTRY_URL is not the address"),
        ("registry:8081", "SCHEMA_REGISTRY_URL is not the address"),
        ("http://me:secret@127.0.0.1:8081", "holds a user or a password"),
    ],
)
def test_an_address_that_is_none_is_refused_at_once(
    url: str, words: str, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", url)
    ran = run("schemas-register")
    assert ran.code == 2
    assert words in ran.err
    assert "secret" not in ran.err


def test_nobody_at_the_address_is_said(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    ran = run("schemas-register")
    assert ran.code == 1
    assert "No schema registry answers at http://127.0.0.1:1" in ran.err


def test_with_a_prefix_subjects_have_it_too(
    registry: FakeRegistry, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PAPERLOG_PREFIX", "lab")
    assert run("schemas-register").code == 0
    assert all(subject.startswith("lab-") for subject in registry.subjects)
    monkeypatch.setenv("PAPERLOG_PREFIX", "Not A Prefix")
    assert run("schemas-register").code == 2


@pytest.mark.skipif(not REAL, reason="SCHEMA_REGISTRY_URL names no schema registry")
def test_a_real_registry_takes_them_twice_and_a_foreign_client_finds_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    assert REAL is not None
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", REAL)
    # Subjects of this test's own; ids follow from the schemas, and another test may have brought them.
    prefix = f"t{uuid.uuid4().hex[:10]}"
    monkeypatch.setenv("PAPERLOG_PREFIX", prefix)
    first, second = run("schemas-register"), run("schemas-register")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "0 registered" in second.err
    client = SchemaRegistryClient({"url": REAL})
    found = client.get_latest_version(f"{prefix}-{COMPLETED}")
    assert found.schema_id == SCHEMAS.newest("ImportCompleted").id
