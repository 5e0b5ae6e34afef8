"""What the graph-writer is told, beyond what every service is told. Refuses nothing that a store would refuse."""

from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from eventlog.settings import ServiceSettings


class StoreKind(StrEnum):
    EDGE = "edge"
    QDRANT = "qdrant"


class Settings(ServiceSettings):
    store: StoreKind = Field(
        StoreKind.EDGE, validation_alias="PAPERLOG_STORE", description="edge (embedded) or qdrant (a server)"
    )
    store_dir: Path | None = Field(
        None,
        validation_alias="PAPERLOG_STORE_DIR",
        description="the folder of the embedded store, kept",
        validate_default=True,
    )
    qdrant_url: str = Field(
        "",
        validation_alias="QDRANT_URL",
        description="address of the Qdrant server",
        pattern="^(https?://.+)?$",
        validate_default=True,
    )
    qdrant_api_key: SecretStr = Field(
        SecretStr(""), validation_alias="QDRANT_API_KEY", description="key of the Qdrant server"
    )

    @field_validator("store_dir")
    @classmethod
    def _edge_has_a_folder(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("store") is StoreKind.EDGE and value is None:
            raise ValueError("PAPERLOG_STORE=edge needs it")
        return value

    @field_validator("qdrant_url")
    @classmethod
    def _qdrant_has_an_address(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("store") is StoreKind.QDRANT and not value:
            raise ValueError("PAPERLOG_STORE=qdrant needs it")
        return value
