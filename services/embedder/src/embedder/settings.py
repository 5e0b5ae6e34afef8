"""What an embedder is told at start. Keys are secrets: they are never printed, logged or put into an event."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from eventlog.settings import ServiceSettings
from eventlog.spaces import Space, parse_space


def _checked(name: str) -> str:
    parse_space(name)
    return name


class EmbedderSettings(ServiceSettings):
    embedding: Annotated[str, AfterValidator(_checked)] = Field(
        "local", validation_alias="PAPERLOG_EMBEDDING", description="the model: provider/model[@dims]"
    )
    openai_base_url: str = Field(
        "",
        validation_alias="OPENAI_BASE_URL",
        pattern="^(https?://.+)?$",
        description="an OpenAI-compatible server in place of OpenAI",
    )
    openai_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="OPENAI_API_KEY",
        description="key for openai/…",
        validate_default=True,
    )
    co_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="CO_API_KEY",
        description="key for cohere/…",
        validate_default=True,
    )
    co_api_url: str = Field(
        "",
        validation_alias="CO_API_URL",
        pattern="^(https?://.+)?$",
        description="another address of Cohere's API",
    )
    requests_max: int = Field(
        48, ge=1, le=1000, validation_alias="PAPERLOG_REQUESTS_MAX", description="requests in flight"
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
