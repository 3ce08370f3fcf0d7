"""The sections of the settings: what each may hold, and its default. How they are read: `provisioning.settings`.

Every setting is documented with its default in `config/gatehouse.toml`; a test keeps that file and this one in step.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

LONGEST_POLICY: Final = 1_800
LONGEST_API: Final = 120
DNS_NAME: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
SIGN_METHODS: Final = ("sha256", "hmacsha256", "sha1", "hmacsha1", "md5", "hmacmd5")


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if not parts.scheme or not parts.hostname:
        raise ValueError("must be scheme://host[:port]")
    return value


def _mqtt_endpoint(value: str) -> str:
    """Clients hand it to their MQTT library unchanged: a path or a missing port breaks them (EnOS reference, 3)."""
    parts = urlsplit(value)
    if not parts.scheme or not parts.hostname or parts.port is None or parts.path or parts.query:
        raise ValueError("must be exactly scheme://host:port")
    return value


Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Log(Section):
    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Database(Section):
    url: SecretStr | None = None
    pool_min: int = Field(2, ge=1, le=100)
    pool_max: int = Field(10, ge=2, le=100)
    timeout: Seconds = 10.0

    @model_validator(mode="after")
    def _pool(self) -> Self:
        if self.pool_min > self.pool_max:
            raise ValueError(f"pool_min ({self.pool_min}) must not be above pool_max ({self.pool_max})")
        return self


class Http(Section):
    host: str = "127.0.0.1"
    port: Port = 8080
    max_connections: int = Field(20_000, ge=1)
    header_timeout: Seconds = 10.0
    request_timeout: Seconds = 30.0


class Mqtt(Section):
    host: str = "127.0.0.1"
    port: Port = 11883
    more_ports: tuple[Port, ...] = ()
    connect_timeout: Seconds = 10.0
    max_connections: int = Field(100_000, ge=1)
    max_per_address: int = Field(20_000, ge=1)
    max_small_packet: int = Field(65_536, ge=256)
    max_packet: int = Field(1_048_576, ge=1_024, le=268_435_455)
    max_keepalive: int = Field(1_200, ge=1, le=65_535)
    default_keepalive: int = Field(300, ge=1, le=65_535)
    max_subscriptions: int = Field(500, ge=1)
    max_wildcards: int = Field(100, ge=1)
    max_retained: int = Field(100, ge=0)
    max_retained_bytes: int = Field(4_194_304, ge=0)
    max_queued: int = Field(1_000, ge=1)
    max_queued_bytes: int = Field(4_194_304, ge=1_024)
    max_inflight: int = Field(64, ge=1, le=65_535)
    session_expiry: int = Field(86_400, ge=0)


class Https(Section):
    host: str = "127.0.0.1"
    port: Port | None = None


class Mqtts(Section):
    host: str = "127.0.0.1"
    port: Port | None = None
    more_ports: tuple[Port, ...] = ()


class Host(Section):
    certificate: Path
    key: Path | None = None


class Tls(Section):
    certificate: Path | None = None
    key: Path | None = None
    hosts: tuple[Host, ...] = ()
    names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    days: int = Field(397, ge=1, le=3_650)


class Pki(Section):
    url: Annotated[str, AfterValidator(_endpoint)] | None = None
    key: Literal["p256", "p384", "rsa2048", "rsa3072", "rsa4096"] = "p256"
    authority_years: int = Field(20, ge=1, le=50)
    leaf_days: int = Field(730, ge=1, le=36_500)
    max_leaf_days: int = Field(3_650, ge=1, le=36_500)
    crl_days: int = Field(7, ge=1, le=30)
    access_token: SecretStr | None = None


class Endpoints(Section):
    murl: Annotated[str, AfterValidator(_mqtt_endpoint)] | None = None
    hurl: Annotated[str, AfterValidator(_endpoint)] | None = None


class Enos(Section):
    error_http_status: Literal["rest", "always200"] = "rest"
    allowed_signmethods: tuple[Literal["sha256", "hmacsha256", "sha1", "hmacsha1", "md5", "hmacmd5"], ...] = (
        SIGN_METHODS
    )
    login_freshness: int = Field(0, ge=0)
    activation_retry: int = Field(5, ge=1)
    activation_strict: bool = False
    push_delay: float = Field(0.2, ge=0.1, le=0.3)
    push_interval: float = Field(1.5, ge=0.1, le=1.8)
    push_repeats: int = Field(2, ge=0, le=2)
    max_payload: int = Field(524_288, ge=1)
    farewell_timeout: float = Field(0.8, ge=0, le=5)


class Tencent(Section):
    # registration over HTTP
    error_http_status: Annotated[Literal["200", "rest"], BeforeValidator(str)] = "200"
    hide_unknown_product: bool = True
    reregister: Literal["deny", "same", "rotate"] = "deny"
    freshness: int = Field(300, ge=0, le=86_400)
    host_aliases: tuple[str, ...] = ()
    rate_per_address: int = Field(10, ge=0)
    rate_per_product: int = Field(20, ge=0)
    organization: str = Field("Gatehouse", max_length=64)
    # sessions over MQTT
    connect_interval: float = Field(5.0, ge=0, le=3_600)
    max_keepalive: int = Field(900, ge=1, le=65_535)
    max_payload: int = Field(16_384, ge=1)
    messages_up: int = Field(30, ge=0)
    messages_down: int = Field(50, ge=0)
    max_stored: int = Field(150, ge=0)
    # gateways
    max_sub_devices: int = Field(1_500, ge=1)
    bind_freshness: int = Field(300, ge=0, le=86_400)


def _api(value: str) -> str:
    if len(_endpoint(value)) > LONGEST_API:
        raise ValueError(f"must have at most {LONGEST_API} characters: old agents have no room for more")
    if urlsplit(value).query or urlsplit(value).fragment:
        raise ValueError("must be scheme://host[:port][/prefix]")
    return value.rstrip("/")


def _dns_name(value: str) -> str:
    """Agents verify the host name, and refuse an address even where the certificate has it."""
    if not DNS_NAME.fullmatch(value) or value.rpartition(".")[2].isdigit():
        raise ValueError("must be a DNS name, not an address")
    return value


PlainName = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]


class Ioto(Section):
    api: Annotated[str, AfterValidator(_api)] | None = None
    mqtt_host: Annotated[str, AfterValidator(_dns_name)] | None = None
    mqtt_port: Port | None = None
    auto_claim: bool = True
    reregister: Literal["allow", "ask"] = "allow"
    account: PlainName = "00000000000000000000000001"
    cloud_type: Literal["hosted", "dedicated"] = "hosted"
    cloud_name: PlainName = "main"
    cloud_region: PlainName = "local"
    certificate_key: Literal["p256", "rsa2048"] = "p256"
    certificate_days: int = Field(3_650, ge=1, le=3_650)
    blocked_delay: int = Field(3_600, ge=1, le=604_800)
    messages_up: int = Field(100, ge=0)
    user_token: SecretStr | None = Field(None, min_length=16)


class Ublox(Section):
    rate: int = Field(20, ge=0)
    issuer: str = Field("https://gatehouse.local", min_length=1, max_length=255)
    webhook_timeout: Seconds = 10.0
    webhook_private: bool = False
    webhook_ca: Path | None = None
    keep_days: int = Field(400, ge=180)


class Block(Section):
    refusals: int = Field(4, ge=0)
    window: Seconds = 120.0
    duration: Seconds = 300.0


class Cache(Section):
    size: int = Field(200_000, ge=1)
    negative_ttl: Seconds = 2.0


class Events(Section):
    keep_days: int = Field(30, ge=1)


class Aws(Section):
    region: str = Field("us-east-1", pattern=r"^[a-z0-9-]{1,32}$")
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    timeout: Seconds = 10.0

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together")
        return self


DEVICE_POLICY: Final = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", '
    '"Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], "Resource": "arn:aws:s3:::*/{device}/*"}]}'
)


def _policy(value: str) -> str:
    """AssumeRole takes 2,048 characters (AWS STS API reference); names of devices and products have 64 each."""
    if len(value) > LONGEST_POLICY:
        raise ValueError(f"must have at most {LONGEST_POLICY} characters")
    try:
        statement = json.loads(value)
    except ValueError as error:
        raise ValueError(f"must be JSON: {error}") from None
    if not isinstance(statement, dict) or "{device}" not in value:
        raise ValueError("must be an IAM policy, a JSON object, that names its {device}")
    return value


class Credentials(Section):
    provider: Literal["disabled", "static", "sts"] = "disabled"
    region: str | None = Field(None, pattern=r"^[a-z0-9-]{1,32}$")
    role: str = Field("IotoDeviceRole", pattern=r"^(arn:[a-z-]+:iam::[0-9]{12}:role/)?[A-Za-z0-9+=,.@_/-]{1,512}$")
    duration: int = Field(3_600, ge=2_100, le=43_200)
    session_name: str = Field("{device}", pattern=r"^([A-Za-z0-9_+=,.@-]|\{device\}|\{product\})+$")
    policy: Annotated[str, AfterValidator(_policy)] = DEVICE_POLICY
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None

    @model_validator(mode="after")
    def _static(self) -> Self:
        if self.provider == "static" and (self.access_key_id is None or self.secret_access_key is None):
            raise ValueError("provider static needs access_key_id and secret_access_key")
        return self


class Images(Section):
    store: Literal["disk", "s3"] = "disk"
    bucket: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{3,63}$")
    prefix: str = Field("images", pattern=r"^[A-Za-z0-9._/-]{0,200}$")
    download_timeout: Seconds = 3_600.0

    @model_validator(mode="after")
    def _bucket(self) -> Self:
        if self.store == "s3" and self.bucket is None:
            raise ValueError("store s3 needs a bucket")
        return self


class Updates(Section):
    stop_after: int = Field(10, ge=0)
    stop_share: int = Field(50, ge=0, le=100)
