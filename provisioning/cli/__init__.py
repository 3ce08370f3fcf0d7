"""The command `gatehouse`: reads what a person or a program asks, opens the transaction, calls verbs, prints.

    serve       the service itself; migrate
    tour        the commands that a newcomer may paste, printed when the demo fleet is loaded
    product group device   the registry, one thing at a time; device_steps, paging
    claim       claim and release: whose a device is
    account     tenants of the u-blox API
    webhook     whom they have events told to; dead letters
    ca cert     authorities and certificates; cert_issue, and certificates: how they are named and told of
    update      updates of the devices' software
    transfer    import and export: the registry as NDJSON
    doctor      what is wrong, and what to do; doctor_machine, doctor_database, doctor_certificates
    sign        what a device would send, for a person with a shell
    simulate    real devices over the wire; simulate_{enos,tencent,ioto} and what they share, simulated
    simulation  their play; the devices themselves: simulation_enos, simulation_tencent
    run         settings, loop and registry for the work of a command; errors -> one line and an exit code
    output      tables for people, lines for pipes, JSON for programs
    files       files that are read and written
    options     what several commands take

Exit codes: 0 done, 1 something that was asked for failed, 2 wrong usage or settings, or it cannot start, 130 Ctrl-C.
Commands import what they need when they run: `gatehouse --help` is quick.
"""

import os
import sys

import typer

from provisioning.cli import (
    account,
    ca,
    cert,
    claim,
    device,
    doctor,
    group,
    product,
    serve,
    sign,
    simulate,
    simulate_ioto,
    transfer,
    update,
    webhook,
)

app = typer.Typer(
    name="gatehouse", no_args_is_help=True, pretty_exceptions_enable=False,
    help="Device provisioning that speaks the devices' own protocols.",
)  # fmt: skip
app.command("serve")(serve.serve)
app.command("migrate")(serve.migrate)
app.command("doctor")(doctor.doctor)
app.command("import")(transfer.import_file)
app.command("export")(transfer.export_file)
app.command("claim")(claim.claim)
app.command("release")(claim.release)
app.add_typer(account.app, name="account")
app.add_typer(webhook.app, name="webhook")
app.add_typer(product.app, name="product")
app.add_typer(group.app, name="group")
app.add_typer(device.app, name="device")
app.add_typer(ca.app, name="ca")
app.add_typer(cert.app, name="cert")
app.add_typer(update.app, name="update")
app.add_typer(sign.app, name="sign")
simulate.app.command("ioto")(simulate_ioto.ioto)
app.add_typer(simulate.app, name="simulate")


def main() -> None:
    """The entry point. Never returns: ends the process with an exit code."""
    from provisioning import log  # noqa: PLC0415 - see above

    log.configure(level="warning", stream=sys.stderr)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
