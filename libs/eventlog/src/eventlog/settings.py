"""What every service is told about the log and itself, from environment variables, read once at start.

A service's own class extends `ServiceSettings` and is loaded by `load`, which names every wrong setting at once.
"""

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
        SecretStr(""), validation_alias="KAFKA_SASL_PASSWORD", description="SASL password"
    )
    kafka_ssl_cafile: FilePath | None = Field(
        None, validation_alias="KAFKA_SSL_CAFILE", description="certificates of the brokers' authority"
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


S = TypeVar("S", bound=ServiceSettings)


def _name(cls: type[ServiceSettings], place: tuple[int | str, ...]) -> str:
    """The environment variable that an error is about, also where pydantic names the field instead."""
    if not place:
        return "together"
    spec = cls.model_fields.get(str(place[0]))
    first = spec.validation_alias if spec is not None and spec.validation_alias else place[0]
    return ".".join(str(part) for part in (first, *place[1:]))


def load(cls: type[S]) -> S:
    """The settings, or exit code 2 with one line for every wrong one. `--check` prints them and exits 0."""
    try:
        given: dict[str, Any] = {}  # all of it comes from the environment
        settings = cls(**given)
    except ValidationError as error:
        print(f"{len(error.errors())} wrong setting(s):", file=sys.stderr)  # noqa: T201 - before logs exist
        for one in error.errors(include_input=False, include_url=False):
            print(f"  {_name(cls, one['loc'])}: {one['msg']}", file=sys.stderr)  # noqa: T201 - before logs exist
        raise SystemExit(2) from None
    if "--check" in sys.argv[1:]:
        for name, spec in cls.model_fields.items():
            print(f"{spec.validation_alias or name} = {getattr(settings, name)}  # {spec.description}")  # noqa: T201 - asked for
        raise SystemExit(0)
    return settings
