"""All operations: path, guard, reader, verb, writer. A test compares the table with the contract, section 4."""

from typing import Final

from provisioning.protocols.ublox import (
    auth,
    certificate,
    device,
    device_wire,
    e2e,
    info,
    info_wire,
    profile,
    rootca,
    tag,
    webhook,
    wire,
)
from provisioning.protocols.ublox.call import AnyOperation, Guard, Operation
from provisioning.protocols.ublox.reading import Nothing, Paged, Selection

OPEN, TOKEN, SUBSCRIBED = Guard

ROUTES: Final[tuple[AnyOperation, ...]] = (
    # Authentication
    Operation("/authenticate", OPEN, auth.Authenticate, auth.authenticate, auth.write_tokens),
    Operation("/refreshauthtoken", OPEN, auth.Refresh, auth.refresh, auth.write_tokens),
    # Device profile
    Operation("/deviceprofile/get", TOKEN, profile.GetProfiles, profile.get_profiles, profile.write_profiles),
    Operation(
        "/deviceprofile/bootstrapprovisioning/set", TOKEN, profile.SetBootstrapProvisioning,
        profile.set_bootstrap_provisioning, wire.write_nothing,
    ),
    Operation(
        "/deviceprofile/bootstrapprovisioning/get", TOKEN, profile.OneProfile, profile.get_bootstrap_provisioning,
        profile.write_bootstrap_provisioning,
    ),
    Operation(
        "/deviceprofile/bootstrapprovisioning/delete", TOKEN, profile.OneProfile,
        profile.delete_bootstrap_provisioning, wire.write_nothing,
    ),
    # Device
    Operation("/device/list/get", TOKEN, device_wire.GetList, device.get_list, device_wire.write_list),
    Operation(
        "/device/whitelist/add", TOKEN, device_wire.ChangeWhitelist, device.change_whitelist,
        wire.write_nothing_marked, marked=True, csv=device_wire.read_file,
    ),
    Operation("/device/whitelist/get", TOKEN, Paged, device.get_whitelist, device_wire.write_whitelist),
    Operation(
        "/device/provisioning/set", TOKEN, device_wire.SetProvisioning, device.set_provisioning,
        wire.write_nothing_marked, marked=True,
    ),
    Operation("/device/provisioning/get", TOKEN, Selection, device.get_provisioning, device_wire.write_provisioning),
    Operation("/device/provisioning/delete", TOKEN, Selection, device.delete_provisioning, wire.write_nothing),
    # End-to-end services
    Operation("/e2e/key/rotate", TOKEN, e2e.Rotate, e2e.rotate, e2e.write_rotated, marked=True),
    Operation(
        "/e2e/uplink/symmetrickey/get", TOKEN, e2e.GetSymmetricKey, e2e.get_symmetric_key, e2e.write_symmetric_key
    ),
    Operation(
        "/e2e/uplink/protectionparameters/get", TOKEN, e2e.GetUplinkProtection, e2e.get_uplink_protection,
        e2e.write_uplink_protection,
    ),
    Operation(
        "/e2e/uplink/integrityparameters/get", TOKEN, e2e.GetUplinkIntegrity, e2e.get_uplink_integrity,
        e2e.write_uplink_integrity,
    ),
    Operation(
        "/e2e/downlink/protectionparameters/get", TOKEN, e2e.GetDownlink, e2e.get_downlink_protection,
        e2e.write_downlink_protection,
    ),
    Operation(
        "/e2e/downlink/integrityparameters/get", TOKEN, e2e.GetDownlink, e2e.get_downlink_integrity,
        e2e.write_downlink_integrity,
    ),
    # Information
    Operation("/device/info/get", TOKEN, info.GetInfo, info.get_info, info_wire.write_infos),
    Operation(
        "/notification/get", TOKEN, info.GetNotifications, info.get_notifications, info_wire.write_notifications
    ),
    Operation("/device/clone/get", TOKEN, info.GetCloneEvents, info.get_clone_events, info_wire.write_clone_events),
    Operation("/device/suspicious/get", TOKEN, info.GetSuspicions, info.get_suspicions, info_wire.write_suspicions),
    Operation("/device/activity/get", TOKEN, info.GetActivities, info.get_activities, info_wire.write_activities),
    Operation("/device/usage/get", TOKEN, info.GetUsage, info.get_usage, info_wire.write_usage),
    Operation("/device/rotpublicuid/get", TOKEN, info.GetUids, info.get_uids, info_wire.write_uids),
    Operation("/apiversion", TOKEN, Nothing, info.get_version, info_wire.write_version, get=True),
    # Root CA
    Operation("/ztp/rootca/create", TOKEN, rootca.CreateCa, rootca.create, rootca.write_created),
    Operation("/ztp/rootca/update", SUBSCRIBED, rootca.UpdateCa, rootca.update, wire.write_nothing),
    Operation("/ztp/rootca/get", TOKEN, rootca.GetCas, rootca.get, rootca.write_cas),
    Operation("/ztp/rootca/crl/get", SUBSCRIBED, rootca.GetCrls, rootca.get_crls, rootca.write_crls),
    Operation("/ztp/rootca/device/get", TOKEN, rootca.GetCaDevices, rootca.get_devices, rootca.write_devices),
    Operation(
        "/ztp/rootca/popcertificate/generate", TOKEN, rootca.GenerateProof, rootca.prove_possession,
        rootca.write_proof,
    ),
    Operation("/ztp/rootca/delete", TOKEN, rootca.OneCa, rootca.delete, wire.write_nothing),
    # Device certificates
    Operation("/ztp/devicecertificate/renew", SUBSCRIBED, certificate.Renew, certificate.renew, wire.write_nothing),
    Operation("/ztp/devicecertificate/update", SUBSCRIBED, certificate.Update, certificate.update, wire.write_nothing),
    Operation("/ztp/devicecertificate/delete", SUBSCRIBED, certificate.Delete, certificate.delete, wire.write_nothing),
    Operation("/ztp/devicecertificate/revoke", SUBSCRIBED, certificate.Revoke, certificate.revoke, wire.write_nothing),
    Operation(
        "/ztp/devicecertificate/rootca/transfer", SUBSCRIBED, certificate.Transfer, certificate.transfer,
        wire.write_nothing,
    ),
    # Webhooks
    Operation("/notification/webhook/create", TOKEN, webhook.Create, webhook.create, wire.write_nothing),
    Operation("/notification/webhook/update", TOKEN, webhook.Update, webhook.update, wire.write_nothing),
    Operation("/notification/webhook/delete", TOKEN, webhook.Delete, webhook.delete, wire.write_nothing),
    Operation("/notification/webhook/get", TOKEN, Nothing, webhook.get, webhook.write_webhooks, get=True),
    # Tags
    Operation("/tag/create", TOKEN, tag.CreateTag, tag.create, wire.write_nothing),
    Operation("/tag/delete", TOKEN, tag.OneTag, tag.delete, wire.write_nothing),
    Operation("/tag/get", TOKEN, Paged, tag.get, tag.write_tags),
    Operation("/tag/assign", TOKEN, tag.Assign, tag.assign, wire.write_nothing),
    Operation("/tag/remove", TOKEN, tag.Remove, tag.remove, wire.write_nothing),
)  # fmt: skip
