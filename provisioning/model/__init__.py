"""What the house talks about, as plain values: no I/O, no clock, no vendor word, no import from outside this folder.

    identity    which device of which product of which protocol; the key of a session
    refusal     the one exception by which a request is turned down, and its reasons
    lifecycle   what may become of a device: a table
    spec        what an administrator states about the registry
    registry    product, enrolment group and device as the registry knows them
    credential  what a login is judged by
    events      what has happened, in the past tense; the outbox stores them
    mqtt        CONNECT, will and message as every protocol sees them
    admission   the answer to a CONNECT: who it is, what it may do, what must be pushed

Everything else imports these; they import nothing but each other.
"""
