"""X.509 for everybody: what no vendor owns and every certificate points to.

    wire   addresses, base64 and PKCS#7 on the wire, refusals in words: pure
    crls   CRLs in memory, made anew when there is something new to say
    http   /pki/{authority}/…: authority certificates, CRLs, OCSP
    est    /.well-known/est/…: enrolment over secure transport (RFC 7030)

`urls` names the addresses that stand in certificates. Build the routes once and give them to every site: what they
keep in memory is theirs. No vendor is known here: whom a user name names, the vendors' folders say.
"""

from provisioning.protocols.x509.wire import urls

__all__ = ["urls"]
