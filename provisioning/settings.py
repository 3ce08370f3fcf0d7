"""Settings: `config/gatehouse.toml`, overridden by the environment, overridden by `*_FILE` for secrets.

`GATEHOUSE_HTTP__PORT=8081` sets `http.port`; `GATEHOUSE_MASTER_KEY_FILE=/run/secrets/key` reads `master_key` from a
file.
The sections and their defaults: `provisioning.sections`.
"""

import ipaddress
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as SourceError

from provisioning import sections
from provisioning.sections import Section

PREFIX: Final = "GATEHOUSE_"
LONGEST_VALUE: Final = 100
CONFIG_VARIABLE: Final = "GATEHOUSE_CONFIG"
DEFAULT_CONFIG: Final = Path("config/gatehouse.toml")


class SettingsError(Exception):
    """A setting is unknown or wrong; the text says which one, where and why, in one line."""


class Settings(BaseSettings):
    """All settings of a Gatehouse process.

    Raises:
        SettingsError: from `load`, with one line for people.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    data_dir: Path = Path("data")
    master_key: SecretStr | None = None
    demo: Path | None = None
    log: sections.Log = sections.Log()
    database: sections.Database = sections.Database()
    http: sections.Http = sections.Http()
    https: sections.Https = sections.Https()
    mqtt: sections.Mqtt = sections.Mqtt()
    mqtts: sections.Mqtts = sections.Mqtts()
    tls: sections.Tls = sections.Tls()
    pki: sections.Pki = sections.Pki()
    endpoints: sections.Endpoints = sections.Endpoints()
    enos: sections.Enos = sections.Enos()
    tencent: sections.Tencent = sections.Tencent()
    ioto: sections.Ioto = sections.Ioto()
    ublox: sections.Ublox = sections.Ublox()
    block: sections.Block = sections.Block()
    cache: sections.Cache = sections.Cache()
    events: sections.Events = sections.Events()
    aws: sections.Aws = sections.Aws()
    credentials: sections.Credentials = sections.Credentials()
    images: sections.Images = sections.Images()
    updates: sections.Updates = sections.Updates()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - ours knows `*_FILE`
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no .env: one place less to search
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=_config_path())
        return init_settings, _SecretFiles(settings_cls), _Variables(settings_cls), toml


class _Variables(EnvSettingsSource):
    """The environment but for `*_FILE`, which would pass for a setting of its section."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        files = {f"{name}_FILE".lower() for name in SECRETS}
        return {name: value for name, value in super()._load_env_vars().items() if name not in files}


class _SecretFiles(EnvSettingsSource):
    """`GATEHOUSE_X_FILE=path` gives X the content of the file, without the line end."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): _read_secret(name, Path(path)) for name, path in _secret_files()}


SECRETS: Final = (
    "GATEHOUSE_MASTER_KEY", "GATEHOUSE_DATABASE__URL", "GATEHOUSE_PKI__ACCESS_TOKEN", "GATEHOUSE_IOTO__USER_TOKEN",
    "GATEHOUSE_AWS__SECRET_ACCESS_KEY", "GATEHOUSE_CREDENTIALS__SECRET_ACCESS_KEY",
    "GATEHOUSE_CREDENTIALS__SESSION_TOKEN",
)  # fmt: skip


def _secret_files() -> Iterator[tuple[str, str]]:
    for name in SECRETS:
        if path := os.environ.get(f"{name}_FILE"):
            if os.environ.get(name):
                raise SettingsError(f"{name} and {name}_FILE are both set: keep one")
            yield name, path


def _read_secret(name: str, path: Path) -> str:
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE: cannot read {path}: {error}") from error


def _config_path() -> Path | None:
    if named := os.environ.get(CONFIG_VARIABLE):
        if not Path(named).is_file():
            raise SettingsError(f"{CONFIG_VARIABLE}: there is no file {named}")
        return Path(named)
    return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield f"{prefix}{name.upper()}"
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from _names(info.annotation, f"{prefix}{name.upper()}__")


def _refuse_unknown_variables() -> None:
    known = {*_names(Settings, PREFIX), CONFIG_VARIABLE, *(f"{name}_FILE" for name in SECRETS)}
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name not in known:
            raise SettingsError(f"{name} is not a setting; config/gatehouse.toml lists them all")


def _one_line(error: ValidationError, overrides: Mapping[str, object]) -> str:
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    source = _origin(place, overrides)
    if source not in {variable := PREFIX + "__".join(place).upper(), f"{variable}_FILE"}:
        source = f"{source}: {'.'.join(place)}"
    if first["type"] == "extra_forbidden":
        return f"{source} is not a setting; config/gatehouse.toml lists them all"
    message = first["msg"].removeprefix("Value error, ")
    value = f" (it is {str(first['input'])[:LONGEST_VALUE]!r})" if _is_public(place) else ""
    return f"{source}: {message[0].lower()}{message[1:]}{value}"


def _origin(place: Sequence[str], overrides: Mapping[str, object]) -> str:
    """Which source a wrong value came from: sections and lists may stand in one variable."""
    for length in range(len(place), 0, -1):
        variable = PREFIX + "__".join(place[:length]).upper()
        for name in (variable, f"{variable}_FILE"):
            if os.environ.get(name):
                return name
    return "settings" if place and place[0] in overrides else str(_config_path() or "settings")


def _is_public(place: Sequence[str]) -> bool:
    """May the value at `place` be shown? Not a secret, and not a section: a secret may be in it."""
    model: type[BaseModel] = Settings
    for name in place:
        info = model.model_fields.get(name)
        if info is None or "SecretStr" in str(info.annotation):
            return False
        if not (isinstance(info.annotation, type) and issubclass(info.annotation, Section)):
            return True
        model = info.annotation
    return False


def load(**overrides: object) -> Settings:
    """Read the settings from all sources; `overrides` win.

    Raises:
        SettingsError: a setting is unknown or wrong.
    """
    _refuse_unknown_variables()
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(_one_line(error, overrides)) from None  # the error's own text shows the values
    except SourceError as error:
        raise SettingsError(f"{error}: a section or a list in a variable is written as JSON") from None
    except (ValueError, OSError) as error:  # a TOML syntax error, or a file that cannot be read
        raise SettingsError(f"{_config_path()}: {error}") from error


def is_loopback(host: str) -> bool:
    """Does a listener on `host` stay on this machine?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
