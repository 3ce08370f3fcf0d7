from typing import Any

import pytest
import typer

from provisioning.cli import run as run_module
from provisioning.cli.run import Failure, run
from provisioning.model.refusal import Reason, Refusal
from provisioning.opening import StartError
from provisioning.store.sealing import SealError


def ending(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    async def work(_settings: Any) -> None:
        raise error

    with pytest.raises(typer.Exit) as end:
        _in_thread(lambda: run(work))
    return end.value.exit_code, capsys.readouterr().err


def _in_thread(work: Any) -> Any:
    """The tests have a loop in this thread."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (Failure("no\nway"), 1, "gatehouse: no\\nway\n"),
        (SealError("damaged"), 1, "gatehouse: damaged\n"),
        (Refusal(Reason.UNKNOWN, product="pk", device="dk"), 1, "gatehouse: there is no device dk in product pk\n"),
        (Refusal(Reason.UNAVAILABLE, error="gone"), 1, "gatehouse: the database is away: gone\n"),
        (StartError("port taken"), 2, "gatehouse: port taken\n"),
        (KeyboardInterrupt(), 130, ""),
        (RuntimeError("odd"), 1, "gatehouse: unexpected RuntimeError: odd (GATEHOUSE_LOG__LEVEL=debug shows where)\n"),
    ],
)
def test_every_end_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(error, capsys) == (code, line)


def test_a_mistake_of_ours_can_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_LOG__LEVEL", "debug")

    async def work(_settings: Any) -> None:
        raise RuntimeError("odd")

    with pytest.raises(RuntimeError, match="odd"):
        _in_thread(lambda: run(work))


def test_a_wrong_setting_ends_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEHOUSE_HTTP__PORT", "-1")
    assert ending(AssertionError("never reached"), capsys)[0] == 2


def test_the_work_has_its_result() -> None:
    async def work(settings: Any) -> str:
        return str(settings.log.level)

    assert _in_thread(lambda: run(work)) == "info"


def test_uvloop_is_used_where_there_is_one() -> None:
    uvloop = pytest.importorskip("uvloop")
    assert run_module._loop_factory() is uvloop.new_event_loop
