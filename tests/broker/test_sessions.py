from broker.sessions import Sessions
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason

ONE, TWO = Identity("enos", "pk1", "dk1"), Identity("enos", "pk1", "dk2")


class Holder:
    device_id = 1
    epoch = 1
    certificate: tuple[int, str] | None = None

    def __init__(self) -> None:
        self.told: list[object] = []

    def taken_over(self) -> None:
        self.told.append("taken over")

    def dismiss(self, reason: Reason) -> None:
        self.told.append(reason)


def test_the_newest_holds_the_session() -> None:
    sessions, older, newer = Sessions(), Holder(), Holder()
    sessions.enter(ONE, older)
    assert older.told == []
    sessions.enter(ONE, newer)
    assert (older.told, newer.told) == (["taken over"], [])
    assert sessions.find(ONE) is newer
    assert len(sessions) == 1


def test_the_newer_is_there_before_the_older_is_told() -> None:
    """What the older does on its way out must find the session taken."""
    sessions, newer = Sessions(), Holder()

    class Older(Holder):
        def taken_over(self) -> None:
            assert sessions.find(ONE) is newer
            assert not sessions.leave(ONE, self)
            super().taken_over()

    older = Older()
    sessions.enter(ONE, older)
    sessions.enter(ONE, newer)
    assert older.told
    assert sessions.find(ONE) is newer


def test_only_the_holder_leaves() -> None:
    sessions, older, newer = Sessions(), Holder(), Holder()
    sessions.enter(ONE, older)
    sessions.enter(ONE, newer)
    assert not sessions.leave(ONE, older)
    assert sessions.leave(ONE, newer)
    assert not sessions.leave(ONE, newer)
    assert len(sessions) == 0


def test_kick() -> None:
    sessions, one, two = Sessions(), Holder(), Holder()
    sessions.enter(ONE, one)
    sessions.enter(TWO, two)
    assert sessions.kick(ONE, Reason.DISABLED)
    assert (one.told, two.told) == ([Reason.DISABLED], [])
    assert sessions.find(ONE) is one, "it leaves when its connection has ended"
    assert not sessions.kick(Identity("enos", "pk1", "dk3"), Reason.DISABLED)


def test_a_session_that_is_elsewhere_now_is_given_up() -> None:
    sessions, one = Sessions(), Holder()
    sessions.enter(ONE, one)
    assert not sessions.give_up(TWO, one.device_id)
    assert not sessions.give_up(ONE, one.device_id + 1), "that is another device, which had the name before"
    assert one.told == []
    assert sessions.give_up(ONE, one.device_id)
    assert one.told == ["taken over"]
    assert sessions.find(ONE) is one, "it leaves when its connection has ended"


def test_iteration_bears_changes() -> None:
    sessions = Sessions()
    for number in range(10):
        sessions.enter(Identity("enos", "pk1", str(number)), Holder())
    for identity, holder in sessions:
        sessions.leave(identity, holder)
    assert len(sessions) == 0


def test_a_certificate_leads_to_its_session() -> None:
    sessions, older, newer = Sessions(), Holder(), Holder()
    older.certificate = newer.certificate = (1, "ab")
    sessions.enter(ONE, older)
    sessions.enter(ONE, newer)
    assert not sessions.leave(ONE, older)
    assert sessions.kick_certificate((1, "ab"), Reason.CERTIFICATE_REQUIRED)
    assert newer.told == [Reason.CERTIFICATE_REQUIRED]
    assert sessions.leave(ONE, newer)
    assert not sessions.kick_certificate((1, "ab"), Reason.CERTIFICATE_REQUIRED)
