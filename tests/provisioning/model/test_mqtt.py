from provisioning.model.mqtt import Connect, Message


def test_what_a_session_goes_by_has_nothing_that_proves() -> None:
    """A session may last for months: neither proofs nor long names are kept for it."""
    will = Message("t", b"gone")
    connect = Connect(5, "c", "u", b"proof", False, 60, will, 120, 10, 1_000)
    assert connect.terms(wills=True) == Connect(5, "", None, None, False, 60, will, 120, 10, 1_000)
    assert connect.terms(wills=False).will is None
