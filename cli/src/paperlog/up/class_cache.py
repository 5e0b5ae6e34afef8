"""Where the broker's classes are kept loaded and linked, so that it starts in less than half the time (JEP 483, 514).

Java itself checks the file against its own build and the jars, and starts without it when in doubt; so nothing
depends on the file but time.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path


def class_cache(jars: Sequence[Path], java: Path) -> Path:
    """Beside the jars, for these jars and this Java, whether it was made or not.

    Java compares the jars' sizes and times, so the name follows from them: what it would refuse has another name.
    """
    said = [(java.parents[1] / "release").read_text(encoding="utf-8")]
    said += [f"{jar.name} {jar.stat().st_size} {jar.stat().st_mtime_ns}" for jar in jars]
    digest = hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]
    return jars[0].parent / f"classes-{digest}.aot"
