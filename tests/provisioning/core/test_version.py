from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core.version import LONGEST, Version, read, read_whole

# SemVer 2.0.0, section 11.
ORDER = [
    "0.0.0-0", "0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
    "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "2.0.0", "2.1.0", "2.1.1", "10.0.0",
]  # fmt: skip


def versions(*texts: str) -> list[Version]:
    found = [read(text) for text in texts]
    assert None not in found
    return [each for each in found if each is not None]


def test_versions_are_ordered_as_semver_says() -> None:
    found = versions(*ORDER)
    assert all(one.compare(other) < 0 for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("text", "means"),
    [("v1.4.0", "1.4.0"), ("V1.4", "1.4.0"), ("1", "1.0.0"), ("1.4.0-rc.1+build.7", "1.4.0-rc.1+build.7")],
)
def test_what_people_leave_out_is_filled_in(text: str, means: str) -> None:
    assert str(read(text)) == means


def test_build_metadata_does_not_count() -> None:
    one, other = versions("1.0.0+a", "1.0.0+b")
    assert one.compare(other) == 0


@pytest.mark.parametrize("text", ["1.4", "1", "v2"])
def test_a_whole_version_has_three_numbers(text: str) -> None:
    assert read(text) is not None
    assert read_whole(text) is None
    assert read_whole("v1.4.0") is not None


@pytest.mark.parametrize(
    "text", ["", "v", "vv1.0.0", "01.0.0", "1.0.0.0", "1.0.0-", "x", " 1.0.0", "1.0.0\n", "\u0661.0.0", None, 1, 1.4,
             ["1.0.0"], "1." + "9" * LONGEST],
)  # fmt: skip
def test_what_is_no_version(text: object) -> None:
    assert read(text) is None


@given(st.text() | st.from_regex(r"v?[0-9.+a-z-]*", fullmatch=True))
def test_any_text_is_read_or_is_none(text: str) -> None:
    found = read(text)
    assert found is None or found.compare(found) == 0
