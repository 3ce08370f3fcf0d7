"""The cache of what logins are judged by.

A hit answers without a task. A miss joins a look-up that serves all which arrived in the same moment. Entries go when
`changes` reports that their rows changed; while that report is interrupted nothing is served from here.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from provisioning.model.credential import Credential, ProductCredential
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import logins
from provisioning.store.batch import Batcher
from provisioning.store.database import Database
from provisioning.store.sealing import SealError

TRIES: Final = 4
LONGEST_CLOSE: Final = 5.0


class Watch:
    """What happens to an identity while somebody decides about it."""

    __slots__ = ("added", "changed")

    def __init__(self) -> None:
        self.changed = False
        """What was read of it may be what was true before a change."""
        self.added = False
        """Something was added: what was missing may be there now."""


class Credentials:
    """Credentials by identity; `size` bounds the entries, `negative_ttl` (s) the life of "there is no such device"."""

    def __init__(self, database: Database, *, size: int, negative_ttl: float, clock: Callable[[], float]) -> None:
        self._database = database
        self._size = size
        self._negative_ttl = negative_ttl
        self._clock = clock
        self._known: OrderedDict[Identity, Credential] = OrderedDict()
        self._missing: OrderedDict[Identity, tuple[Credential, float]] = OrderedDict()
        self._watches: dict[Identity, set[Watch]] = {}
        self._products: dict[ProductCredential, ProductCredential] = {}
        """One object for all devices of a product: there are many of them."""
        self._serving = False
        self._batcher = Batcher(self._fetch)

    def __len__(self) -> int:
        return len(self._known) + len(self._missing)

    @property
    def depth(self) -> int:
        """How many look-ups wait."""
        return self._batcher.depth

    def get(self, identity: Identity) -> Credential | None:
        """What is known of the identity at this moment; None: `look_up`."""
        if not self._serving:
            return None
        if known := self._known.get(identity):
            self._known.move_to_end(identity)
            return known
        if missing := self._missing.get(identity):
            credential, until = missing
            if self._clock() < until:
                return credential
            del self._missing[identity]
        return None

    async def look_up(self, identity: Identity) -> Credential:
        """What the registry knows of the identity.

        Raises:
            Refusal: UNAVAILABLE when the database is away, INTERNAL when a secret does not open.
        """
        for _ in range(TRIES):
            with self.watch(identity) as watch:
                credential = await self._batcher.submit(identity)
            if not watch.changed:
                credential = self._shared(credential)
                self._keep(credential, watch)
                return credential
        raise Refusal(Reason.UNAVAILABLE, error="the device changes faster than it can be read")

    @contextmanager
    def watch(self, identity: Identity) -> Iterator[Watch]:
        """Whatever is read of the identity inside the block is current at its end unless the watch says `changed`.

        While changes are not being reported: as far as anyone can tell.
        """
        watch = Watch()
        watches = self._watches.setdefault(identity, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches and self._watches.get(identity) is watches:
                del self._watches[identity]

    def mark_activated(self, credential: Credential) -> None:
        """The device has logged in: later logins need not write."""
        assert credential.device is not None
        if self._known.get(credential.identity) is credential:
            self._known[credential.identity] = replace(credential, device=replace(credential.device, activated=True))

    def forget(self, identity: Identity) -> None:
        self._alarm(identity)
        self._known.pop(identity, None)
        self._missing.pop(identity, None)

    def forget_product(self, protocol: str, product: str) -> None:
        self._products.clear()
        for identity in [i for i in self._watches if i.product == product and i.protocol == protocol]:
            self._alarm(identity)
        for store in (self._known, self._missing):
            for identity in [i for i in store if i.product == product and i.protocol == protocol]:
                del store[identity]

    def forget_missing(self) -> None:
        """Something was added: what was missing may be there now."""
        for watches in self._watches.values():
            for watch in watches:
                watch.added = True
        self._missing.clear()

    def serve(self) -> None:
        """Changes are being reported from now on."""
        self._clear()
        self._serving = True

    def suspend(self) -> None:
        """Changes are not being reported: ask the database each time."""
        self._clear()
        self._serving = False

    def _clear(self) -> None:
        for identity in self._watches:
            self._alarm(identity)
        self._known.clear()
        self._missing.clear()
        self._products.clear()

    def _alarm(self, identity: Identity) -> None:
        for watch in self._watches.get(identity, ()):
            watch.changed = True

    def _shared(self, credential: Credential) -> Credential:
        product = credential.product
        if product is None or (shared := self._products.setdefault(product, product)) is product:
            return credential
        return replace(credential, product=shared)

    def _keep(self, credential: Credential, watch: Watch) -> None:
        if not self._serving:
            return
        if credential.device is not None:
            self._missing.pop(credential.identity, None)
            self._known[credential.identity] = credential
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        elif not watch.added:
            self._missing[credential.identity] = (credential, self._clock() + self._negative_ttl)
            if len(self._missing) > self._size // 10 + 1:
                self._missing.popitem(last=False)

    async def _fetch(self, identities: Sequence[Identity]) -> list[Credential | Exception]:
        async with self._database.read() as tx:
            found = await logins.look_up(tx, identities)
        return [Refusal(Reason.INTERNAL, error=str(one)) if isinstance(one, SealError) else one for one in found]

    async def close(self) -> None:
        await self._batcher.close(LONGEST_CLOSE)
