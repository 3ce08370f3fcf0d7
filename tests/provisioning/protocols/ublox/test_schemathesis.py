"""Schemathesis takes the served document at its word: examples, limits of every schema, and random bodies.

It is a process of its own, as anybody would run it who has the document.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from provisioning.protocols.ublox.routes import ROUTES
from tests.conftest import Serve
from tests.provisioning.protocols.conftest import Lines
from tests.provisioning.protocols.ublox.test_bad_input import failures
from tests.provisioning.protocols.ublox.test_tenants import NAMES
from tests.ublox import client
from tests.ublox_requests import MINE, REQUESTS, Things
from tests.ublox_world import furnish

pytestmark = pytest.mark.server

CONFIG = """
seed = 1
continue-on-failure = true
warnings = false

[generation]
max-examples = 2
no-shrink = true
database = "none"

[phases]
stateful.enabled = false
coverage.unexpected-methods = []

[checks]
enabled = false
not_a_server_error.enabled = true
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_schema_conformance.enabled = true
negative_data_rejection = { enabled = true, expected-statuses = [400, 401, 404, 409, 413, 415] }
"""
"""Good data need not be accepted: a tag that fits its schema need not exist. Other methods are in test_bad_input.py."""


def about(document: Any, things: Things) -> Any:
    """The document with examples of what there is."""
    for path, operations in document["paths"].items():
        body = operations["post"].get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            body["examples"] = {"good": {"value": REQUESTS[path](things)}}
            for name, field in body["schema"]["properties"].items():
                if name in NAMES:
                    field["examples"] = [NAMES[name](things)]
    return document


@pytest.mark.timeout(300)
async def test_the_service_keeps_what_the_document_says(serve: Serve, tmp_path: Path, lines: Lines) -> None:
    running = await serve(ublox={"rate": 0, "webhook_private": True})
    async with client(running) as api:
        things = await furnish(running, api, MINE)
        served = await api.send("/ublox/openapi.json", b"", method="GET")
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(about(served.body, things)))
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("schemathesis"), "run", file, "--url", f"{api.url}/v1",
            "--header", f"Authorization: Bearer {api.token}",
            cwd=tmp_path, env=os.environ | {"NO_COLOR": "1"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    accepted = {line["event"].removeprefix("http.") for line in lines if line.get("outcome") == "accepted"}
    assert len({row.name for row in ROUTES} - accepted) < 5, "hardly anything got in"
    assert not failures(lines)
