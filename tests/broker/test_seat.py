import pytest

from broker.seat import FAILURE, refused_subscription


@pytest.mark.parametrize(("level", "code"), [(3, 0x80), (4, 0x80), (5, 0x87)])
def test_refused_subscription(level: int, code: int) -> None:
    """MQTT 3.1.1, 3.9.3 and v5 3.9.3."""
    assert refused_subscription(level) == code >= FAILURE
