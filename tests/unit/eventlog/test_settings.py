"""Settings come from the environment; what is wrong is named all at once, and no secret is shown."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field, SecretStr

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


def test_sasl_needs_a_user(environment, capsys):
    environment(KAFKA_SECURITY_PROTOCOL="SASL_SSL", KAFKA_SASL_PASSWORD="hidden-word")
    assert wrong(capsys) == ["KAFKA_SASL_USERNAME"]


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


def test_a_process_with_wrong_settings_ends_with_code_2():
    program = "from eventlog.settings import *; load(ServiceSettings)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "3 wrong setting(s)" in done.stderr
    assert done.stdout == ""
