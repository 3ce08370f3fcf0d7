"""Structured logs: JSON lines on stdout, pretty on a terminal; one canonical line per unit of work.

A unit of work logs once, when it ends, with `outcome` (accepted, refused, failed), `reason` and `ms`. Keys, not prose.
What may come from outside is cut to a sane size; what may be a secret is dropped by its name. Whatever is logged
becomes one valid line, and logging never raises.
"""

import asyncio
import atexit
import json
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

SECRET_KEYS: Final = frozenset({"sign", "dpssign", "ds", "ps", "url", "payload", "psk", "masterkey", "keypem"})
SECRET_WORDS: Final = ("secret", "password", "signature", "token", "authorization")
"""A key with one of these in it names a secret."""
LONGEST_VALUE: Final = 256
LARGEST_INTEGER: Final = 2**63
MOST_ITEMS: Final = 64
DEEPEST: Final = 8
FIRST: Final = ("timestamp", "level", "event")
# Without local variables: a secret may be among them.
JSON_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)

Logger = FilteringBoundLogger


@lru_cache(maxsize=1_024)
def is_secret(key: str) -> bool:
    """Does a value of this name never belong in a log?"""
    name = key.lower().replace("_", "").replace("-", "")
    return name in SECRET_KEYS or any(word in name for word in SECRET_WORDS)


def _plain(value: object, depth: int = DEEPEST) -> object:
    """The value in what JSON has, cut to size."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < LARGEST_INTEGER:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if depth and isinstance(value, Mapping):
        pairs = [(_text(key), each) for key, each in list(value.items())[:MOST_ITEMS]]
        return {key: "[redacted]" if is_secret(key) else _plain(each, depth - 1) for key, each in pairs}
    if depth and isinstance(value, list | tuple):
        return [_plain(each, depth - 1) for each in value[:MOST_ITEMS]]
    return _text(value)


def _text(value: object) -> str:
    try:
        text = hex(value) if isinstance(value, int) else str(value)
    except Exception as error:  # noqa: BLE001 - whatever an object does when it is asked what it is
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


LEVELS: Final = {"exception": "error", "warn": "warning"}
"""Of the methods that are not called as their level is."""


class _Stamps:
    """The time of a line. The part of it that changes once in a second is made once in a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def now(self) -> str:
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{rest // 1_000:06}Z"


_stamps = _Stamps()


def one_line(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """An event of ours as a line of JSON: as the processors one by one would make it, in a tenth of the time.

    Every login and every request writes one, so this is a part of what each costs.
    """
    if event.get("exc_info") or event.get("stack_info"):
        event = JSON_TRACEBACKS(logger, method, event)
    clean: dict[str, Any] = {
        "timestamp": _stamps.now(), "level": LEVELS.get(method, method), "event": _text(event.pop("event", "")),
    }  # fmt: skip
    for key, value in event.items():
        if is_secret(key):
            clean[key] = "[redacted]"
            continue
        kind = type(value)
        is_plain = (
            len(value) <= LONGEST_VALUE if kind is str
            else -LARGEST_INTEGER < value < LARGEST_INTEGER if kind is int
            else kind is bool or value is None
        )  # fmt: skip
        clean[key] = value if is_plain else _plain(value)
    try:
        text = orjson.dumps(clean).decode()
    except TypeError:  # a text that is no Unicode
        return json.dumps(clean, separators=(",", ":"))
    return text if text.isascii() else json.dumps(clean, separators=(",", ":"))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop secrets by the name of their key, cut what a stranger may have made long, put what names the line first."""
    clean: dict[str, Any] = {}
    for key in (*(name for name in FIRST if name in event), *(name for name in event if name not in FIRST)):
        value = event[key]
        clean[key] = value if key == "exc_info" else "[redacted]" if is_secret(key) else _plain(value)
    return clean


class _Output:
    """A stream whose reader may go away, or be slow: a service does not end for want of somebody who reads its log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            try:
                return self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class Lines:
    """Takes lines for a stream. Those of one turn of the event loop leave together, as soon as it is over."""

    def __init__(self, output: _Output, *, at_once: bool) -> None:
        self._output = output
        self._at_once = at_once
        self._waiting: deque[str] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that will flush what waits."""
        if not at_once:
            atexit.register(self.flush)

    def msg(self, line: str) -> None:
        """Write a line: at once, where there is no loop whose turn would end."""
        self._waiting.append(line)
        loop = None if self._at_once else asyncio._get_running_loop()  # noqa: SLF001 - as get_running_loop, and None instead of an error
        if loop is None:
            self.flush()
        elif loop is not self._loop:
            self._loop = loop
            loop.call_soon(self.flush)

    debug = info = warning = error = critical = exception = msg

    def flush(self) -> None:
        self._loop = None
        lines = []
        with suppress(IndexError):
            while True:  # another thread may write
                lines.append(self._waiting.popleft())
        if lines:
            lines.append("")
            self._output.write("\n".join(lines))
            self._output.flush()


def _is_file(stream: TextIO) -> bool:
    try:
        return stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False


def configure(
    format: Literal["auto", "json", "console"] = "auto",  # noqa: A002 - the setting's name
    level: str = "info",
    stream: TextIO | None = None,
) -> None:
    """Set up logging for this process, the standard library's loggers included.

    `auto` is console on a terminal and JSON elsewhere. Foreign libraries speak from WARNING on. `stream` is stdout when
    not given; commands whose output is data log to stderr.
    """
    stream = stream or sys.stdout
    console = format == "console" or (format == "auto" and stream.isatty())
    output = _Output(stream)
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor] = (
        [redact, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [JSON_TRACEBACKS, redact, structlog.processors.JSONRenderer(separators=(",", ":"))]
    )
    lines = Lines(output, at_once=console or not _is_file(stream))
    processors: list[Processor] = [*shared, *renderer] if console else [one_line]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    _bound[:] = [(structlog.get_logger().bind(), processors)]
    handler = logging.StreamHandler(cast("TextIO", output))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, logging.getLevelName(level.upper())), force=True)
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)  # a lost database is told once, by `store.changes`
    logging.getLogger("amqtt").setLevel(logging.ERROR)  # its INFO and WARNING lines repeat what ours say


_bound: list[tuple[Logger, list[Processor]]] = []
"""The logger of this process, and what it was set up with: to make one for each line costs as much as the line."""


def get() -> Logger:
    if _bound:
        logger, processors = _bound[0]
        if structlog.get_config()["processors"] is processors:  # nobody has set up another one since
            return logger
    found: Logger = structlog.get_logger()
    return found
