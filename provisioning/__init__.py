"""Gatehouse: stands where the vendor's cloud stood, and answers as it did.

    model/      what the house talks about: plain values
    store/      PostgreSQL: the only SQL, the only place that seals secrets
    core/       the verbs, by subject
    web/        what all HTTP operations share
    protocols/  one folder per vendor: wire, http, mqtt, rows
    admission   CONNECT -> verdict: ask each protocol, look up, judge, write
    cli/        the command `gatehouse`
    app         puts it all together and runs it
    settings, log, metrics   what everybody uses

Imports point down: model < store < core < web < protocols < admission < app < cli. The package `broker` beside this one
imports the model alone; the admission is handed to it.
"""
