"""EnOS: HTTP bootstrap (DPS), MQTT login and dynamic activation.

    wire   signatures and fields, which all requests have; read, check, write:
    dps_wire   bootstrap and connection info, and the table of errors
    mqtt_wire  CONNECT, topics, the activation payload, and the table of CONNACK codes
    http   POST /{seg}/bootstrap and /{seg}/get/conn
    mqtt   CONNECT -> claim -> admission; what the cloud answers to messages
    rows   the registry as NDJSON rows
    certificates, certificate_wire   POST /connect-service/…/certificates: what applications ask of the X.509 service

The vendor's own words are spoken here and nowhere else.
"""
