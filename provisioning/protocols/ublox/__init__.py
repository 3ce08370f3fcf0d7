"""u-blox Security Services, API 1.1.29: the 47 operations for applications, and a device side of our own.

routes      all operations in one table: path, guard, reader, verb, writer
http        serves the table; AuthTokens, limits
call        what a row of the table is, and what a verb has at hand
reading     the forms that read bodies; writing and names: wire; refusals: statuses and sentences
selection   which devices an operation is about
auth        authentication
profile     device profiles, and what their devices get when they bootstrap
device      devices, whitelist, provisioning; bodies: device_wire
provisioning   what devices are provisioned with: desired, current
tag         tags of devices and device profiles
rootca      root CAs, their CRLs and devices
certificate orders for device certificates, and their revocation; issuing: what heartbeats do about both
expiry      what accounts are told before certificates and root CAs expire
notices     what the account is told: notifications and webhook events
webhook     where events are posted
machine     what modules do: bootstrap, heartbeat; the wire of both: machine_wire, machine_http
rows        accounts, device profiles and devices as NDJSON rows
openapi     the table of routes as an OpenAPI document, in the words of `words`; schemas: its JSON Schemas
vendor      the protocol as the rest of the house sees it
"""
