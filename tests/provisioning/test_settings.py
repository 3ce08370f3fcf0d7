import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from provisioning.settings import SettingsError, is_loopback, load

KEY = "00" * 32
HIDDEN = "geheim"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: no config/gatehouse.toml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


Configure = Callable[[str], Path]


@pytest.fixture
def configure(directory: Path) -> Configure:
    def write(text: str, name: str = "config/gatehouse.toml") -> Path:
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def refused(**overrides: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**overrides)
    text = str(caught.value)
    assert "\n" not in text
    assert HIDDEN not in text
    # What is printed with a traceback must not show it either.
    assert caught.value.__cause__ is None or HIDDEN not in str(caught.value.__cause__)
    return text


# --- sources ---


def test_without_any_source_everything_has_a_default_and_stays_on_this_machine() -> None:
    settings = load()
    assert settings.http.port == 8080
    assert settings.mqtt.port == 11883
    assert settings.data_dir == Path("data")
    assert all(map(is_loopback, (settings.http.host, settings.mqtt.host)))


def test_each_source_wins_over_the_one_before(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    configure("[database]\nurl = 'toml'\npool_min = 3\npool_max = 4\n[http]\nport = 1\n")
    assert load().database.url == SecretStr("toml")
    monkeypatch.setenv("GATEHOUSE_DATABASE__URL", "env")
    monkeypatch.setenv("GATEHOUSE_HTTP__PORT", "2")
    settings = load()
    assert (settings.database.url, settings.database.pool_min, settings.http.port) == (SecretStr("env"), 3, 2)
    monkeypatch.delenv("GATEHOUSE_DATABASE__URL")
    (directory / "url").write_text("file\r\n")
    monkeypatch.setenv("GATEHOUSE_DATABASE__URL_FILE", str(directory / "url"))
    settings = load()
    assert (settings.database.url, settings.database.pool_min) == (SecretStr("file"), 3)
    settings = load(database={"url": "argument"}, http={"port": 0})
    assert (settings.database.url, settings.http.port) == (SecretStr("argument"), 0)


def test_a_file_gives_the_master_key_without_its_line_end(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    (directory / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("GATEHOUSE_MASTER_KEY_FILE", str(directory / "key"))
    assert load().master_key == SecretStr(KEY)


def test_another_configuration_file_may_be_named(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure("[http]\nport = 1\n")
    other = configure("[http]\nport = 2\n", "other.toml")  # type: ignore[call-arg]
    monkeypatch.setenv("GATEHOUSE_CONFIG", str(other))
    assert load().http.port == 2
    monkeypatch.setenv("GATEHOUSE_CONFIG", "nowhere.toml")
    assert refused() == "GATEHOUSE_CONFIG: there is no file nowhere.toml"


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GATEHOUSE_HTTP__PORT", "GATEHOUSE_MASTER_KEY", "GATEHOUSE_MASTER_KEY_FILE", "GATEHOUSE_CONFIG"):
        monkeypatch.setenv(name, "")
    assert load() == load()
    assert load().master_key is None


def test_lists_and_sections_may_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_ENOS__ALLOWED_SIGNMETHODS", '["sha256"]')
    monkeypatch.setenv("GATEHOUSE_HTTP", '{"port": 1}')
    assert (load().enos.allowed_signmethods, load().http.port) == (("sha256",), 1)


def test_settings_do_not_change_and_do_not_show_secrets() -> None:
    settings = load(master_key=HIDDEN, database={"url": HIDDEN})
    assert HIDDEN not in repr(settings)
    assert HIDDEN not in str(settings.model_dump())
    with pytest.raises(ValueError, match="frozen"):
        settings.http.port = 1  # type: ignore[misc]


# --- what is wrong, in one line ---


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("GATEHOUSE_HTTP__PROT", "1", "GATEHOUSE_HTTP__PROT is not a setting; config/gatehouse.toml lists them all"),
        ("GATEHOUSE_HTTP__URL_FILE", "x", "GATEHOUSE_HTTP__URL_FILE is not a setting; .*"),
        ("gatehouse_http__port", "1", "gatehouse_http__port is not a setting; .*"),
        ("GATEHOUSE_HTTP__PORT", "x", r"GATEHOUSE_HTTP__PORT: input should be a valid integer.* \(it is 'x'\)"),
        ("GATEHOUSE_HTTP__PORT", "65536", r"GATEHOUSE_HTTP__PORT: .* less than or equal to 65535 \(it is '65536'\)"),
        ("GATEHOUSE_MQTT__CONNECT_TIMEOUT", "nan", "GATEHOUSE_MQTT__CONNECT_TIMEOUT: .*"),
        ("GATEHOUSE_LOG__FORMAT", "xml", "GATEHOUSE_LOG__FORMAT: input should be 'auto', 'json' or 'console' .*"),
        ("GATEHOUSE_LOG__LEVEL", "x" * 1000, "GATEHOUSE_LOG__LEVEL: .{,200}"),
        ("GATEHOUSE_ENDPOINTS__MURL", "tcp://h", "GATEHOUSE_ENDPOINTS__MURL: must be exactly scheme://host:port .*"),
        ("GATEHOUSE_ENDPOINTS__MURL", "tcp://h:1/x", "GATEHOUSE_ENDPOINTS__MURL: must be exactly .*"),
        ("GATEHOUSE_ENDPOINTS__MURL", "tcp://h:99999", "GATEHOUSE_ENDPOINTS__MURL: port out of range .*"),
        ("GATEHOUSE_ENDPOINTS__HURL", "h", r"GATEHOUSE_ENDPOINTS__HURL: must be scheme://host\[:port\] .*"),
        ("GATEHOUSE_ENOS__ALLOWED_SIGNMETHODS", "sha256,md5", ".*a section or a list in a variable is written as JSON"),
        ("GATEHOUSE_ENOS__ALLOWED_SIGNMETHODS", '["x"]', "GATEHOUSE_ENOS__ALLOWED_SIGNMETHODS: .*signmethods.0: .*"),
        ("GATEHOUSE_DATABASE__POOL_MIN", "11", r".*: pool_min \(11\) must not be above pool_max \(10\)"),
        ("GATEHOUSE_DATABASE", f"postgres://u:{HIDDEN}@h", ".*is written as JSON"),
        ("GATEHOUSE_DATABASE", f'"postgres://u:{HIDDEN}@h"', "GATEHOUSE_DATABASE: input should be a valid dict.*"),
        ("GATEHOUSE_DATABASE", f'{{"url": ["{HIDDEN}"]}}', "GATEHOUSE_DATABASE: database.url: .*string"),
        ("GATEHOUSE_DATABASE", f'{{"url": "{HIDDEN}", "pool_min": 50}}', "GATEHOUSE_DATABASE: pool_min .*"),
        ("GATEHOUSE_IOTO__USER_TOKEN", HIDDEN, "GATEHOUSE_IOTO__USER_TOKEN: value should have at least 16 items.*"),
        ("GATEHOUSE_IOTO__API", "iot.example.org", "GATEHOUSE_IOTO__API: must be scheme://host.*"),
        ("GATEHOUSE_MASTER_KEY_FILE", "/nowhere", "GATEHOUSE_MASTER_KEY_FILE: cannot read /nowhere: .*"),
        ("GATEHOUSE_MASTER_KEY_FILE", "/", "GATEHOUSE_MASTER_KEY_FILE: cannot read /: .*"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str
) -> None:
    monkeypatch.setenv(name, value)
    assert re.fullmatch(text, refused())


def test_a_secret_and_its_file_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_MASTER_KEY", HIDDEN)
    monkeypatch.setenv("GATEHOUSE_MASTER_KEY_FILE", "x")
    assert refused() == "GATEHOUSE_MASTER_KEY and GATEHOUSE_MASTER_KEY_FILE are both set: keep one"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("htpp = 1", "config/gatehouse.toml: htpp is not a setting; .*"),
        ("[http]\nprot = 1", "config/gatehouse.toml: http.prot is not a setting; .*"),
        (f"[database]\nurll = '{HIDDEN}'", "config/gatehouse.toml: database.urll is not a setting; .*"),
        ("[http]\nport = 'x'", "config/gatehouse.toml: http.port: input should be a valid integer.*"),
        ("http = 1", "config/gatehouse.toml: http: input should be a valid dictionary or instance of Http"),
        (f"database = 'postgres://u:{HIDDEN}@h'", "config/gatehouse.toml: database: input should be a valid dict.*"),
        (f"master_key = ['{HIDDEN}']", "config/gatehouse.toml: master_key: .*"),
        (f"[database]\nurl = '{HIDDEN}", "config/gatehouse.toml: Expected .*"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(configure: Configure, text: str, message: str) -> None:
    configure(text)
    assert re.fullmatch(message, refused())


def test_a_file_that_is_no_text_or_cannot_be_read_is_named(directory: Path, configure: Configure) -> None:
    path = configure("")
    path.write_bytes(b"\xff")
    assert refused().startswith("config/gatehouse.toml: ")
    if os.getuid() != 0:
        path.chmod(0)
        assert refused().startswith("config/gatehouse.toml: ")


def test_a_wrong_argument_is_told_as_such(configure: Configure) -> None:
    configure("[http]\nport = 1\n")
    assert refused(http={"port": "x"}).startswith("settings: http.port: ")
    assert "master_key" in refused(master_key=[HIDDEN])


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["HTTP__PORT", "DATABASE", "ENOS__ALLOWED_SIGNMETHODS", "ENDPOINTS__MURL", "BLOCK", "LOG"]),
    value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.from_regex(r'\A[\[{"0-9].*'),
)
def test_any_value_is_read_or_refused_in_one_line(name: str, value: str) -> None:
    if "\0" in value:
        return
    os.environ[f"GATEHOUSE_{name}"] = value
    try:
        load()
    except SettingsError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is fine
    finally:
        del os.environ[f"GATEHOUSE_{name}"]


# --- is_loopback ---


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_what_stays_on_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "192.168.1.1",
        "10.0.0.1",
        "example.org",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "::2",
    ],
)
def test_what_may_leave_it(host: str) -> None:
    assert not is_loopback(host)
