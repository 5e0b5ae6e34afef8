"""A space's name says which vectors may be compared."""

import pytest

from eventlog.spaces import DEFAULT_SPACE, Space, parse_space


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("local", "local/wordllama@256:1"),
        ("local/wordllama@64", "local/wordllama@64:1"),
        ("openai/text-embedding-3-small", "openai/text-embedding-3-small@1536:1"),
        ("openai/text-embedding-3-large@3072:2", "openai/text-embedding-3-large@3072:2"),
        ("cohere/embed-v4.0", "cohere/embed-v4.0@1536:1"),
        ("openai/org/model.v2:latest@768", "openai/org/model.v2:latest@768:1"),
    ],
)
def test_a_model_name_becomes_a_space_and_a_space_stays_itself(name: str, space: str):
    assert str(parse_space(name)) == space
    assert parse_space(space) == parse_space(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is not a model"),
        ("wordllama", "is not a model"),
        ("acme/model@3", "one of local, openai, cohere"),
        ("openai/", "is not a model"),
        ("openai/a b@3", "is not a model"),
        ("openai/unknown", "how many dimensions"),
        ("openai/unknown@0", "has 0 dimensions"),
        ("openai/unknown@9000", "has 9000 dimensions"),
        ("openai/unknown@3:", "is not a model"),
        ("openai/x\n@3", "is not a model"),
        ("openai/" + "x" * 5000 + "@3", "is not a model"),
    ],
)
def test_what_is_no_model_is_refused_with_a_reason(name: str, says: str):
    with pytest.raises(ValueError, match=says) as caught:
        parse_space(name)
    assert len(str(caught.value)) < 400


def test_spaces_differ_in_every_part():
    space = parse_space("openai/text-embedding-3-small")
    others = {
        parse_space("openai/text-embedding-3-small@1536:2"),
        parse_space("openai/text-embedding-3-small@512:1"),
        parse_space("openai/text-embedding-3-large@1536:1"),
        parse_space("cohere/text-embedding-3-small@1536:1"),
    }
    assert len({space, *others}) == 5
    assert len({one.slug for one in (space, *others)}) == 5


def test_a_slug_is_fit_for_names_of_groups_and_folders():
    assert parse_space("cohere/embed-v4.0").slug == "cohere-embed-v4-0-1536-1"
    assert Space(provider="local", model="wordllama", dims=256, revision=1) == DEFAULT_SPACE
