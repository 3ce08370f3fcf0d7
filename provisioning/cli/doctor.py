# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse doctor`: what is wrong, and what to do. It changes nothing and migrates nothing.

    doctor_machine        settings, files, limits, clock, listeners
    doctor_database       the database, and what is asked of it
    doctor_certificates   authorities, certificates of devices, server certificate

A check is a generator of findings; what it raises is a finding, too.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import typer

from provisioning.cli import output
from provisioning.cli.options import Json
from provisioning.cli.run import FAILED, run

if TYPE_CHECKING:
    from provisioning.settings import Settings

COLUMNS: Final = ("check", "status", "finding", "advice")


class Level(StrEnum):
    OK = "ok"
    INFO = "info"
    """Neither good nor bad."""
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    status: Level
    finding: str
    advice: str = ""
    """What to do."""


Findings = AsyncIterator[Finding]


def doctor(as_json: Json = False) -> None:
    """Check settings, database, authorities, certificates and clock. Exit code 1 if there is a problem."""
    from provisioning.settings import SettingsError, load

    try:
        load()
    except SettingsError as error:
        found = [Finding("settings", Level.PROBLEM, str(error), "correct it: nothing else can be checked before")]
    else:
        found = run(_examine)
    if output.is_terminal() and not as_json:
        output.table(COLUMNS, ([output.plain(each) for each in asdict(one).values()] for one in found),
                     wrapped=("finding", "advice"))  # fmt: skip
    else:
        output.rows(COLUMNS, map(asdict, found), as_json=as_json)
    if any(each.status is Level.PROBLEM for each in found):
        raise typer.Exit(FAILED)


async def _examine(settings: "Settings") -> list[Finding]:
    from provisioning.cli import doctor_certificates, doctor_database, doctor_machine

    found = [Finding("settings", Level.OK, doctor_machine.source())]
    found += [each async for each in _guarded("machine", doctor_machine.examine(settings))]
    async with contextlib.AsyncExitStack() as stack:
        opened: list[doctor_database.Opened] = []
        found += [each async for each in _guarded("database", doctor_database.examine(settings, stack, opened))]
        for each in opened:
            found += [one async for one in _guarded("authorities", doctor_certificates.of_registry(settings, each))]
    found += [each async for each in _guarded("server certificate", doctor_certificates.of_server(settings))]
    found += [each async for each in _guarded("listeners", doctor_machine.listeners(settings))]
    return found


async def _guarded(check: str, findings: Findings) -> Findings:
    """An examination that breaks off is a finding, and the next one goes on."""
    from provisioning.core.importing import words
    from provisioning.model.refusal import Refusal

    try:
        async for each in findings:
            yield each
    except Refusal as refusal:
        yield Finding(check, Level.PROBLEM, words(refusal), "see above")
    except Exception as error:  # noqa: BLE001 - whatever it is: the other checks still tell something
        yield Finding(check, Level.PROBLEM, f"the check broke off: {type(error).__name__}: {error}", "please report it")
