import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import packets
from broker.topics import TopicIndex, WildcardTree, has_wildcard, is_served

LEVELS = st.sampled_from(["a", "b", "ab", "", "$s", "é"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.one_of(LEVELS, st.just("+")), max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@given(st.sets(FILTERS, max_size=12), st.lists(TOPICS, max_size=5))
def test_the_tree_matches_as_the_standard_does(filters: set[str], topics: list[str]) -> None:
    tree = WildcardTree()
    for topic_filter in filters:
        tree.add(topic_filter)
    for topic in topics:
        found = list(tree.match(topic))
        assert len(found) == len(set(found))
        assert set(found) == {one for one in filters if packets.matches(one, topic)}, topic


@given(st.lists(st.tuples(st.booleans(), FILTERS), max_size=30), TOPICS)
def test_what_was_discarded_leaves_nothing(steps: list[tuple[bool, str]], topic: str) -> None:
    tree, kept = WildcardTree(), set()
    for adds, topic_filter in steps:
        if adds:
            tree.add(topic_filter)
            kept.add(topic_filter)
        else:
            tree.discard(topic_filter)
            kept.discard(topic_filter)
    assert set(tree.match(topic)) == {one for one in kept if packets.matches(one, topic)}
    for topic_filter in kept:
        tree.discard(topic_filter)
    assert not tree._root.children


@given(st.sets(TOPICS, max_size=12), FILTERS)
def test_the_index_leaves_nothing_out(topics: set[str], topic_filter: str) -> None:
    index = TopicIndex()
    for topic in topics:
        index.add(topic)
    found = index.below(topic_filter)
    assert len(found) == len(set(found))
    assert set(found) <= topics
    assert {one for one in topics if packets.matches(topic_filter, one)} <= set(found)
    for topic in topics:
        index.discard(topic)
        index.discard(topic)
    assert index.below("#") == []


def test_the_index_looks_at_no_others() -> None:
    index = TopicIndex()
    for number in range(1_000):
        index.add(f"/sys/pk1/dk{number:03}/a")
    assert index.below("/sys/pk1/dk007/#") == ["/sys/pk1/dk007/a"]
    assert index.below("/sys/pk1/dk007/+") == ["/sys/pk1/dk007/a"]
    index.clear()
    assert index.below("#") == []


@pytest.mark.parametrize(
    ("topic", "served"),
    [("a", True), ("x" * 1_024, True), ("x" * 1_025, False), ("/" * 15, True), ("/" * 16, False)],
)
def test_is_served(topic: str, served: bool) -> None:
    assert is_served(topic) is served


@pytest.mark.parametrize(("topic_filter", "has"), [("a/b", False), ("a/+", True), ("#", True)])
def test_has_wildcard(topic_filter: str, has: bool) -> None:
    assert has_wildcard(topic_filter) is has
