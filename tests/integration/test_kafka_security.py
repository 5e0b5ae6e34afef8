"""Kafka as users have it: TLS, passwords, rights and topics of their own, each against a real broker that insists on it."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType
from tests.integration.embedder_process import until
from tests.integration.kafka_rights import RUNBOOK, derived, documented, grant
from tests.integration.secured_kafka import KEY_PASSWORD, PASSWORD, Certificates, SecuredKafka
from tests.integration.services_apart import GraphWriter, apart

from eventlog.errors import TransientFailure
from eventlog.kafka import KafkaLog
from eventlog.settings import ServiceSettings
from eventlog.topics import CHUNKS, IMPORTS, Names, Topic, topic_table, topics_of

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates") / "made")


@pytest.fixture(scope="module")
def broker(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    kafka = SecuredKafka(tmp_path_factory.mktemp("kafka"), certificates)
    kafka.start()
    try:
        kafka.add_users()
        yield kafka
    finally:
        kafka.stop()


@pytest.fixture
def authority(certificates: Certificates) -> dict[str, str]:
    return {"KAFKA_SSL_TRUSTSTORE_LOCATION": str(certificates.authority)}


def by_password(user: str, mechanism: str = "SCRAM-SHA-512", *, password: str = PASSWORD) -> dict[str, str]:
    return {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": user,
        "KAFKA_SASL_PASSWORD": password,
    }


def log_of(address: str, prefix: str = "", **more: str) -> KafkaLog:
    given: dict[str, Any] = {
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "PAPERLOG_PREFIX": prefix,
        "PAPERLOG_HTTP_PORT": 0,
        "PAPERLOG_DATA_DIR": "unused",
    }
    return KafkaLog(ServiceSettings(**given, **more))  # type: ignore[arg-type]  # the names of the environment


def open_sockets() -> set[str]:
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing itself, by now
            found.add(str(one.readlink()))
    return {one for one in found if one.startswith("socket:")}


async def why_not(address: str, **more: str) -> str:
    before = open_sockets()
    log = log_of(address, **more)
    try:
        with pytest.raises(TransientFailure) as caught:
            await log.ensure_topics(topics_of("embedder", "embedder-x"))
    finally:
        await log.close()
    # A refused connection says its TLS goodbye behind `close`: a loop that ends before leaves the socket to whatever test
    # is running when it is collected.
    await until(lambda: open_sockets() <= before, why=lambda: f"open: {open_sockets() - before}")
    return str(caught.value)


# --- the whole way


async def test_a_library_goes_in_over_tls_and_scram_with_exactly_the_rights_that_the_runbook_lists(
    broker: SecuredKafka, authority: dict[str, str], kafka_prefix: str, tmp_path: Path
) -> None:
    grant(broker.admin(), documented(), kafka_prefix)

    def kafka_of(service: str) -> Mapping[str, str]:
        secret = tmp_path / f"password-of-{service}"
        secret.write_text(PASSWORD + "\n")
        by = by_password(service) | {"KAFKA_SASL_PASSWORD": "", "KAFKA_SASL_PASSWORD_FILE": str(secret)}
        where = {"KAFKA_BOOTSTRAP_SERVERS": broker.address("SCRAM"), "PAPERLOG_PREFIX": kafka_prefix}
        return {**where, **authority, **by}

    async with apart(tmp_path / "stack", kafka_of) as stack:
        import_id = stack.import_library("Safe")
        stack.command("verify", import_id)
        assert "nap" in stack.command("search", "does a nap help memory", "--project", "Safe", "--json")
        assert "AuthorizationFailed" not in stack.said
        assert "rights" not in stack.said
        assert PASSWORD not in stack.said


async def test_a_library_goes_in_over_mutual_tls_into_topics_that_somebody_else_has_made(
    broker: SecuredKafka,
    certificates: Certificates,
    authority: dict[str, str],
    kafka_prefix: str,
    tmp_path: Path,
) -> None:
    grant(broker.admin(), [one for one in documented() if one.operation != "Create"], kafka_prefix)
    maker = log_of(broker.bootstrap, kafka_prefix)
    groups = [
        ("ingest", "ingest"),
        ("embedder", "embedder-local-wordllama-256-1"),
        ("graph-writer", "graph-writer"),
    ]
    for service, group in groups:
        await maker.ensure_topics(topics_of(service, group))
    await maker.close()
    secret = tmp_path / "key-password"
    secret.write_text(KEY_PASSWORD)

    def kafka_of(service: str) -> Mapping[str, str]:
        return {
            **authority,
            "KAFKA_BOOTSTRAP_SERVERS": broker.address("MUTUAL"),
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_KEYSTORE_LOCATION": str(certificates.issue(service, password=KEY_PASSWORD)),
            "KAFKA_SSL_KEY_PASSWORD_FILE": str(secret),
            "PAPERLOG_PREFIX": kafka_prefix,
        }

    async with apart(tmp_path / "stack", kafka_of) as stack:
        import_id = stack.import_library("Mutual")
        stack.command("verify", import_id)
        assert "AuthorizationFailed" not in stack.said
        assert KEY_PASSWORD not in stack.said


def test_the_rights_in_the_runbook_are_those_of_the_table_of_topics() -> None:
    listed = documented()
    assert len(listed) == len(set(listed)) > 30
    assert set(listed) == derived()


# --- who is refused hears why


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
async def test_every_mechanism_lets_the_right_password_in_and_the_wrong_one_hears_what_to_look_at(
    broker: SecuredKafka, authority: dict[str, str], kafka_prefix: str, mechanism: str
) -> None:
    grant(broker.admin(), documented(), kafka_prefix)
    how = authority | by_password("embedder", mechanism)
    address = broker.address("SCRAM")
    if mechanism == "PLAIN":
        address, how["KAFKA_SECURITY_PROTOCOL"] = broker.address("CLEAR"), "SASL_PLAINTEXT"
    else:
        broker.add_users(mechanism)
    log = log_of(address, kafka_prefix, **how)
    try:
        await log.ensure_topics(topics_of("embedder", "embedder-x"))
    finally:
        await log.close()
    said = await why_not(address, **how | {"KAFKA_SASL_PASSWORD": "another-hidden-word"})
    assert f"does not let the user embedder in by {mechanism}: look at KAFKA_SASL_USERNAME" in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    ("listener", "given", "said"),
    [
        ("SCRAM", {"KAFKA_SASL_MECHANISM": "PLAIN"}, "does not take PLAIN: set KAFKA_SASL_MECHANISM"),
        ("SCRAM", {"KAFKA_SSL_TRUSTSTORE_LOCATION": "STRANGER"}, "is not trusted .*: set KAFKA_SSL_TRUSTSTORE_LOCATION"),
        ("SCRAM", {"KAFKA_SSL_TRUSTSTORE_LOCATION": ""}, "is not trusted .*: set KAFKA_SSL_TRUSTSTORE_LOCATION"),
        ("SCRAM", {"KAFKA_SECURITY_PROTOCOL": "SSL"}, r"look at KAFKA_SECURITY_PROTOCOL \(SSL\) and the port"),
        ("SCRAM", {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, r"look at KAFKA_SECURITY_PROTOCOL \(PLAINTEXT\)"),
        ("ELSEWHERE", {"KAFKA_SECURITY_PROTOCOL": "SSL"}, "is for another name .*: use a name that it holds"),
        ("MUTUAL", {"KAFKA_SECURITY_PROTOCOL": "SSL"}, "wants a certificate of ours .*: set KAFKA_SSL_KEYSTORE_LOCATION"),
        (
            "MUTUAL",
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEYSTORE_LOCATION": "UNTRUSTED"},
            "wants a certificate of ours that it trusts",
        ),
        ("LOST", {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "kafka.invalid.* .the brokers name this address themselves"),
    ],
)  # fmt: skip
async def test_who_is_refused_hears_what_to_do(
    broker: SecuredKafka, certificates: Certificates, authority: dict[str, str], listener: str,
    given: dict[str, str], said: str,
) -> None:  # fmt: skip
    files = {
        "STRANGER": str(certificates.stranger),
        "UNTRUSTED": str(certificates.issue_untrusted("untrusted")),
    }
    how = authority | by_password("embedder") | {name: files.get(one, one) for name, one in given.items()}
    found = await why_not(broker.address(listener), **{name: one for name, one in how.items() if one})
    assert re.search(said, found), found
    assert "hidden" not in found


async def test_a_service_that_is_refused_lives_says_why_without_a_secret_and_goes_on_when_it_is_let_in(
    broker: SecuredKafka, authority: dict[str, str], kafka_prefix: str, tmp_path: Path
) -> None:
    grant(broker.admin(), documented(), kafka_prefix)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(PASSWORD)
    wrong.write_text("another-hidden-word")
    where = {"KAFKA_BOOTSTRAP_SERVERS": broker.address("SCRAM"), "PAPERLOG_PREFIX": kafka_prefix}
    how = where | authority | by_password("graph-writer")
    folder = tmp_path / "writer"
    writer = GraphWriter(
        folder,
        how
        | {"KAFKA_SASL_PASSWORD": "", "KAFKA_SASL_PASSWORD_FILE": str(wrong)}
        | {"PAPERLOG_STORE_DIR": str(folder / "store")},
    )
    try:
        writer.spawn()
        await until(
            lambda: "does not let the user graph-writer in" in writer.log_text, lambda: writer.log_text
        )
        assert writer.get("/livez")[0] == 200
        assert "log_down" in writer.reasons
        broker.add_users(password="another-hidden-word")
        await writer.until_ready()
        assert "hidden" not in writer.log_text
    finally:
        broker.add_users()
        writer.close()


async def test_a_right_that_is_missing_is_said_with_where_the_rights_are_listed(
    broker: SecuredKafka, authority: dict[str, str]
) -> None:
    said = await why_not(broker.address("SCRAM"), **authority, **by_password("embedder"))
    assert "may not be made" in said
    assert "docs/runbooks/kafka.md" in said
    assert RUNBOOK.is_file()


# --- topics that are there already


@pytest.fixture
def theirs(broker: SecuredKafka, kafka_prefix: str) -> Topic:
    """`imports`, made by somebody else with other settings."""
    topic = topic_table()[IMPORTS]
    other = {"retention.ms": "604800000", "cleanup.policy": "compact", "max.message.bytes": "1000012"}
    made = NewTopic(Names(kafka_prefix).of(IMPORTS), topic.partitions, 1, config=other)
    admin = broker.admin()
    for done in admin.create_topics([made]).values():
        done.result(30)
    return topic


def settings_of(broker: SecuredKafka, name: str) -> dict[str, str]:
    admin = broker.admin()
    (found,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
    return {key: entry.value for key, entry in found.result(30).items()}


async def test_other_settings_of_a_topic_are_said_and_not_changed(
    broker: SecuredKafka, kafka_prefix: str, theirs: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    name = Names(kafka_prefix).of(theirs.name)
    before = settings_of(broker, name)
    log = log_of(broker.bootstrap, kafka_prefix)
    with caplog.at_level(logging.WARNING, logger="eventlog.kafka"):
        await log.ensure_topics(topics_of("graph-writer", "graph-writer"))
    await log.close()
    said = {one.fields["setting"]: one.fields for one in caplog.records if one.msg == "topic.settings_differ"}  # type: ignore[attr-defined]  # our logger's
    assert set(said) == {"retention.ms", "cleanup.policy", "max.message.bytes"}
    assert {one["topic"] for one in said.values()} == {name}
    assert (said["retention.ms"]["found"], said["retention.ms"]["ours"]) == ("604800000", "-1")
    assert all(one["why"] for one in said.values())
    assert settings_of(broker, name) == before
    ours = settings_of(broker, Names(kafka_prefix).of("embeddings"))
    assert (ours["retention.ms"], ours["cleanup.policy"]) == ("-1", "delete")


async def test_another_count_of_partitions_ends_the_start_with_what_to_do(
    broker: SecuredKafka, kafka_prefix: str, tmp_path: Path
) -> None:
    name = Names(kafka_prefix).of("embeddings")
    admin = broker.admin()
    for done in admin.create_topics([NewTopic(name, 12, 1)]).values():
        done.result(30)
    folder = tmp_path / "writer"
    env = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "PAPERLOG_PREFIX": kafka_prefix}
    writer = GraphWriter(folder, env | {"PAPERLOG_STORE_DIR": str(folder / "store")})
    try:
        writer.spawn()
        assert writer.wait(60) == 2
    finally:
        writer.close()
    assert f"topic {name} has 12 partitions, not 48" in writer.log_text
    assert "PAPERLOG_PREFIX" in writer.log_text
    assert len(admin.list_topics(name, timeout=30).topics[name].partitions) == 12


async def test_asking_for_a_topic_does_not_make_it_where_brokers_make_what_is_asked_for(
    broker: SecuredKafka, kafka_prefix: str
) -> None:
    log = log_of(broker.bootstrap, kafka_prefix)
    with pytest.raises(TransientFailure, match="is not there"):
        await log.partitions(CHUNKS)
    admin = broker.admin()
    assert Names(kafka_prefix).of(CHUNKS) not in admin.list_topics(timeout=30).topics
    await log.ensure_topics([topic_table()[CHUNKS]])
    assert await log.partitions(CHUNKS) == 48
    await log.close()
