"""The TLS contexts of a listener: which certificate it shows to whom, and by which authorities it judges clients.

The default context lives as long as the listener. A client that names the host it wants (SNI, RFC 6066, 3) is shown the
certificate that was loaded for that name; whoever names none, or one that is not known, is shown the default.
"""

import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509

from provisioning.core import chain, pki


def _context(verify: ssl.VerifyMode, alpn: tuple[str, ...]) -> ssl.SSLContext:
    """TLS 1.2 and 1.3; no renegotiation, no tickets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = verify
    # A company's issuing authority is an anchor by itself: its root would let in all that the root has ever certified.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols(list(alpn))
    return context


@dataclass(frozen=True, slots=True)
class Files:
    """Where a server certificate with its chain, and its key, are."""

    certificate: Path
    key: Path

    def stamp(self) -> tuple[float, float]:
        """Changes when one of them does. Raises: OSError."""
        return self.certificate.stat().st_mtime, self.key.stat().st_mtime

    def hosts(self) -> tuple[str, ...]:
        """The host names of the certificate; a leading `*.` stands for one label (RFC 9525, 6.3).

        Raises:
            OSError: it cannot be read.
            Refusal: MALFORMED, it is none, or has no host name.
        """
        leaf = pki.read_certificate(self.certificate.read_bytes())
        names = tuple(each.value.lower() for each in chain.alternative_names(leaf) if isinstance(each, x509.DNSName))
        if not names:
            raise chain.malformed("certificate", "has no host name by which it could be chosen (DNS, subjectAltName)")
        return names


class Contexts:
    """What one listener shows: `default`, and for the names of each pair of `hosts` a context of its own, by SNI.

    All of them judge clients in the same way: whom a client asks for does not change what it has to show.
    """

    def __init__(self, verify: ssl.VerifyMode, alpn: tuple[str, ...], hosts: Sequence[Files]) -> None:
        self._make = partial(_context, verify, alpn)
        self._anchors = ""
        self._hosts: dict[Files, tuple[tuple[str, ...], ssl.SSLContext] | None] = dict.fromkeys(hosts)
        self._named: dict[str, ssl.SSLContext] = {}
        self.default = self._make()
        if hosts:
            self.default.sni_callback = self._choose

    def trust(self, anchors: str) -> None:
        """Take certificates of clients by `anchors` (PEM), too."""
        self._anchors = anchors
        for context in (self.default, *(loaded[1] for loaded in self._hosts.values() if loaded)):
            context.load_verify_locations(cadata=anchors)

    def load(self, files: Files) -> None:
        """Show `files` by default. Raises: OSError, ssl.SSLError; nothing has changed then."""
        # A context whose new certificate is loaded, and then its key is not, is left with no key at all.
        for context in (self._make(), self.default):
            _load(context, files)

    def load_host(self, files: Files) -> None:
        """Show `files`, of `hosts`, to whoever asks for their names; of two with one name the first is shown.

        Raises:
            OSError, ssl.SSLError, Refusal: they cannot be used; nothing has changed then.
        """
        context = self._make()
        _load(context, files)
        if self._anchors:
            context.load_verify_locations(cadata=self._anchors)
        self._hosts[files] = files.hosts(), context
        every = [loaded for loaded in self._hosts.values() if loaded]
        self._named = {name: context for names, context in reversed(every) for name in names}

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        if name:
            name = name.lower().rstrip(".")
            found = self._named.get(name) or self._named.get(f"*.{name.partition('.')[2]}")
            if found:
                connection.context = found


def _load(context: ssl.SSLContext, files: Files) -> None:
    """Raises: OSError, ssl.SSLError."""
    # An empty passphrase, so that an encrypted key is an error and not a question to the terminal.
    context.load_cert_chain(files.certificate, files.key, password="")


class _Hook:
    """In place of `sys.unraisablehook`: silent about server names."""

    def __init__(self, before: Callable[["sys.UnraisableHookArgs"], object]) -> None:
        self._before = before

    def __call__(self, told: "sys.UnraisableHookArgs") -> None:
        if not (isinstance(told.exc_value, UnicodeDecodeError) and isinstance(told.object, bytes)):
            self._before(told)


def take_any_name() -> None:
    """Let nobody write tracebacks to stderr by a server name that is not ASCII. For the whole process; safe to repeat.

    Python cannot hand such a name to a callback: it ends the handshake, which has its line, and tells
    `sys.unraisablehook` of the name.
    """
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)
