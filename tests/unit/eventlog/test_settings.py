"""Settings come from the environment; what is wrong is named all at once, and no secret is shown."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field, SecretStr
from tests.integration.secured_kafka import KEY_PASSWORD, Certificates

from eventlog.kafka_client import connection
from eventlog.settings import ServiceSettings, load

GOOD = {
    "KAFKA_BOOTSTRAP_SERVERS": "a.example:9092,b.example:9093",
    "PAPERLOG_HTTP_PORT": "8801",
    "PAPERLOG_DATA_DIR": "data",
}


class Settings(ServiceSettings):
    api_key: SecretStr = Field(SecretStr(""), validation_alias="API_KEY", description="a secret of its own")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    for name in [one.validation_alias for one in Settings.model_fields.values()]:
        monkeypatch.delenv(str(name), raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setattr(sys, "argv", ["service"])

    def put(**more: str) -> None:
        for name, value in {**GOOD, **more}.items():
            monkeypatch.setenv(name, value)

    return put


def wrong(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The names of the settings that a start refused."""
    with pytest.raises(SystemExit) as caught:
        load(Settings)
    assert caught.value.code == 2
    head, *lines = capsys.readouterr().err.splitlines()
    assert head == f"{len(lines)} wrong setting(s):"
    return [line.split(":")[0].strip() for line in lines]


def test_good_settings_are_loaded_and_cannot_be_changed(environment):
    environment()
    settings = load(Settings)
    assert settings.http_port == 8801
    assert settings.data_dir == Path("data")
    assert settings.prefix == ""
    with pytest.raises(ValueError, match="frozen"):
        settings.http_port = 1


def test_every_wrong_setting_is_named_at_once(environment, capsys):
    environment(
        KAFKA_BOOTSTRAP_SERVERS="nowhere",
        PAPERLOG_HTTP_PORT="70000",
        PAPERLOG_PREFIX="No_Such_Prefix",
        PAPERLOG_INSTANCE="a b",
        KAFKA_SECURITY_PROTOCOL="SSH",
        KAFKA_SASL_MECHANISM="GUESS",
        KAFKA_SSL_TRUSTSTORE_LOCATION="/nowhere/ca.pem",
    )
    assert sorted(wrong(capsys)) == [
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SECURITY_PROTOCOL",
        "KAFKA_SSL_TRUSTSTORE_LOCATION",
        "PAPERLOG_HTTP_PORT",
        "PAPERLOG_INSTANCE",
        "PAPERLOG_PREFIX",
    ]


def test_missing_settings_are_named_and_an_empty_one_is_missing(environment, capsys):
    environment(PAPERLOG_HTTP_PORT="", KAFKA_BOOTSTRAP_SERVERS="")
    assert sorted(wrong(capsys)) == ["KAFKA_BOOTSTRAP_SERVERS", "PAPERLOG_HTTP_PORT"]


def test_sasl_needs_a_user_and_a_password(environment, capsys):
    environment(KAFKA_SECURITY_PROTOCOL="SASL_SSL", KAFKA_SASL_PASSWORD="hidden-word")
    assert wrong(capsys) == ["KAFKA_SASL_USERNAME"]
    environment(KAFKA_SECURITY_PROTOCOL="SASL_SSL", KAFKA_SASL_USERNAME="user", KAFKA_SASL_PASSWORD="")
    assert wrong(capsys) == ["KAFKA_SASL_PASSWORD"]


@pytest.mark.parametrize("servers", ["a:1", "127.0.0.1:9092", "[::1]:9092", "a:1,b:2"])
def test_addresses_of_brokers_are_host_and_port(environment, servers: str):
    environment(KAFKA_BOOTSTRAP_SERVERS=servers)
    assert connection(load(Settings))["bootstrap_servers"] == servers.split(",")


@pytest.mark.parametrize("servers", ["a", "a:", ":1", "a:1,", "a:1, b:2", "http://a/b"])
def test_anything_else_is_no_address(environment, capsys, servers: str):
    environment(KAFKA_BOOTSTRAP_SERVERS=servers)
    assert wrong(capsys) == ["KAFKA_BOOTSTRAP_SERVERS"]


def test_check_prints_every_setting_with_its_meaning_and_no_secret(environment, capsys, monkeypatch):
    environment(KAFKA_SASL_PASSWORD="hidden-word", API_KEY="hidden-key")
    monkeypatch.setattr(sys, "argv", ["service", "--check"])
    with pytest.raises(SystemExit) as caught:
        load(Settings)
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" = ")[0] for line in lines] == [
        one.validation_alias for one in Settings.model_fields.values()
    ]
    assert all(" # " in line for line in lines)
    assert "hidden" not in "".join(lines)
    assert "PAPERLOG_HTTP_PORT = 8801  # port to listen on" in lines


def test_a_wrong_secret_is_not_shown(environment, capsys):
    environment(
        KAFKA_SASL_PASSWORD="hidden-word", PAPERLOG_PREFIX="HIDDEN_PREFIX", PAPERLOG_HTTP_PORT="hidden-port"
    )
    with pytest.raises(SystemExit):
        load(Settings)
    assert "hidden" not in capsys.readouterr().err.lower()


def test_the_settings_themselves_show_no_secret(environment):
    environment(KAFKA_SASL_PASSWORD="hidden-word", API_KEY="hidden-key")
    settings = load(Settings)
    assert "hidden" not in repr(settings) + str(settings) + str(settings.model_dump())
    assert settings.api_key.get_secret_value() == "hidden-key"


