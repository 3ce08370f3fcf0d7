"""Gatehouse: stands where the vendor's cloud stood, and answers as it did.

    model/      what the house talks about: plain values
    store/      PostgreSQL: the only SQL, the only place that seals secrets
    core/       the verbs, by subject
    aws         clients of AWS; credentials for devices
    images/     content of updates, on disk or in S3; rollout: with their updates
    web/        what all HTTP operations share
    protocols/  one folder per vendor: wire, http, mqtt, rows
    admission   CONNECT -> verdict: ask each protocol, look up, judge, write
    opening     master key, database, migrations
    demo        the demo fleet and its guard
    follow      what is changed elsewhere bites here
    app         puts it all together and runs it
    cli/        the command `gatehouse`
    settings, log, metrics   what everybody uses

Imports point down, in the order of this list with `cli` on top. The package `broker` beside this one
imports the model alone; the admission is handed to it.
"""
