"""A project's graph on its way to stdout: read piece by piece, written piece by piece, as JSON or GraphML.

Memory holds one node or one edge, however large the graph. GraphML declares its keys before the first node, so the
attributes are a fixed list; what a node or an edge has besides is in the JSON.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO
from xml.sax.saxutils import escape, quoteattr

from paperlog.service import Json

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""XML 1.0 has no way to write these, not even escaped. C1 controls are allowed there and no use to anyone."""
_C1 = re.compile("[\x7f-\x9f]")
_SPACE = re.compile(r"[\s,]*")


class NotAGraph(Exception):  # noqa: N818 - names what it is to the reader
    """The answer is not `{"nodes": [...], "edges": [...]}`, or it ended in the middle."""


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    type: str
    is_of_edge: bool = False

    @property
    def id(self) -> str:
        return f"{'e' if self.is_of_edge else 'n'}_{self.name}"


NODE_KEYS = tuple(
    Key(name, type_)
    for name, type_ in (
        ("label", "string"),
        ("type", "string"),
        ("year", "int"),
        ("date", "string"),
        ("doi", "string"),
        ("url", "string"),
        ("venue", "string"),
        ("language", "string"),
        ("creators", "string"),
        ("degree", "int"),
    )
)
EDGE_KEYS = tuple(
    Key(name, type_, is_of_edge=True)
    for name, type_ in (("type", "string"), ("weight", "double"), ("position", "int"), ("label", "string"))
)


def items(pieces: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """`(key, value)` of each value of a JSON object, and of each element of those values that are arrays."""
    return _Items(pieces).run()


class _Items:
    """Holds what has come and was not used up; a value is read when all of it is there."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._text = ""
        self._decoder = json.JSONDecoder()

    def run(self) -> Iterator[tuple[str, Any]]:
        self._expect("{")
        while self._peek() != "}":
            key = self._value()
            self._expect(":")
            if self._peek() != "[":
                yield key, self._value()
                continue
            self._expect("[")
            while self._peek() != "]":
                yield key, self._value()
            self._expect("]")

    def _more(self) -> None:
        for piece in self._pieces:
            if piece:
                self._text += piece
                return
        raise NotAGraph("the answer ended in the middle")

    def _peek(self) -> str:
        while True:
            match = _SPACE.match(self._text)
            assert match is not None
            self._text = self._text[match.end() :]
            if self._text:
                return self._text[0]
            self._more()

    def _expect(self, letter: str) -> None:
        if self._peek() != letter:
            raise NotAGraph(f"{letter!r} expected, found {self._text[:40]!r}")
        self._text = self._text[1:]

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text)
            except json.JSONDecodeError:
                self._more()
                continue
            if end == len(self._text) and not isinstance(value, dict | list | str):
                self._more()  # A number may go on in the next piece.
                continue
            self._text = self._text[end:]
            return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    node_count: int
    edge_count: int
    is_cut: bool
    """Whether the service left something out at its limit."""


def write_graphml(pieces: Iterable[str], out: TextIO, *, project: str) -> Written:
    """In the order of the answer: nodes, then edges."""
    out.write(
        '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
    )
    for key in (*NODE_KEYS, *EDGE_KEYS):
        what = "edge" if key.is_of_edge else "node"
        out.write(f'  <key id="{key.id}" for="{what}" attr.name="{key.name}" attr.type="{key.type}"/>\n')
    out.write(f'  <graph id={_attribute(project)} edgedefault="directed">\n')
    node_count = edge_count = 0
    is_cut = False
    for name, value in items(pieces):
        if name == "nodes":
            out.write(f"    <node id={_attribute(value['id'])}>{_data(NODE_KEYS, value)}</node>\n")
            node_count += 1
        elif name == "edges":
            ends = f"source={_attribute(value['source'])} target={_attribute(value['target'])}"
            out.write(f"    <edge {ends}>{_data(EDGE_KEYS, value)}</edge>\n")
            edge_count += 1
        elif name == "truncated":
            is_cut = bool(value)
    out.write("  </graph>\n</graphml>\n")
    return Written(node_count=node_count, edge_count=edge_count, is_cut=is_cut)


def _data(keys: Iterable[Key], value: Json) -> str:
    return "".join(
        f'<data key="{key.id}">{escape(_xml_text(text))}</data>'
        for key in keys
        if (text := _text_of(key, value)) is not None
    )


def _text_of(key: Key, value: Json) -> str | None:
    found = value.get(key.name)
    if found is None or found in ("", []):
        return None
    if key.type == "int":
        return str(found) if isinstance(found, int) and not isinstance(found, bool) else None
    if key.type == "double":
        return repr(float(found)) if isinstance(found, int | float) else None
    return "; ".join(map(str, found)) if isinstance(found, list) else str(found)


def _xml_text(text: str) -> str:
    return _C1.sub("", _NOT_XML.sub("", text))


def _attribute(value: object) -> str:
    return quoteattr(_xml_text(str(value)))
