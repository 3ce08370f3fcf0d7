"""All operations: path, guard, reader, verb, writer. A test compares the table with the contract, section 4."""

from typing import Final

from provisioning.protocols.ublox import auth
from provisioning.protocols.ublox.call import AnyOperation, Guard, Operation

OPEN, TOKEN, SUBSCRIBED = Guard

ROUTES: Final[tuple[AnyOperation, ...]] = (
    # Authentication
    Operation("/authenticate", OPEN, auth.Authenticate, auth.authenticate, auth.write_tokens),
    Operation("/refreshauthtoken", OPEN, auth.Refresh, auth.refresh, auth.write_tokens),
    # Device profile
    # Device
    # End-to-end services
    # Information
    # Root CA
    # Device certificates
    # Webhooks
    # Tags
)
