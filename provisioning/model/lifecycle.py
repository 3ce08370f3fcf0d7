"""The life of a device as a table: from where, by which step, to where.

Source: the EnOS life cycle (registered, allocated, activated); the other protocols use a part of it. Disabled is a flag
beside the state, as every vendor has it: a disabled device keeps its place in the table.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from provisioning.model.refusal import Reason, Refusal


class State(StrEnum):
    REGISTERED = "registered"
    """Known by its serial number; it has no product, no key and no secret yet."""
    ALLOCATED = "allocated"
    """It has product, key and secret, and has never logged in with them."""
    ACTIVATED = "activated"
    """It has logged in with its own secret."""


class Step(StrEnum):
    ALLOCATE = "allocate"
    LOGIN = "login"
    RESET = "reset"


TABLE: Final[Mapping[tuple[State, Step], State]] = {
    (State.REGISTERED, Step.ALLOCATE): State.ALLOCATED,
    (State.ALLOCATED, Step.LOGIN): State.ACTIVATED,
    (State.ACTIVATED, Step.LOGIN): State.ACTIVATED,
    (State.ALLOCATED, Step.RESET): State.REGISTERED,
    (State.ACTIVATED, Step.RESET): State.REGISTERED,
}


def after(state: State, step: Step) -> State:
    """Where `step` leads from `state`.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when the table has no such row.
    """
    try:
        return TABLE[state, step]
    except KeyError:
        raise Refusal(Reason.ILLEGAL_TRANSITION, state=str(state), step=str(step)) from None
