"""`gatehouse simulate`: a fleet of real devices against a running service, timed and checked."""

import typer

from provisioning.cli import simulate_enos, simulate_ioto, simulate_tencent, simulate_ublox

app = typer.Typer(help="Real devices over the wire, timed and checked.", no_args_is_help=True)
app.command()(simulate_enos.enos)
app.command()(simulate_tencent.tencent)
app.command()(simulate_ioto.ioto)
app.command()(simulate_ublox.ublox)


@app.callback()
def _of() -> None:
    """Real devices over the wire, timed and checked."""
