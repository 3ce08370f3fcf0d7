"""Tencent Cloud IoT Hub: devices register with their product's secret, and log in with a key or a certificate.

wire          registration: requests and their signatures; pure
answers       registration: answers and errors; pure
payload       the encrypted part of an answer; pure
http          POST /device/register, POST /register/dev
certificates  registration in products whose devices have certificates
nonces        which proofs were used already
rows          the registry as NDJSON rows; how keys and secrets look
mqtt          the protocol as the rest of the house sees it; CONNECT -> claim -> admission
mqtt_wire     user names, passwords, topics
gateway_wire  what gateways say about the devices behind them, and the answers; pure
gateway       serves it
"""
