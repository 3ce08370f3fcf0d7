"""Which topic filters match a topic, without looking at each: exact filters by name, the others by their levels."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

LONGEST: Final = 1_024
DEEPEST: Final = 16
MULTI: Final = "#"
SINGLE: Final = "+"


def is_served(topic: str) -> bool:
    """A topic or filter has at most 1,024 characters and 16 levels; each level of a filter costs memory."""
    return len(topic) <= LONGEST and topic.count("/") < DEEPEST


def has_wildcard(topic_filter: str) -> bool:
    return MULTI in topic_filter or SINGLE in topic_filter


class _Node:
    __slots__ = ("children", "topic_filter")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.topic_filter: str | None = None


class WildcardTree:
    """Topic filters with wildcards, by their levels (MQTT 3.1.1, 4.7).

    A match costs what the filters cost that agree with the topic so far: their number is capped for each device.
    """

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, topic_filter: str) -> None:
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        node.topic_filter = topic_filter

    def discard(self, topic_filter: str) -> None:
        path: list[tuple[_Node, str]] = []
        node = self._root
        for level in topic_filter.split("/"):
            if level not in node.children:
                return
            path.append((node, level))
            node = node.children[level]
        node.topic_filter = None
        while path and node.topic_filter is None and not node.children:
            node, level = path.pop()
            del node.children[level]

    def match(self, topic: str) -> Iterator[str]:
        """The filters that match `topic`. A leading wildcard does not match a leading `$` (4.7.2)."""
        nodes = [self._root]
        for depth, level in enumerate(topic.split("/")):
            below: list[_Node] = []
            for node in nodes:
                names = (level, SINGLE) if depth or not level.startswith("$") else (level,)
                below += [child for name in names if (child := node.children.get(name))]
                if SINGLE in names:
                    yield from _whole(node)
            nodes = below
            if not nodes:
                return
        for node in nodes:
            if node.topic_filter is not None:
                yield node.topic_filter
            yield from _whole(node)  # `a/#` matches `a` too (4.7.1.2)


def _whole(node: _Node) -> Iterator[str]:
    """The filter that ends with `#` below the node."""
    if (child := node.children.get(MULTI)) and child.topic_filter is not None:
        yield child.topic_filter


class TopicIndex:
    """Topics in order, so that those below a prefix are found without looking at the others."""

    def __init__(self) -> None:
        self._topics: list[str] = []

    def add(self, topic: str) -> None:
        """The caller knows that it is not there yet."""
        insort(self._topics, topic)

    def discard(self, topic: str) -> None:
        at = bisect_left(self._topics, topic)
        if at < len(self._topics) and self._topics[at] == topic:
            del self._topics[at]

    def below(self, topic_filter: str) -> list[str]:
        """All topics that begin as the filter does before its first wildcard: those that may match it."""
        ends = [at for mark in (SINGLE, MULTI) if (at := topic_filter.find(mark)) >= 0]
        prefix = topic_filter[: min(ends)] if ends else topic_filter
        if topic_filter.endswith("/#"):
            prefix = prefix.removesuffix("/")  # `a/#` matches `a`
        start = bisect_left(self._topics, prefix)
        end = start
        while end < len(self._topics) and self._topics[end].startswith(prefix):
            end += 1
        return self._topics[start:end]

    def clear(self) -> None:
        self._topics.clear()
