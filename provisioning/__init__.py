"""Gatehouse: stands where the vendor's cloud stood, and answers as it did.

    model/      what the house talks about: plain values
    store/      PostgreSQL: the only SQL, the only place that seals secrets
    core/       the verbs, by subject
    contexts    TLS: which certificate is shown to whom (SNI), and who is trusted
    aws         clients of AWS; credentials for devices
    images/     content of updates, on disk or in S3; rollout: with their updates
    web/        what all HTTP operations share
    protocols/  one folder per vendor: wire, http, mqtt, rows
    admission   CONNECT -> verdict: ask each protocol, look up, judge, write
    opening     master key, database, migrations
    demo        the demo fleet and its guard
    tls         the server's certificates, kept up while connections go on
    follow      what is changed elsewhere bites here
    upkeep      what is done now and then: old events go, certificates are looked after
    outbox      webhooks are told what has happened; sending: one attempt
    gauges      what /metrics reads from the running parts
    application the HTTP application: the routes of all; doors: where listeners are bound, how much they take
    app         puts it all together and runs it
    cli/        the command `gatehouse`
    settings, log, metrics, tasks   what everybody uses; sections: what the settings may hold
    handshake   TLS handshakes with a deadline and a line, the same for HTTP and MQTT

Imports point down, in the order of this list with `cli` on top. The package `broker` beside this one
imports the model and the handshake alone; the admission is handed to it.
"""