def test_with_sasl_and_tls_the_clients_are_told_so(environment):
    environment(
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="SCRAM-SHA-512",
        KAFKA_SASL_USERNAME="user",
        KAFKA_SASL_PASSWORD="hidden-word",
    )
    options = connection(load(Settings))
    assert options["security_protocol"] == "SASL_SSL"
    assert (options["sasl_mechanism"], options["sasl_plain_username"]) == ("SCRAM-SHA-512", "user")
    assert options["sasl_plain_password"] == "hidden-word"
    assert options["ssl_context"].check_hostname


# --- secrets in files


def test_every_secret_may_stand_in_a_file_and_the_end_of_its_line_is_not_part_of_it(environment, tmp_path):
    files = {name: tmp_path / name for name in ("KAFKA_SASL_PASSWORD", "KAFKA_SSL_KEY_PASSWORD", "API_KEY")}
    for name, path in files.items():
        path.write_text(f" of {name}\r\n")
    environment(**{f"{name}_FILE": str(path) for name, path in files.items()})
    settings = load(Settings)
    assert settings.kafka_sasl_password.get_secret_value() == " of KAFKA_SASL_PASSWORD"
    assert settings.kafka_ssl_key_password.get_secret_value() == " of KAFKA_SSL_KEY_PASSWORD"
    assert settings.api_key.get_secret_value() == " of API_KEY"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"x" * 65_537, "more than 65536"), (b"\xff", "UTF-8"), (None, "cannot be read")],
)  # fmt: skip
def test_a_file_without_a_usable_secret_is_named_once_and_not_shown(
    environment, capsys, tmp_path, content, said
):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    environment(
        KAFKA_SECURITY_PROTOCOL="SASL_SSL", KAFKA_SASL_USERNAME="user", KAFKA_SASL_PASSWORD_FILE=str(path)
    )
    with pytest.raises(SystemExit) as caught:
        load(Settings)
    assert caught.value.code == 2
    head, line = capsys.readouterr().err.splitlines()
    assert head == "1 wrong setting(s):"
    assert line.startswith(f"  KAFKA_SASL_PASSWORD_FILE: {path}")
    assert said in line


def test_a_secret_given_twice_is_refused(environment, capsys, tmp_path):
    path = tmp_path / "secret"
    path.write_text("hidden-word")
    environment(API_KEY="hidden-key", API_KEY_FILE=str(path), PAPERLOG_HTTP_PORT="no-port")
    assert sorted(wrong(capsys)) == ["API_KEY_FILE", "PAPERLOG_HTTP_PORT"]


# --- certificates


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates") / "made")


def refused(environment, capsys, **given: object) -> str:
    environment(KAFKA_SECURITY_PROTOCOL="SSL", **{name: str(value) for name, value in given.items()})
    with pytest.raises(SystemExit):
        load(Settings)
    head, line = capsys.readouterr().err.splitlines()
    assert head == "1 wrong setting(s):"
    assert "hidden" not in line
    return line.strip()


def test_our_certificate_is_taken_with_its_key_in_one_file_or_two_encrypted_or_not(
    environment, made, tmp_path
):
    plain, locked = made.issue("plain"), made.issue("locked", password=KEY_PASSWORD)
    text = plain.read_text()
    at = text.index("-----BEGIN PRIVATE KEY")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_text(text[:at])
    key.write_text(text[at:])
    for given in (
        {"KAFKA_SSL_KEYSTORE_LOCATION": plain},
        {"KAFKA_SSL_KEYSTORE_LOCATION": certificate, "KAFKA_SSL_KEYSTORE_KEY_FILE": key},
        {"KAFKA_SSL_KEYSTORE_LOCATION": locked, "KAFKA_SSL_KEY_PASSWORD": KEY_PASSWORD},
    ):
        names = ("KAFKA_SSL_KEYSTORE_LOCATION", "KAFKA_SSL_KEYSTORE_KEY_FILE", "KAFKA_SSL_KEY_PASSWORD")
        environment(KAFKA_SECURITY_PROTOCOL="SSL", **{name: str(given.get(name, "")) for name in names})
        assert connection(load(Settings))["ssl_context"].check_hostname


def test_a_certificate_that_cannot_be_used_is_said_with_what_to_do(environment, capsys, made, tmp_path):
    plain, locked = made.issue("one"), made.issue("two", password=KEY_PASSWORD)
    store, nothing = "KAFKA_SSL_KEYSTORE_LOCATION", {"KAFKA_SSL_KEY_PASSWORD": ""}
    assert refused(environment, capsys, **{store: locked, **nothing}).endswith(
        "is encrypted: set KAFKA_SSL_KEY_PASSWORD or KAFKA_SSL_KEY_PASSWORD_FILE"
    )
    said = refused(environment, capsys, **{store: locked, "KAFKA_SSL_KEY_PASSWORD": "another-hidden-word"})
    assert said.startswith(f"{store}: KAFKA_SSL_KEY_PASSWORD does not open the private key")
    said = refused(
        environment, capsys, **{store: plain, "KAFKA_SSL_KEYSTORE_KEY_FILE": made.broker, **nothing}
    )
    assert "is not that of the first certificate" in said
    jks = tmp_path / "client.jks"
    jks.write_bytes(bytes.fromhex("feedfeed") + b"\0" * 60)
    for name in (store, "KAFKA_SSL_TRUSTSTORE_LOCATION"):
        said = refused(environment, capsys, **{store: "", "KAFKA_SSL_KEYSTORE_KEY_FILE": "", name: jks})
        assert said.startswith(name)
        assert "keytool" in said


def test_a_process_with_wrong_settings_ends_with_code_2():
    program = "from eventlog.settings import *; load(ServiceSettings)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "3 wrong setting(s)" in done.stderr
    assert done.stdout == ""
