"""Embedding spaces: `provider/model@dims:revision`, e.g. `openai/text-embedding-3-small@1536:1`.

A space says which vectors may be compared. Its revision counts changes of the model's weights or of the text
template on either side; a vector of another revision is of another space (P7).
"""

import re
from dataclasses import dataclass

PROVIDERS = ("local", "openai", "cohere")

_KNOWN_DIMS = {
    "local/wordllama": (256, 64, 128, 512, 1024),
    "openai/text-embedding-3-small": (1536,),
    "openai/text-embedding-3-large": (3072,),
    "cohere/embed-v4.0": (1536, 256, 512, 1024),
}
"""The first number is the default; sources: the vendors' model pages and wordllama's configuration."""

_SPACE = re.compile(
    r"(?P<provider>[a-z]+)/(?P<model>[\w.:/+-]{1,100}?)(?:@(?P<dims>\d{1,5})(?::(?P<revision>\d{1,4}))?)?"
)
_NOT_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    provider: str
    model: str
    dims: int
    revision: int = 1

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}@{self.dims}:{self.revision}"

    @property
    def slug(self) -> str:
        """For names of groups, collections and folders: `openai-text-embedding-3-small-1536-1`."""
        return _NOT_SLUG.sub("-", str(self).lower()).strip("-")


def parse_space(name: str) -> Space:
    """The space of a model name (`local`, `provider/model[@dims]`) or of a space id.

    Raises ValueError that says what is wrong. A model that we do not know needs its `@dims`.
    """
    if name == "local":
        name = "local/wordllama"
    match = _SPACE.fullmatch(name)
    if match is None or match["provider"] not in PROVIDERS:
        raise ValueError(
            f"{name[:120]!r} is not a model: write provider/model[@dims] with provider one of {', '.join(PROVIDERS)}"
        )
    known = _KNOWN_DIMS.get(f"{match['provider']}/{match['model']}", ())
    if match["dims"] is None and not known:
        raise ValueError(f"how many dimensions has {name!r}? Write {name}@<dims>")
    dims = int(match["dims"] or known[0])
    if not 1 <= dims <= 8192:
        raise ValueError(f"{name!r} has {dims} dimensions; 1 to 8192 are possible")
    return Space(
        provider=match["provider"], model=match["model"], dims=dims, revision=int(match["revision"] or 1)
    )


DEFAULT_SPACE = parse_space("local")
