"""Versions as devices and people write them, ordered as SemVer 2.0.0 says (section 11).

A leading `v` is taken away, and a missing minor or patch number is 0: `v1.4` is 1.4.0. Build metadata does not count.
"""

from functools import lru_cache
from typing import Final

from semver import Version

LONGEST: Final = 128

__all__ = ["LONGEST", "Version", "read", "read_whole"]


def read(text: object) -> Version | None:
    """The version that `text` is; None: it is none."""
    return _read(text, optional=True) if isinstance(text, str) else None


def read_whole(text: object) -> Version | None:
    """As `read`, of a version with all three numbers: what else has one or two dots is no version to be sure."""
    return _read(text, optional=False) if isinstance(text, str) else None


@lru_cache(maxsize=4_096)
def _read(text: str, *, optional: bool) -> Version | None:
    if not 0 < len(text) <= LONGEST or not text.isascii():
        return None
    try:
        return Version.parse(text.removeprefix("v").removeprefix("V"), optional_minor_and_patch=optional)
    except ValueError:
        return None
