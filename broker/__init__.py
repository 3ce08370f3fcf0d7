"""The MQTT door: from the socket to a session. It imports `provisioning.model` only; `admit` is handed to it.

    packets     MQTT 3.1, 3.1.1 and 5 on the wire: bytes -> value -> bytes
    properties  the properties of MQTT 5, and the data types under all packets
    listener    asyncio.Protocol: deadline, caps, CONNECT -> admit -> CONNACK
    sessions    who is connected: identity -> connection; take-over, kick, counts
    activation  serves a session that must be pushed a secret
    embedded    the embedded amqtt broker behind the listener
    plugin      the same admission as plugins of a stock amqtt broker
"""
