"""The verbs of the house, by subject: no vendor word, no HTTP, no MQTT.

    login      judge: may this claim log in, and what must be written first?
    activate   the writes that logins need, in groups: sessions of dynamic activation, first logins
    enrol      a proven claimant gets its device
    registry   what administrators do to products, groups and devices
    load       the same in bulk
    importing  rows into the registry, with a result for each
    pki        X.509 without storage: keys, requests, authorities, leaves
    chain      may this leaf be trusted? paths and name constraints
    revocation what CRLs and OCSP responses are made of
    certify    authorities and certificates: make, issue, renew, revoke
    publish    CRLs and OCSP responses from the inventory
    enrol_certificate   a proven device gets its certificate
    updates    of software: offered, reported on; policy, policy_syntax: for whom; links: to images; version
    presence   who is connected, told to the database now and then
    blocking   identities that were refused too often
    generate   keys and secrets

A verb takes the transaction first and never commits.
"""
