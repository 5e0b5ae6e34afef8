"""What every service is told about the log and itself, from environment variables, read once at start.

A service's own class extends `ServiceSettings` and is loaded by `load`, which names every wrong setting at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    Field,
    FilePath,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventlog.tls import authorities, own_certificate

SECRET_BYTES_MAX = 64 * 1024
Prefix = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{0,60}$")]


class ServiceSettings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    kafka_bootstrap_servers: str = Field(
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="host:port of brokers, comma separated",
        pattern=r"^[^\s,]+:\d{1,5}(,[^\s,]+:\d{1,5})*$",
    )
    kafka_security_protocol: str = Field(
        "PLAINTEXT",
        validation_alias="KAFKA_SECURITY_PROTOCOL",
        pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
        description="as Kafka's security.protocol",
    )
    kafka_sasl_mechanism: str = Field(
        "PLAIN",
        validation_alias="KAFKA_SASL_MECHANISM",
        pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$",
        description="as Kafka's sasl.mechanism",
    )
    kafka_sasl_username: str = Field(
        "", validation_alias="KAFKA_SASL_USERNAME", description="SASL user", validate_default=True
    )
    kafka_sasl_password: SecretStr = Field(
        SecretStr(""),
        validation_alias="KAFKA_SASL_PASSWORD",
        description="SASL password",
        validate_default=True,
    )
    kafka_ssl_truststore_location: FilePath | None = Field(
        None,
        validation_alias="KAFKA_SSL_TRUSTSTORE_LOCATION",
        description="as Kafka's ssl.truststore.location, in PEM: who signs the brokers' certificates; "
        "none means the authorities of this machine",
    )
    kafka_ssl_key_password: SecretStr = Field(
        SecretStr(""),
        validation_alias="KAFKA_SSL_KEY_PASSWORD",
        description="as Kafka's ssl.key.password: of the private key, where it is encrypted",
    )
    kafka_ssl_keystore_key_file: FilePath | None = Field(
        None,
        validation_alias="KAFKA_SSL_KEYSTORE_KEY_FILE",
        description="file with Kafka's ssl.keystore.key: the private key, where it stands apart",
    )
    kafka_ssl_keystore_location: FilePath | None = Field(
        None,
        validation_alias="KAFKA_SSL_KEYSTORE_LOCATION",
        description="as Kafka's ssl.keystore.location, in PEM: our certificate with its chain and key, for mutual TLS",
        validate_default=True,
    )
    prefix: Prefix = Field(
        "",
        validation_alias="PAPERLOG_PREFIX",
        description="stands before topics, groups and transactional ids",
    )
    instance: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{0,60}$")] = Field(
        "",
        validation_alias="PAPERLOG_INSTANCE",
        description="a name that this process keeps over restarts; with it a restart causes no rebalance",
    )
    http_host: str = Field(
        "127.0.0.1", validation_alias="PAPERLOG_HTTP_HOST", description="address to listen on"
    )
    http_port: int = Field(
        ge=0, le=65535, validation_alias="PAPERLOG_HTTP_PORT", description="port to listen on"
    )
    data_dir: Path = Field(
        validation_alias="PAPERLOG_DATA_DIR", description="this service's own folder for indexes and spools"
    )

    @field_validator("kafka_sasl_username")
    @classmethod
    def _is_given_with_sasl(cls, username: str, info: ValidationInfo) -> str:
        if not username and str(info.data.get("kafka_security_protocol", "")).startswith("SASL"):
            raise ValueError("is needed with SASL")
        return username

    @field_validator("kafka_sasl_password")
    @classmethod
    def _password_is_given_with_sasl(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        is_sasl = str(info.data.get("kafka_security_protocol", "")).startswith("SASL")
        if is_sasl and not password.get_secret_value():
            raise ValueError("is needed with SASL, or KAFKA_SASL_PASSWORD_FILE")
        return password

    @field_validator("kafka_ssl_truststore_location")
    @classmethod
    def _holds_authorities(cls, path: Path | None) -> Path | None:
        authorities(path)
        return path

    @field_validator("kafka_ssl_keystore_location")
    @classmethod
    def _holds_our_certificate(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        key: Path | None = info.data.get("kafka_ssl_keystore_key_file")
        password: SecretStr = info.data.get("kafka_ssl_key_password", SecretStr(""))
        if path is not None:
            own_certificate(authorities(None), path, key=key, password=password)
        elif key is not None:
            raise ValueError("is needed with KAFKA_SSL_KEYSTORE_KEY_FILE: the certificate of that key")
        return path


S = TypeVar("S", bound=ServiceSettings)


def _name(cls: type[ServiceSettings], place: tuple[int | str, ...]) -> str:
    """The environment variable that an error is about, also where pydantic names the field instead."""
    if not place:
        return "together"
    spec = cls.model_fields.get(str(place[0]))
    first = spec.validation_alias if spec is not None and spec.validation_alias else place[0]
    return ".".join(str(part) for part in (first, *place[1:]))


def _secret_of(name: str, path: str) -> str:
    """What the file holds, without the line's end. Raises ValueError that says what is wrong, without the content."""
    if os.environ.get(name):
        raise ValueError(f"is given together with {name}; unset one of them")
    try:
        with Path(path).open("rb") as file:
            content = file.read(SECRET_BYTES_MAX + 1)
        secret = content.decode().rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8") from None
    if not secret or len(content) > SECRET_BYTES_MAX:
        raise ValueError(f"{path} is empty or of more than {SECRET_BYTES_MAX} bytes")
    return secret


def _secrets_of_files(cls: type[ServiceSettings]) -> tuple[dict[str, Any], dict[str, str]]:
    """By its name what `NAME_FILE` holds for a secret NAME; and by name what is wrong with such a file."""
    found: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for spec in cls.model_fields.values():
        name = str(spec.validation_alias)
        path = os.environ.get(f"{name}_FILE")
        if path and spec.annotation is SecretStr:
            try:
                found[name] = _secret_of(name, path)
            except ValueError as error:
                wrong[name] = f"{name}_FILE: {error}"
    return found, wrong


def load(cls: type[S]) -> S:
    """The settings, or exit code 2 with one line for every wrong one. `--check` prints them and exits 0.

    Each secret may stand in a file that NAME_FILE names, as orchestrators hand them out.
    """
    given, unreadable = _secrets_of_files(cls)
    wrong = list(unreadable.values())
    settings: S | None = None
    try:
        settings = cls(**given)  # all else comes from the environment
    except ValidationError as error:
        for one in error.errors(include_input=False, include_url=False):
            name = _name(cls, one["loc"])
            if name not in unreadable:  # what could not be read is not missing, too
                wrong.append(f"{name}: {one['msg'].removeprefix('Value error, ')}")
    if settings is None or wrong:
        print(f"{len(wrong)} wrong setting(s):", file=sys.stderr)  # noqa: T201 - before logs exist
        for line in wrong:
            print(f"  {line}", file=sys.stderr)  # noqa: T201 - before logs exist
        raise SystemExit(2)
    if "--check" in sys.argv[1:]:
        for name, spec in cls.model_fields.items():
            print(f"{spec.validation_alias or name} = {getattr(settings, name)}  # {spec.description}")  # noqa: T201 - asked for
        raise SystemExit(0)
    return settings
