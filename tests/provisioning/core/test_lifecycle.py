"""The life cycle as the verbs of the core walk it: every state, every step."""

import pytest

from provisioning.model.lifecycle import TABLE, State, Step, after
from provisioning.model.refusal import Reason, Refusal

REGISTERED, ALLOCATED, ACTIVATED = State.REGISTERED, State.ALLOCATED, State.ACTIVATED


@pytest.mark.parametrize(
    ("state", "step", "expected"),
    [
        (REGISTERED, Step.ALLOCATE, ALLOCATED),
        (REGISTERED, Step.LOGIN, None),
        (REGISTERED, Step.RESET, None),
        (ALLOCATED, Step.ALLOCATE, None),
        (ALLOCATED, Step.LOGIN, ACTIVATED),
        (ALLOCATED, Step.RESET, REGISTERED),
        (ACTIVATED, Step.ALLOCATE, None),
        (ACTIVATED, Step.LOGIN, ACTIVATED),
        (ACTIVATED, Step.RESET, REGISTERED),
    ],
)
def test_every_step_from_every_state(state: State, step: Step, expected: State | None) -> None:
    if expected is not None:
        assert after(state, step) is expected
        return
    with pytest.raises(Refusal) as caught:
        after(state, step)
    assert caught.value.reason is Reason.ILLEGAL_TRANSITION
    assert caught.value.detail == {"state": str(state), "step": str(step)}


def test_the_table_has_no_other_rows() -> None:
    assert len(TABLE) == 5
    assert {state for state, _ in TABLE} == set(State)
