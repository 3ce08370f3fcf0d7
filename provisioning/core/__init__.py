"""The verbs of the house, by subject: no vendor word, no HTTP, no MQTT.

    login      judge: may this claim log in, and what must be written first?
    register   a claimant with its product's secret gets a device by name, many at once
    register_certificate   the same, where devices have certificates
    activate   the writes that logins need, in groups: sessions of dynamic activation, first logins
    enrol      a proven claimant gets its device
    registry   what administrators do to products, groups and devices
    load       the same in bulk; load_claims and load_accounts: of devices that are claimed, of accounts
    accounts   tenants: create, prove, rotate, delete; refresh tokens; access: the tokens of their applications
    importing  rows into the registry, with a result for each
    pki        X.509 without storage: keys, certificates, requests, names
    signing    what authorities sign with, and what they sign
    chain      may this leaf be trusted? paths and name constraints
    revocation what CRLs and OCSP responses are made of
    ca         authorities: create, import, rotate, distrust
    certify    leaves: issue, renew, re-key, adopt
    inventory  what becomes of them: hold, revoke, replace, warn
    publish    CRLs and OCSP responses from the inventory
    enrol_certificate   a proven device gets its certificate
    updates    of software: offered, reported on; policy, policy_syntax: for whom; links: to images; version
    presence   who is connected, told to the database now and then
    blocking   identities that were refused too often
    rates      so many times a second
    pacing     how soon a device may come again
    gateway    a device speaks for others that have no connection
    generate   keys and secrets

A verb takes the transaction first and never commits.
"""
