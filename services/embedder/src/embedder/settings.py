"""What an embedder is told at start. Keys are secrets: they are never printed, logged or put into an event."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from eventlog.settings import ServiceSettings
from eventlog.spaces import Space, parse_space


def _checked(name: str) -> str:
    parse_space(name)
    return name


def _address(url: str) -> str:
    """Raises ValueError where there is no host, or where the port is none."""
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0):
        raise ValueError("is no http address")
    if any(one.isspace() for one in url):
        raise ValueError("holds white space")
    return url


def _key(key: SecretStr) -> SecretStr:
    """What no header can carry would fail at the first request, and be told with its error."""
    plain = key.get_secret_value()
    if not plain.isascii() or not plain.isprintable() or " " in plain:
        raise ValueError("holds what is no printable ASCII character")
    return key


Address = Annotated[str, AfterValidator(_address)]
Key = Annotated[SecretStr, AfterValidator(_key)]


class EmbedderSettings(ServiceSettings):
    embedding: Annotated[str, AfterValidator(_checked)] = Field(
        "local", validation_alias="PAPERLOG_EMBEDDING", description="the model: provider/model[@dims]"
    )
    openai_base_url: Address = Field(
        "",
        validation_alias="OPENAI_BASE_URL",
        description="an OpenAI-compatible server in place of OpenAI",
    )
    openai_api_key: Key = Field(
        SecretStr(""),
        validation_alias="OPENAI_API_KEY",
        description="key for openai/…",
        validate_default=True,
    )
    co_api_key: Key = Field(
        SecretStr(""),
        validation_alias="CO_API_KEY",
        description="key for cohere/…",
        validate_default=True,
    )
    co_api_url: Address = Field(
        "", validation_alias="CO_API_URL", description="another address of Cohere's API"
    )
    requests_max: int = Field(
        96,
        ge=1,
        le=1000,
        validation_alias="PAPERLOG_REQUESTS_MAX",
        description="batches of five texts asked for at once",
    )
    request_s_max: float = Field(
        60.0,
        gt=0,
        le=600,
        validation_alias="PAPERLOG_REQUEST_S_MAX",
        description="seconds until a request is given up",
    )

    @property
    def space(self) -> Space:
        return parse_space(self.embedding)

    @field_validator("openai_api_key")
    @classmethod
    def _openai_has_a_key(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        """A server of one's own may need none."""
        is_asked = _provider(info) == "openai" and not info.data.get("openai_base_url")
        if is_asked and not value.get_secret_value():
            raise ValueError(f"{info.data['embedding']} needs OPENAI_API_KEY")
        return value

    @field_validator("co_api_key")
    @classmethod
    def _cohere_has_a_key(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if _provider(info) == "cohere" and not value.get_secret_value():
            raise ValueError(f"{info.data['embedding']} needs CO_API_KEY")
        return value


def _provider(info: ValidationInfo) -> str:
    """Empty where the model itself is wrong, which is said of the model."""
    name = info.data.get("embedding")
    return parse_space(name).provider if name else ""
