"""Log lines: a short event name and `key=value` pairs on stderr, one line each.

Values are quoted where they hold spaces or control characters, and cut; secrets and document text never get here
because nobody passes them.
"""

import json
import logging
import sys
from datetime import UTC, datetime

VALUE_LENGTH_MAX = 300


def _value(value: object) -> str:
    text = str(value)
    if len(text) > VALUE_LENGTH_MAX:
        text = text[:VALUE_LENGTH_MAX] + "…"
    plain = text and all(c.isprintable() and c not in ' "=' for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = (
            datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
        fields: dict[str, object] = getattr(record, "fields", {})
        text = record.getMessage() if not fields else str(record.msg)
        line = " ".join([at, record.levelname.lower(), record.name, text.replace("\n", " ")])
        for key, value in fields.items():
            line += f" {key}={_value(value)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class Logger:
    """`log.info("chunk.embedded", chunk_id=…)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: object) -> None:
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: object) -> None:
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: object) -> None:
        self._logger.error(event, extra={"fields": fields})

    def exception(self, event: str, **fields: object) -> None:
        """With the traceback of the exception being handled."""
        self._logger.exception(event, extra={"fields": fields})  # noqa: LOG004 - its callers are handlers


def configure(level: int = logging.INFO) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("aiokafka", "httpx", "httpx2", "openai", "cohere", "faust", "mode", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
