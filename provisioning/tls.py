"""The TLS side of the listeners: server certificate and trust anchors, renewed while connections go on.

New handshakes see what was loaded last. What cannot be taken out of a context again (an anchor that is no longer
trusted) is refused after the handshake: each login looks its certificate up in the inventory.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from provisioning import log
from provisioning.contexts import Contexts, Files, take_any_name
from provisioning.core import ca, certify, importing, pki
from provisioning.core.signing import Urls
from provisioning.model.certificate import Authority, Profile, Status
from provisioning.model.refusal import Refusal
from provisioning.opening import StartError
from provisioning.settings import Settings
from provisioning.store import authorities, certificates
from provisioning.store.database import Database, Tx

LOOK_AGAIN: Final = 30.0
"""Seconds between two looks at the files and at the life that is left."""
ALPN: Final = ("mqtt", "x-amzn-mqtt-ca")
HTTP_ALPN: Final = ("http/1.1",)


class Tls:
    """The contexts of the listeners, and what is loaded into them. `urls`: where an authority's CRL and OCSP are."""

    def __init__(self, settings: Settings, database: Database, urls: Callable[[Authority], Urls]) -> None:
        self._settings = settings
        self._database = database
        self._urls = urls
        self._stamps: dict[Files, tuple[float, float]] = {}
        self._again = asyncio.Event()
        self._hosts = tuple(Files(each.certificate, each.key or each.certificate) for each in settings.tls.hosts)
        self._every_context = (
            Contexts(ssl.CERT_REQUIRED, ALPN, self._hosts),
            Contexts(ssl.CERT_OPTIONAL, ALPN, self._hosts),
            Contexts(ssl.CERT_OPTIONAL, (*HTTP_ALPN, *ALPN), self._hosts),
        )
        self.mqtts, self.more_mqtts, self.https = (each.default for each in self._every_context)

    @property
    def files(self) -> Files:
        tls = self._settings.tls
        if tls.certificate is not None:
            return Files(tls.certificate, tls.key or tls.certificate)
        own = self._settings.data_dir / "tls" / "server.pem"
        return Files(own, own)

    def changed(self) -> None:
        """Authorities may have come or gone."""
        self._again.set()

    async def start(self) -> None:
        """Make what is missing, and load everything.

        Raises:
            StartError: the configured files cannot be used.
        """
        key = await ca.make_key(pki.KeyType(self._settings.pki.key))
        async with self._database.begin() as tx:
            await ca.ensure_default(tx, key, now=datetime.now(UTC))
        await self._load_anchors()
        if self._settings.tls.certificate is None:
            await self._ensure_own()
        if self._hosts:
            take_any_name()
        for files in self._every():
            try:
                self._load(files)
            except (Refusal, OSError, ssl.SSLError) as error:
                raise StartError(f"tls: cannot use {files.certificate} with {files.key}: {_words(error)}") from error

    async def run(self) -> None:
        """Keep up with files, authorities and time, until cancelled."""
        while True:
            with suppress(TimeoutError):  # not `asyncio.wait_for`: before 3.12 it may swallow a cancellation
                async with asyncio.timeout(LOOK_AGAIN):
                    await self._again.wait()
            self._again.clear()
            try:
                await self._load_anchors()
                if self._settings.tls.certificate is None:
                    await self._ensure_own()
            except (Refusal, OSError, ssl.SSLError) as error:
                log.get().warning("tls.load", outcome="failed", reason=_words(error))
            for files in self._every():
                self._look_again(files)

    def _every(self) -> Iterable[Files]:
        return dict.fromkeys((self.files, *self._hosts))

    def _look_again(self, files: Files) -> None:
        try:
            if files.stamp() != self._stamps.get(files):
                self._load(files)
                log.get().info("tls.loaded", certificate=str(files.certificate))
        except (Refusal, OSError, ssl.SSLError) as error:
            log.get().warning(
                "tls.load", outcome="failed", certificate=str(files.certificate), reason=_words(error)
            )  # fmt: skip

    def _load(self, files: Files) -> None:
        """Raises: Refusal, OSError, ssl.SSLError."""
        stamp = files.stamp()
        for contexts in self._every_context:
            if files in self._hosts:
                contexts.load_host(files)
            if files == self.files:
                contexts.load(files)
        self._stamps[files] = stamp

    async def _load_anchors(self) -> None:
        async with self._database.read() as tx:
            trusted = await authorities.trusted(tx, datetime.now(UTC))
        if trusted:
            anchors = pki.write_pem(*(each.certificate for each in trusted))
            for contexts in self._every_context:
                contexts.trust(anchors)

    async def _ensure_own(self) -> None:
        """A server certificate with the right names and a third of its life left, of an authority that is trusted.

        After a rotation the old authority's stays until it needs renewal: devices that do not know the new one yet are
        not locked out.
        """
        now = datetime.now(UTC)
        names = pki.read_names(self._settings.tls.names)
        async with self._database.begin() as tx:
            leaf = self._own()
            if leaf is not None and await self._is_good(tx, leaf, names, now):
                return
            authority = await ca.default(tx)
            key = pki.new_key()
            issued = await certify.issue_with_key(
                tx, authority, key, pki.make_subject(self._settings.tls.names[0], "Gatehouse"), now=now,
                days=self._settings.tls.days, profile=Profile.SERVER, names=names, urls=self._urls(authority),
            )  # fmt: skip
        path = self.files.certificate
        path.parent.mkdir(parents=True, exist_ok=True)
        text = issued.key + certify.bundle(authority, issued.certificate)
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        temporary.replace(path)

    def _own(self) -> x509.Certificate | None:
        """The certificate in our own file; None: there is none that can be read."""
        try:
            text = self.files.certificate.read_text("ascii")
            return pki.read_certificates(text[text.index("-----BEGIN CERTIFICATE") :])[0]
        except (OSError, ValueError, Refusal, IndexError):
            return None

    async def _is_good(
        self, tx: Tx, leaf: x509.Certificate, names: tuple[x509.GeneralName, ...], now: datetime
    ) -> bool:
        try:
            has = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound):
            return False
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        known = await certificates.by_fingerprint(tx, pki.fingerprint(pki.der(leaf)))
        trusted = {each.id for each in await authorities.trusted(tx, now)}
        return (
            set(has) == set(names)
            and now < leaf.not_valid_after_utc - life / 3
            and known is not None
            and known.status is Status.VALID
            and known.authority_id in trusted
        )


def _words(error: Exception) -> str:
    return importing.words(error) if isinstance(error, Refusal) else str(error)
