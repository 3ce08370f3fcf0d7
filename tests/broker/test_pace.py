import pytest

from broker import pace


def test_a_window_takes_so_many() -> None:
    began, taken, now, passed = 0.0, 0, 1_000.0, []
    for _ in range(10):
        while wait := pace.wait(began, taken, 3, now):
            now += wait
        began, taken = pace.count(began, taken, now)
        passed.append(now - 1_000)
        now += 0.25
    assert passed == [0, 0.25, 0.5, 1, 1.25, 1.5, 2, 2.25, 2.5, 3]


@pytest.mark.parametrize(
    ("taken", "now", "wait"), [(2, 5.0, 0), (3, 5.0, 1), (3, 5.75, 0.25), (3, 6.0, 0), (9, 99.0, 0)]
)
def test_wait(taken: int, now: float, wait: float) -> None:
    assert pace.wait(5.0, taken, 3, now) == wait
