"""Who is connected: one connection for each identity, the newest."""

from collections.abc import Iterator
from typing import Protocol

from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason


class Holder(Protocol):
    """A connection that holds a session."""

    @property
    def device_id(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def certificate(self) -> tuple[int, str] | None:
        """Authority id and serial number of the certificate that the session stands on."""
        ...

    def taken_over(self) -> None:
        """A newer connection has come for the same identity."""
        ...

    def dismiss(self, reason: Reason) -> None:
        """End the session, after telling the device why if its protocol has words for that."""
        ...


class Sessions:
    """The session is keyed by what the device is, not by the MQTT client id: that holds a timestamp."""

    def __init__(self) -> None:
        self._holders: dict[Identity, Holder] = {}
        self._by_certificate: dict[tuple[int, str], Holder] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def __iter__(self) -> Iterator[tuple[Identity, Holder]]:
        return iter(list(self._holders.items()))

    def find(self, identity: Identity) -> Holder | None:
        return self._holders.get(identity)

    def enter(self, identity: Identity, holder: Holder) -> None:
        """The newest connection takes the session over; the older one is closed."""
        older = self._holders.get(identity)
        self._holders[identity] = holder
        if holder.certificate is not None:
            self._by_certificate[holder.certificate] = holder
        if older is not None:
            older.taken_over()

    def leave(self, identity: Identity, holder: Holder) -> bool:
        """True: the holder had the session; False: a newer one has it."""
        certificate = holder.certificate
        if certificate is not None and self._by_certificate.get(certificate) is holder:
            del self._by_certificate[certificate]
        if self._holders.get(identity) is not holder:
            return False
        del self._holders[identity]
        return True

    def give_up(self, identity: Identity, device_id: int) -> bool:
        """End the session of this device: it has a newer one at another process. False: it has none here."""
        holder = self._holders.get(identity)
        if holder is None or holder.device_id != device_id:
            return False
        holder.taken_over()
        return True

    def kick(self, identity: Identity, reason: Reason) -> bool:
        """End the identity's session. False: it has none here."""
        holder = self._holders.get(identity)
        if holder is None:
            return False
        holder.dismiss(reason)
        return True

    def kick_certificate(self, certificate: tuple[int, str], reason: Reason) -> bool:
        """End the session that stands on the certificate. False: none does here."""
        holder = self._by_certificate.get(certificate)
        if holder is None:
            return False
        holder.dismiss(reason)
        return True
