"""docker-compose.yml as Compose reads it where no variable is set."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


def services() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return dict(_interpolated(yaml.safe_load(text))["services"])


def _interpolated(value: Any) -> Any:
    """`${NAME:-default}` is its default, after the file is parsed: an empty one is an empty text."""
    if isinstance(value, dict):
        return {key: _interpolated(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_interpolated(one) for one in value]
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) if isinstance(value, str) else value
