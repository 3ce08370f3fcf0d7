"""Ioto, the device agent of EmbedThis: registration, claim, certificates, credentials and updates.

    wire   requests and replies: pure
    refusals   their status and words, and which of them make agents erase their certificates
    http   the operations of devices
    users  the operations of an account's administrators, who show a user token
    mqtt   sessions that stand on a certificate; the protocol as the rest of the house sees it
    rows   the registry as NDJSON rows

Agents of two generations are served: the newer one has other paths for the same calls.
"""
