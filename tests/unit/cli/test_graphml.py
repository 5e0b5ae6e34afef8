"""The graph is read and written piece by piece, and what is written opens elsewhere."""

import io
import json

import networkx as nx
import pytest

from paperlog.graphml import NotAGraph, Written, items, write_graphml

GRAPH = {
    "project": {"name": "a"},
    "nodes": [
        {
            "id": "1",
            "type": "Paper",
            "label": 'On "soil" & <water>\x00\x0b\ufffe',
            "year": 2020,
            "creators": ["A", "B"],
        },
        {"id": "2", "type": "Author", "label": "수면", "year": None},
    ],
    "edges": [{"source": "1", "target": "2", "type": "HAS_AUTHOR", "weight": 2}],
    "count": 12,
    "truncated": True,
}


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
@pytest.mark.parametrize("indent", [None, 2])
def test_items_do_not_depend_on_how_the_answer_was_cut(size: int, indent: int | None):
    text = json.dumps(GRAPH, ensure_ascii=False, indent=indent)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(items(pieces)) == [
        ("project", {"name": "a"}),
        *(("nodes", each) for each in GRAPH["nodes"]),
        *(("edges", each) for each in GRAPH["edges"]),
        ("count", 12),
        ("truncated", True),
    ]


def test_a_graph_without_anything_is_a_graph():
    assert list(items(['{"nodes": [], "edges": []}'])) == []


@pytest.mark.parametrize("text", ["", "[1]", '{"nodes": [{"id": 1}', '{"nodes": [{"id": 1}]', "<html>"])
def test_half_an_answer_is_not_a_graph(text: str):
    with pytest.raises(NotAGraph):
        list(items([text]))


def test_graphml_opens_in_networkx_whatever_stands_in_a_title():
    out = io.StringIO()
    written = write_graphml([json.dumps(GRAPH)], out, project='a "project" & more')
    assert written == Written(node_count=2, edge_count=1, is_cut=True)
    graph = nx.parse_graphml(out.getvalue())
    assert graph.nodes["1"] == {
        "label": 'On "soil" & <water>',
        "type": "Paper",
        "year": 2020,
        "creators": "A; B",
    }
    assert graph.nodes["2"]["label"] == "수면"
    assert graph.edges["1", "2"] == {"type": "HAS_AUTHOR", "weight": 2.0}
