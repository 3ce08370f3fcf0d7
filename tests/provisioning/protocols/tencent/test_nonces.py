from provisioning.protocols.tencent.nonces import Nonces


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_proof_is_new_once() -> None:
    nonces = Nonces(window=10, clock=Clock())
    assert nonces.use("a")
    assert not nonces.use("a")
    assert nonces.use("b")


def test_it_is_forgotten_with_the_window() -> None:
    clock = Clock()
    nonces = Nonces(window=10, clock=clock)
    nonces.use("a")
    clock.now += 9.9
    assert not nonces.use("a")
    clock.now += 0.1
    assert nonces.use("a"), "a repetition does not keep it longer"


def test_memory_is_bounded() -> None:
    nonces = Nonces(window=10, clock=Clock(), size=100)
    for n in range(1_000):
        assert nonces.use(n)
    assert len(nonces) == 100
    assert not nonces.use(999)
    assert nonces.use(0), "the oldest are forgotten first"
