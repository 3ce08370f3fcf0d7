"""What every driver has: orders come line by line on standard input, as JSON, and answers go to standard output.

Only the standard library: it runs in the environment of an SDK.
"""

import json
import logging
import sys
import threading
from typing import Any


class Seen(logging.Handler):
    """What happened, in order: [kind, text]."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._happened = threading.Condition()
        self.all: list[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.note("log", record.getMessage())

    def note(self, kind: str, text: str = "") -> None:
        with self._happened:
            self.all.append([kind, text])
            self._happened.notify_all()

    def wait(self, kind: str, text: str, seconds: float) -> bool:
        """Until something of this kind with this text in it has happened."""
        with self._happened:
            return self._happened.wait_for(
                lambda: any(each[0] == kind and text in each[1] for each in self.all), timeout=seconds
            )


SEEN = Seen()


class Driven:
    """The orders are the public methods of a subclass. Each answers with whatever JSON can hold."""

    def wait(self, kind: str, text: str = "", seconds: float = 15) -> bool:
        return SEEN.wait(kind, text, seconds)

    def seen(self) -> list[list[str]]:
        return SEEN.all


def serve(device: Driven, logger: str) -> None:
    """Take orders until standard input ends; `logger`: name of the SDK's."""
    logging.getLogger(logger).addHandler(SEEN)
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any]
        try:
            verb = getattr(device, order.pop("do"))
            answer = {"answer": verb(**order)}
        except Exception as error:  # noqa: BLE001 - the test that gave the order judges it
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
