"""The only SQL of the house, and the only place that seals and opens secrets.

    migrations/  numbered SQL files; migrate.py applies them
    embedded     the PostgreSQL that pip installs
    database     pool, transaction, errors of the database -> Refusal
    sealing      AES-256-GCM under the master key
    batch        group commit: what arrives together is written together
    products groups devices events presence authorities certificates claims tokens updates   one module per table family
    lists        any page of a long list, and its length, without reading the pages before
    modules profiles whitelist tags   what accounts have, in those lists
    tenants      what import and export read and write of accounts, in bulk
    registrations   devices that register themselves, and how many of a product have
    bindings     which gateway speaks for which device
    logins       what a login reads and writes, for many devices in one statement
    credentials  the cache of what logins are judged by
    holdings     the same for certificates
    diagnosis    what `gatehouse doctor` asks
    changes      LISTEN: what other processes changed

Rows become frozen dataclasses of `model` at once.
"""
