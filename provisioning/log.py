"""Structured logs: JSON lines on stdout, pretty on a terminal; one canonical line per unit of work.

A unit of work logs once, when it ends, with `outcome` (accepted, refused, failed), `reason` and `ms`. Keys, not prose.
What may come from outside is cut to a sane length; what may be a secret is dropped by its name.
"""

import logging
import sys
from typing import Final, Literal

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

SECRET_KEYS: Final = frozenset(
    {"secret", "password", "signature", "sign", "token", "authorization", "ds", "ps", "dpssign", "devicesecret",
     "productsecret", "master_key", "url", "payload", "psk", "key_pem"}
)  # fmt: skip
LONGEST_VALUE: Final = 256
# Without local variables: a secret may be among them.
JSON_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)

Logger = FilteringBoundLogger


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop secrets by the name of their key, and cut what a stranger may have made long."""
    for key, value in event.items():
        if key.lower().replace("_", "") in SECRET_KEYS or key.lower() in SECRET_KEYS:
            event[key] = "[redacted]"
        elif isinstance(value, str) and len(value) > LONGEST_VALUE:
            event[key] = value[:LONGEST_VALUE] + "…"
    return event


def configure(format: Literal["auto", "json", "console"] = "auto", level: str = "info") -> None:  # noqa: A002
    """Set up logging for this process, the standard library's loggers included.

    `auto` is console on a terminal and JSON elsewhere. Foreign libraries speak from WARNING on.
    """
    console = format == "console" or (format == "auto" and sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [JSON_TRACEBACKS, structlog.processors.JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, logging.getLevelName(level.upper())), force=True)
    logging.getLogger("amqtt").setLevel(logging.ERROR)  # its INFO and WARNING lines repeat what ours say


def get() -> Logger:
    logger: Logger = structlog.get_logger()
    return logger
