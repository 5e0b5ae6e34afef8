"""What an embedder is told at start. Keys are secrets: they are never printed, logged or put into an event."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, model_validator

from eventlog.settings import ServiceSettings
from eventlog.spaces import Space, parse_space


def _checked(name: str) -> str:
    parse_space(name)
    return name


class EmbedderSettings(ServiceSettings):
    embedding: Annotated[str, AfterValidator(_checked)] = Field(
        "local", validation_alias="PAPERLOG_EMBEDDING", description="the model: provider/model[@dims]"
    )
    openai_api_key: SecretStr = Field(
        SecretStr(""), validation_alias="OPENAI_API_KEY", description="key for openai/…"
    )
    openai_base_url: str = Field(
        "",
        validation_alias="OPENAI_BASE_URL",
        pattern="^(https?://.+)?$",
        description="an OpenAI-compatible server in place of OpenAI",
    )
    co_api_key: SecretStr = Field(
        SecretStr(""), validation_alias="CO_API_KEY", description="key for cohere/…"
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

    @model_validator(mode="after")
    def _has_a_key(self) -> "EmbedderSettings":
        needed = {
            "openai": ("OPENAI_API_KEY", self.openai_api_key),
            "cohere": ("CO_API_KEY", self.co_api_key),
        }
        name, key = needed.get(self.space.provider, ("", SecretStr("-")))
        if not key.get_secret_value():
            raise ValueError(f"{self.embedding} needs {name}")
        return self
