import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from provisioning import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging belongs to the whole process."""
    root = logging.getLogger()
    handlers, level, amqtt = root.handlers[:], root.level, logging.getLogger("amqtt").level
    before = structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("amqtt").setLevel(amqtt)
    structlog.configure(**before)


Write = Callable[..., dict[str, Any]]


def logged(level: str = "info", **options: Any) -> tuple[io.StringIO, log.Logger]:
    stream = io.StringIO()
    log.configure("json", level, stream, **options)
    return stream, log.get()


def one(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_begins_with_what_names_it() -> None:
    stream, logger = logged()
    logger.info("mqtt.login", protocol="enos", ms=1.5, outcome="accepted")
    assert list(one(stream)) == ["timestamp", "level", "event", "protocol", "ms", "outcome"]
    assert one(stream)["event"] == "mqtt.login"
    assert one(stream)["timestamp"].endswith("Z")


def test_levels() -> None:
    stream, logger = logged("warning")
    logger.info("no")
    logger.warning("yes")
    assert one(stream)["level"] == "warning"


@pytest.mark.parametrize(
    "key",
    [
        "secret", "device_secret", "deviceSecret", "DEVICE-SECRET", "password", "group_password", "signature", "sign",
        "dpsSign", "dps_sign", "token", "access_token", "Authorization", "ds", "ps", "url", "master_key", "payload",
        "psk", "key_pem",
    ],
)  # fmt: skip
def test_secrets_are_dropped_by_the_name_of_their_key(key: str) -> None:
    stream, logger = logged()
    logger.info("x", **{key: "geheim"}, deep={key: "geheim", "list": [{key: b"geheim"}]})
    assert one(stream)[key] == "[redacted]"
    assert "geheim" not in stream.getvalue()


def test_what_only_resembles_a_secret_stays() -> None:
    stream, logger = logged()
    logger.info("x", device="a", reason="b", signmethod="c", serial="d", username="e", path="f")
    assert "redacted" not in stream.getvalue()


def test_what_a_stranger_made_long_is_cut() -> None:
    stream, logger = logged()
    long = "x" * 100_000
    logger.info("x", text=long, bytes=long.encode(), deep=[long, {"a": long, long: 1}], many=list(range(10_000)))
    assert len(stream.getvalue()) < 3_000
    assert one(stream)["text"] == "x" * 256 + "…"
    logger.info(long)
    assert len(stream.getvalue()) < 4_000


class Unspeakable:
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class Number(int):
    def __str__(self) -> str:
        return "no"


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\x00", "\ud800", "\0\x1b[31m\n", {1: 2}, {(1, 2): {3}}, {1, 2}, Unspeakable(), {Unspeakable(): 1},
        float("nan"), float("-inf"), 10**5_000, -(10**5_000), Number(1), object(), ValueError("x"), None, True, 1.5,
        (1, [2]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_any_value_makes_one_line_of_json(value: object) -> None:
    stream, logger = logged()
    logger.info("x", value=value)
    assert "value" in json.loads(stream.getvalue(), parse_constant=pytest.fail)
    assert stream.getvalue().count("\n") == 1


def test_what_contains_itself_ends() -> None:
    stream, logger = logged()
    endless: list[object] = []
    endless.append(endless)
    logger.info("x", value=endless)
    assert one(stream)["event"] == "x"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.text(st.characters(), min_size=1).filter(
            lambda key: key not in {"event", "level", "exc_info", "stack_info", "self", "_record", "timestamp"}
        ),
        json_values,
    )
)
def test_any_values_make_one_line_of_json(values: dict[str, Any]) -> None:
    event = log.redact(None, "info", {"event": "x", **values})
    text = json.dumps(event, allow_nan=False)
    assert text.isascii()
    assert json.loads(text)["event"] == "x"


def test_exceptions_tell_where_but_not_with_what() -> None:
    stream, logger = logged()
    device_secret = "geheim"  # noqa: F841 - what must not be shown
    try:
        raise ValueError("y" * 1000)  # noqa: TRY301 - raised to be caught here
    except ValueError:
        logger.exception("x")
    (exception,) = one(stream)["exception"]
    assert exception["exc_type"] == "ValueError"
    assert exception["frames"][-1]["filename"].endswith("test_log.py")
    assert "locals" not in exception["frames"][-1]
    assert "geheim" not in stream.getvalue()
    assert exception["exc_value"] == "y" * 256 + "…"


def test_foreign_libraries_speak_the_same_language() -> None:
    stream, _ = logged()
    logging.getLogger("aiohttp.server").warning("odd %s", "thing", extra={"token": "geheim"})
    logging.getLogger("asyncio").info("chatter")
    logging.getLogger("amqtt.broker").warning("chatter")
    line = one(stream)
    assert (line["event"], line["logger"], line["level"]) == ("odd thing", "aiohttp.server", "warning")
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert "geheim" not in stream.getvalue()


def test_foreign_exceptions_do_not_show_variables() -> None:
    stream, _ = logged()
    password = "geheim"  # noqa: F841 - what must not be shown
    try:
        raise ValueError  # noqa: TRY301 - raised to be caught here
    except ValueError:
        logging.getLogger("asyncio").exception("failed")
    assert one(stream)["exception"][0]["exc_type"] == "ValueError"
    assert "geheim" not in stream.getvalue()


def test_a_console_is_for_people() -> None:
    stream = io.StringIO()
    log.configure("console", "info", stream)
    password = "geheim"
    try:
        raise ValueError("oh")  # noqa: TRY301 - raised to be caught here
    except ValueError:
        log.get().exception("mqtt.login", device="dk", password=password, odd=Unspeakable())
    assert "mqtt.login" in stream.getvalue()
    assert "dk" in stream.getvalue()
    assert "ValueError: oh" in stream.getvalue()
    assert "geheim" not in stream.getvalue()


def test_auto_is_json_where_nobody_looks() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, is_json in ((io.StringIO(), True), (Terminal(), False)):
        log.configure("auto", "info", stream)
        log.get().info("x")
        assert stream.getvalue().startswith("{") is is_json


def test_without_a_stream_it_is_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    log.get().info("x")
    assert json.loads(capsys.readouterr().out)["event"] == "x"


# --- a reader that goes away ---


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_closed_pipe_does_not_stop_anything(format_: Any) -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    log.configure(format_, "info", stream)
    os.close(reading)
    for _ in range(10):
        log.get().info("x", text="y" * 200)
        logging.getLogger("foreign").error("x")
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_full_pipe_that_does_not_block_does_not_stop_anything() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as stream:
        log.configure("json", "info", stream)
        for _ in range(2_000):
            log.get().info("x", text="y" * 200)
        os.set_blocking(reading, False)
        assert reader.read(100).startswith('{"timestamp"')
        while reader.buffer.read1(65_536):  # type: ignore[attr-defined]
            if not reader.buffer.peek():  # type: ignore[attr-defined]
                break


def test_a_closed_stream_does_not_stop_anything() -> None:
    stream, logger = logged()
    stream.close()
    logger.info("x")


def test_a_stream_that_has_no_such_letter_gets_it_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    log.configure("console", "info", stream)
    log.get().info("grüße")
    assert b"gr\\xfc\\xdfe" in raw.getvalue()


def test_nothing_is_written_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info", sys.stdout)
    log.get().info("x", value=Unspeakable())
    logging.getLogger("x").error("y")
    assert capfd.readouterr().err == ""
