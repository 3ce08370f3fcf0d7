"""What the settings may hold. How they are read, and told when they are wrong: test_settings.py."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from provisioning import sections
from provisioning.sections import Section
from provisioning.settings import Settings, load
from tests.conftest import ROOT

CONFIG = ROOT / "config" / "gatehouse.toml"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: no config/gatehouse.toml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sections_do_not_change_and_take_nothing_that_they_do_not_know() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(sections.Http(), "port", 1)  # noqa: B010 - the type checker knows better too
    for section in Section.__subclasses__():
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            section.model_validate({"nothing_that_there_is": 1})


def refused(section: type[Section], **values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        section.model_validate(values)
    return str(caught.value.errors()[0]["msg"]).removeprefix("Value error, ")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("api", "iot.example.org", "must be scheme://host.*"),
        ("api", "https://h/" + "x" * 120, "must have at most 120 characters.*"),
        ("api", "https://h/?a=b", r"must be scheme://host\[:port\]\[/prefix\].*"),
        ("mqtt_host", "192.0.2.1", "must be a DNS name, not an address.*"),
        ("mqtt_host", "[::1]", "must be a DNS name, not an address.*"),
        ("account", "a/#", "String should match pattern.*"),
        ("user_token", "short", "Value should have at least 16 items.*"),
    ],
)
def test_what_agents_are_told_must_be_what_they_take(name: str, value: str, text: str) -> None:
    assert re.fullmatch(text, refused(sections.Ioto, **{name: value}))


def test_the_api_that_agents_are_told_has_no_slash_at_its_end() -> None:
    assert sections.Ioto(api="https://iot.example.org/prefix/").api == "https://iot.example.org/prefix"


@pytest.mark.parametrize(
    ("section", "values", "text"),
    [
        (sections.Aws, {"access_key_id": "AKIA"}, "access_key_id and secret_access_key belong together"),
        (sections.Credentials, {"provider": "static"}, "provider static needs access_key_id and secret_access_key"),
        (sections.Credentials, {"duration": 1_800}, ".*greater than or equal to 2100"),
        (sections.Credentials, {"policy": "{device}"}, "must be JSON: .*"),
        (sections.Credentials, {"policy": '{"Statement": []}'}, r"must be an IAM policy.* names its \{device\}"),
        (sections.Credentials, {"policy": '["{device}"]'}, "must be an IAM policy, a JSON object.*"),
        (sections.Credentials, {"policy": '{"a": "{device}' + "x" * 1_800 + '"}'}, "must have at most 1800 .*"),
        (sections.Images, {"store": "s3"}, "store s3 needs a bucket"),
        (sections.Images, {"prefix": "a b"}, "String should match pattern.*"),
    ],
)
def test_what_cannot_work_is_refused(section: type[Section], values: dict[str, object], text: str) -> None:
    assert re.fullmatch(text, refused(section, **values))


def _all(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from _all(info.annotation, f"{name}.")
        else:
            assert info.default is not PydanticUndefined, f"{prefix}{name} has no default"
            yield f"{prefix}{name}", info.default


def _documented() -> dict[str, tuple[object, bool]]:
    """Setting -> its value in the file, and whether words stand above it."""
    found: dict[str, tuple[object, bool]] = {}
    section, words = "", False
    for line in CONFIG.read_text("utf-8").splitlines():
        if heading := re.fullmatch(r"\[([a-z0-9_]+)\]", line):
            section, words = f"{heading[1]}.", False
        elif setting := re.fullmatch(r"(?:# )?([a-z0-9_]+) = (.+)", line):
            found[f"{section}{setting[1]}"] = tomllib.loads(f"it = {setting[2]}")["it"], words
        elif line.startswith("# "):
            words = True
        elif not line.strip():
            words = False
    return found


def test_the_configuration_file_lists_every_setting_with_its_default() -> None:
    documented = _documented()
    expected = dict(_all(Settings))
    assert documented.keys() == expected.keys()
    for name, default in expected.items():
        value, explained = documented[name]
        if isinstance(default, tuple):
            default = list(default)  # noqa: PLW2901 - as TOML has it
        if default is None:
            assert isinstance(value, str), f"{name} is unset by default: the file shows an example or nothing"
        else:
            assert value == (str(default) if isinstance(default, Path) else default), name
        assert explained, f"nothing stands above {name}"


def test_the_configuration_file_as_it_is_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load()
    monkeypatch.setenv("GATEHOUSE_CONFIG", str(CONFIG))
    assert load() == before
