"""What every example becomes on the wire, byte for byte: `python -m tests.schemas.golden` writes golden.json anew.

It changes only with a decision: other bytes, keys or ids make strangers of records that were written before.
"""

import json
from pathlib import Path

from tests.schemas.examples import examples

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import seal
from eventlog.events import Message

PATH = Path(__file__).parent / "golden.json"


def golden(schemas: Schemas, message: Message) -> dict[str, object]:
    new = seal(schemas, message, topic="t", source="urn:paperlog:test", causation_id="cause")
    return {
        "schema_id": schemas.newest(type(message).__name__).id,
        "value": (new.value or b"").hex(),
        "key": (new.key or b"").decode(),
        "headers": {name: value.decode() for name, value in new.headers},
    }


def all_golden() -> dict[str, dict[str, object]]:
    """Under its name what is written today; under name and version what was written before, which stays as it is."""
    schemas = Schemas(schemas_dir())
    kept = json.loads(PATH.read_text(encoding="utf-8"))
    older = {name: one for name, one in kept.items() if ".v" in name}
    return {type(one).__name__: golden(schemas, one) for one in examples()} | older


if __name__ == "__main__":
    PATH.write_text(json.dumps(all_golden(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
