"""Log lines: a short event name and `key=value` pairs on stderr, one line each, a traceback too.

Values are quoted where they hold spaces or control characters, and cut; secrets and document text never get here
because nobody passes them. What a client library repeats while a broker is away is said once in a while.
"""

import json
import logging
import sys
from datetime import UTC, datetime

VALUE_LENGTH_MAX = 300
MESSAGE_LENGTH_MAX = 1000
TRACEBACK_LENGTH_MAX = 6000
REPEAT_AFTER_S = 30.0

_VENDORS = ("aiokafka", "httpx", "httpx2", "openai", "cohere", "faust", "mode", "uvicorn.access")
_TEMPLATES_MAX = 256


def _value(value: object) -> str:
    text = str(value)
    if len(text) > VALUE_LENGTH_MAX:
        text = text[:VALUE_LENGTH_MAX] + "…"
    plain = text and all(c.isprintable() and c not in ' "=' for c in text)
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    # JSON leaves some characters that end a line or steer a terminal.
    return _printable(json.dumps(text, ensure_ascii=False))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = (
            datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
        fields: dict[str, object] = getattr(record, "fields", {})
        text = str(record.msg) if fields else record.getMessage()
        text = _printable(text.replace("\n", " ")[:MESSAGE_LENGTH_MAX])
        line = f"{at} {record.levelname.lower()} {record.name} {text}"
        for key, value in fields.items():
            line += f" {key}={_value(value)}"
        if record.exc_info:
            line += " traceback=" + _quoted(self.formatException(record.exc_info)[-TRACEBACK_LENGTH_MAX:])
        return line


class _Sparing(logging.Filter):
    """Passes what a vendor's library says, but each kind of message only once in `REPEAT_AFTER_S`."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_VENDORS):
            return True
        kind = (record.name, str(record.msg))
        if record.created - self._passed_at.get(kind, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        if len(self._passed_at) >= _TEMPLATES_MAX:
            self._passed_at.clear()
        self._passed_at[kind] = record.created
        return True


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

    def exception(self, event: str, raised: BaseException | None = None, /, **fields: object) -> None:
        """With the traceback of what was raised, or of the exception being handled."""
        self._logger.error(event, exc_info=raised or True, extra={"fields": fields})


def configure(level: int = logging.INFO) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    handler.addFilter(_Sparing())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in _VENDORS:
        logging.getLogger(noisy).setLevel(logging.WARNING)
