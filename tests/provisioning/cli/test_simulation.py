import asyncio

import pytest

from provisioning.cli.simulation import HOPELESS, TOLD, Pace, Report, Stage, WrongAnswerError, play
from tests.conftest import until


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, {}),
        (1, {"p50": 1.0, "p95": 1.0, "p99": 1.0, "max": 1.0}),
        (100, {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}),
        (1_000, {"p50": 500.0, "p95": 950.0, "p99": 990.0, "max": 1000.0}),
    ],
)
def test_latencies_by_nearest_rank(count: int, expected: dict[str, float]) -> None:
    report = Report({"post": [n / 1000 for n in range(count, 0, -1)]})
    assert report.latencies("post") == expected


def test_one_right_answer_is_hope() -> None:
    assert Report({}, wrong=HOPELESS).is_hopeless
    assert not Report({}, wrong=HOPELESS, right=1).is_hopeless


def test_what_did_not_come_through_is_not_timed() -> None:
    report = Report.of(["login"])
    with pytest.raises(WrongAnswerError), report.timed("login"):
        raise WrongAnswerError
    assert report.steps == {"login": []}


async def test_what_is_wrong_is_told_with_its_step_and_only_the_first_few() -> None:
    async def live(stage: Stage, name: str) -> None:
        async with stage.step("post"):
            with stage.report.timed("post"):
                await asyncio.sleep(0)
            if name != "d3":
                raise WrongAnswerError("no reply")

    report = await play(live, [f"d{n}" for n in range(10)], ["post"], Pace(concurrency=1))
    assert (report.right, report.wrong, len(report.steps["post"])) == (1, 9, 10)
    assert report.errors == [f"d{n}: post: no reply" for n in (0, 1, 2, 4, 5)]
    assert len(report.errors) == TOLD


async def test_a_step_that_takes_too_long() -> None:
    async def live(stage: Stage, _: str) -> None:
        async with stage.step("login"):
            await asyncio.Event().wait()

    report = await play(live, ["d"], ["login"], Pace(timeout=0.01))
    assert report.errors == ["d: login: no answer within 0.01 s"]


async def test_an_interrupted_request_is_waited_for() -> None:
    """Otherwise its device would be there after the last one was deleted."""
    asked, answered = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def ask() -> None:
        asked.set()
        await answered.wait()
        done.append("asked")

    async def live(stage: Stage, _: str) -> None:
        await stage.whole(ask())

    playing = asyncio.create_task(play(live, ["d"], [], Pace()))
    await asked.wait()
    playing.cancel()
    asyncio.get_running_loop().call_soon(answered.set)
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert done == ["asked"]


async def test_an_interrupted_request_that_is_never_answered_is_given_up() -> None:
    async def live(stage: Stage, _: str) -> None:
        await stage.whole(asyncio.sleep(3_600))

    before = asyncio.all_tasks()
    playing = asyncio.create_task(play(live, ["d"], [], Pace(timeout=0.01)))
    await until(lambda: len(asyncio.all_tasks() - before) > 2, "the request")
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    await until(lambda: asyncio.all_tasks() == before, "the end of the request")


async def test_no_more_than_may_live_at_the_same_time() -> None:
    living: list[str] = []
    most = 0

    async def live(_: Stage, name: str) -> None:
        nonlocal most
        living.append(name)
        most = max(most, len(living))
        await asyncio.sleep(0)
        living.remove(name)

    report = await play(live, [str(n) for n in range(20)], [], Pace(concurrency=3))
    assert (report.right, most) == (20, 3)
