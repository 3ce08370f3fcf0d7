"""The MQTT door: from the socket to a session. It knows the model and the handshake only; `admit` is handed to it.

    packets     MQTT 3.1, 3.1.1 and 5 on the wire: bytes -> value -> bytes
    properties  the properties of MQTT 5, and the data types under all packets
    listener    accepts connections within limits, and takes them down again
    tls         connections that begin with a TLS handshake
    connection  asyncio.Protocol: deadlines, caps, CONNECT -> admit -> CONNACK
    seat        what sits behind an admitted connection, and what that sees of the connection
    sessions    who is connected: identity -> connection; take-over, kick, counts
    activation  serves a session that must be pushed a secret
    embedded    the embedded amqtt broker behind the listener
    client      one device's place in it: its filters, what it sends
    outbox      what is under way to it, what waits for it
    pace        messages per second, where a protocol limits them
    tables      its subscriptions and retained messages, by index
    topics      the indexes: which filters match a topic, which topics a filter
    deadlines   very many deadlines for the price of one timer
    plugin      the same admission as plugins of a stock amqtt broker

Everything runs in one event loop; a connection has no task of its own.
"""
