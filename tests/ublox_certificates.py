"""An account's desk without the wire: operations, and heartbeats as far as certificates ask."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from provisioning.core import pki
from provisioning.core.access import Access
from provisioning.core.pki import PrivateKey
from provisioning.model.account import Account
from provisioning.model.certificate import Certificate
from provisioning.model.module import Module
from provisioning.model.refusal import Refusal
from provisioning.model.root import Root
from provisioning.protocols.ublox import provisioning, refusals, wire
from provisioning.protocols.ublox.call import Call, Guard
from provisioning.protocols.ublox.issuing import Heartbeat, NewCommand, certificate_commands
from provisioning.protocols.ublox.routes import ROUTES
from provisioning.sections import Ublox
from provisioning.store import certificates, commands, modules, roots
from provisioning.store.database import Database
from tests.ublox import Clock, make_account, make_devices

CA, OTHER_CA = "example.com", "test.example.com"
UID, OTHER = "0002000089280087", "0002000089280088"
INSTALL, REMOVE = "INSTALL_CERTIFICATE", "REMOVE_CERTIFICATE"
SUCCESS = {"message": wire.SUCCESS}


def csr_of(key: PrivateKey) -> pki.Request:
    """As a device sends it: its subject does not matter."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(pki.make_subject("whoever"))
    return pki.read_csr(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


def installed(given: list[NewCommand]) -> x509.Certificate:
    """The certificate of the one command, which installs it."""
    (command,) = given
    assert command.kind == INSTALL, command
    return x509.load_pem_x509_certificate(str(command.body["Certificate"]).encode())


@dataclass
class Desk:
    database: Database
    account: Account
    clock: Clock = field(default_factory=Clock)

    async def ok(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The reply of an operation. Raises: Refusal."""
        row = next(each for each in ROUTES if each.path == path)
        form = row.reader.read(body or {})
        async with self.database.begin() as tx:
            if row.guard is Guard.SUBSCRIBED:
                assert self.account.certificates, "the wire would have refused it"
            call = Call(
                tx=tx, account=self.account, now=self.clock(), database=self.database, access=Access("i"),
                settings=Ublox(),
            )  # fmt: skip
            result = await row.verb(call, form)
        return row.writer(result)

    async def refused(self, path: str, body: dict[str, Any], status: int, message: str) -> None:
        with pytest.raises(Refusal) as caught:
            await self.ok(path, body)
        row = refusals.write_error(caught.value)
        assert (row.status, row.message) == (status, message), f"{path} {body}: {caught.value}"

    async def create(self, name: str = CA, **more: int) -> Any:
        body = {"CAName": name, "CACertificateValidity": 1825, "DeviceCertificateValidity": 365} | more
        return await self.ok("/ztp/rootca/create", body)

    async def root(self, name: str = CA) -> Root:
        async with self.database.begin() as tx:
            found = await roots.find(tx, self.account.id, name)
        assert found is not None, f"{name} is not the account's"
        return found

    async def provision(self, uid: str = UID, ca: str | None = CA, state: str = "ENABLED") -> None:
        wanted = {"ZTPV1": state} | ({"CAName": ca} if ca else {})
        await self.ok("/device/provisioning/set", {"ROTPublicUIDs": [uid], "Provisioning": wanted})

    async def module(self, uid: str = UID) -> Module:
        async with self.database.begin() as tx:
            found = await modules.by_uid(tx, uid)
        assert found is not None
        return found

    async def beat(
        self, uid: str = UID, csr: pki.Request | None = None, *, acknowledge: bool = True
    ) -> list[NewCommand]:
        """A heartbeat of an activated module. `acknowledge`: all that it was told before is done."""
        now = self.clock()
        async with self.database.begin() as tx:
            known = await modules.by_uid(tx, uid)
            assert known is not None
            (module,) = await modules.lock(tx, [known.id])
            current = provisioning.synchronize(module.current, module.desired, now)
            current_ca = module.desired_ca or module.current_ca
            await modules.update(tx, module.id, {"current": current, "current_ca": current_ca})
            (module,) = await modules.by_ids(tx, [module.id])
            if acknowledge:
                await commands.drop(tx, module.id, [each.id for each in await commands.outstanding(tx, module.id)])
            work = Heartbeat(tx=tx, module=module, csr=csr, now=now)
            given = await certificate_commands(work)
            for each in given:
                await commands.add(tx, module.id, each.kind, each.body, now)
            return given

    async def certificate(self, uid: str = UID) -> Certificate:
        """The one that the module has now."""
        module = await self.module(uid)
        assert module.certificate_id is not None, f"{uid} has no certificate"
        async with self.database.begin() as tx:
            found = await certificates.by_id(tx, module.certificate_id)
        assert found is not None
        return found

    async def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        async with self.database.begin() as tx:
            return [dict(row) for row in await tx.db.fetch(statement, *values)]

    async def usage(self) -> dict[str, int]:
        return {row["kind"]: row["n"] for row in await self.rows("SELECT kind, sum(n)::int AS n FROM usage GROUP BY 1")}

    async def hook(self, kind: str) -> None:
        """A webhook for these events."""
        await self.rows(
            "INSERT INTO webhook (account_id, url, kind, authorization_token, created_at) "
            "VALUES ($1, 'https://a', $2, '', $3)",
            self.account.id, kind, self.clock(),
        )  # fmt: skip

    async def told(self) -> list[str]:
        """Bodies of all deliveries, oldest first."""
        return [row["body"] for row in await self.rows("SELECT body FROM delivery ORDER BY id")]


async def open_desk(database: Database, *uids: str, serial: str | None = "123234354", **more: Any) -> Desk:
    """Of a new account with these modules; their serial number is in the production log and sealed."""
    account = await make_account(database, **more)
    await make_devices(database, account, uids, serial=serial)
    return Desk(database, account)
