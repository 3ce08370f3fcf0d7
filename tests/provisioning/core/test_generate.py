import re
from collections.abc import Callable

import pytest

from provisioning.core import generate


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (generate.secret, r"[A-Za-z0-9_-]{32}"),
        (generate.product_key, r"[A-Za-z0-9]{8}"),
        (generate.device_key, r"[A-Za-z0-9]{10}"),
        (generate.asset_id, r"[A-Za-z0-9]{8}"),
    ],
)
def test_what_is_made_has_its_form_and_is_new(make: Callable[[], str], form: str) -> None:
    made = [make() for _ in range(200)]
    assert all(re.fullmatch(form, one) for one in made)
    assert len(set(made)) == 200
