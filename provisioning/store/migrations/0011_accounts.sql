-- Accounts that share the installation and see nothing of each other: their device profiles, modules, tags, authorities.

-- An account is a product, whose devices are its modules, with what applications need to act for it.
CREATE TABLE account (
    product_id   bigint NOT NULL,
    secret_hash  bytea NOT NULL,                        -- SHA-256 of the API secret, which nobody keeps
    generation   integer NOT NULL DEFAULT 1,            -- counts the secrets that it has had
    strict_e2e   boolean NOT NULL DEFAULT false,
    certificates boolean NOT NULL DEFAULT true,         -- it may manage the certificates of its devices
    CONSTRAINT account_pkey PRIMARY KEY (product_id),
    CONSTRAINT account_product_fkey FOREIGN KEY (product_id) REFERENCES product (id) ON DELETE CASCADE,
    CONSTRAINT account_secret CHECK (length(secret_hash) = 32)
);

CREATE TABLE refresh_token (
    hash       bytea NOT NULL,                          -- SHA-256
    account_id bigint NOT NULL,
    generation integer NOT NULL,                        -- of the secret that it was given for
    issued_at  timestamptz NOT NULL,
    CONSTRAINT refresh_token_pkey PRIMARY KEY (hash),
    CONSTRAINT refresh_token_account_fkey FOREIGN KEY (account_id) REFERENCES account (product_id) ON DELETE CASCADE,
    CONSTRAINT refresh_token_hash CHECK (length(hash) = 32)
);
CREATE INDEX refresh_token_account ON refresh_token (account_id);
CREATE INDEX refresh_token_issued ON refresh_token (issued_at);

-- What access tokens are signed with. The newest signs; older ones verify until the last token of theirs has expired.
CREATE TABLE token_key (
    kid        text NOT NULL,
    private    bytea NOT NULL,                          -- sealed PKCS#8 PEM
    created_at timestamptz NOT NULL,
    CONSTRAINT token_key_pkey PRIMARY KEY (kid)
);

-- Authorities of accounts certify their modules and nothing else: nobody logs in here with what they issue.
ALTER TABLE authority ADD COLUMN of_account boolean NOT NULL DEFAULT false;
CREATE INDEX authority_house ON authority (name, generation) WHERE NOT of_account;
CREATE INDEX certificate_revoked ON certificate (authority_id, revoked_at) WHERE status <> 'valid';
DROP TRIGGER authority_added ON authority;
DROP TRIGGER authority_changed ON authority;
CREATE TRIGGER authority_added AFTER INSERT ON authority FOR EACH ROW
    WHEN (NOT NEW.of_account) EXECUTE FUNCTION tell_authority();
CREATE TRIGGER authority_deleted AFTER DELETE ON authority FOR EACH ROW
    WHEN (NOT OLD.of_account) EXECUTE FUNCTION tell_authority();
CREATE TRIGGER authority_changed AFTER UPDATE ON authority FOR EACH ROW
    WHEN (NOT NEW.of_account AND (OLD.certificate, OLD.chain, OLD.is_default, OLD.retired_at, OLD.distrusted_at)
          IS DISTINCT FROM (NEW.certificate, NEW.chain, NEW.is_default, NEW.retired_at, NEW.distrusted_at))
    EXECUTE FUNCTION tell_authority();

CREATE TABLE root_ca (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    account_id   bigint NOT NULL,
    name         text NOT NULL,
    authority_id bigint NOT NULL,
    ca_days      integer NOT NULL,
    device_days  integer NOT NULL,
    renew_before integer,                               -- days
    warned_days  integer,                               -- the shortest threshold of expiry that was told
    crl          bytea,                                 -- DER
    crl_at       timestamptz,
    created_at   timestamptz NOT NULL,
    deleted_at   timestamptz,                           -- it has issued certificates, which still name it
    CONSTRAINT root_ca_pkey PRIMARY KEY (id),
    CONSTRAINT root_ca_account_fkey FOREIGN KEY (account_id) REFERENCES account (product_id) ON DELETE CASCADE,
    CONSTRAINT root_ca_authority_fkey FOREIGN KEY (authority_id) REFERENCES authority (id)
);
CREATE UNIQUE INDEX root_ca_name_key ON root_ca (name) WHERE deleted_at IS NULL;
CREATE INDEX root_ca_account ON root_ca (account_id, id);
CREATE INDEX root_ca_authority ON root_ca (authority_id);

-- A device profile is an enrolment group with what its modules get when they bootstrap.
CREATE TABLE device_profile (
    group_id        bigint NOT NULL,
    account_id      bigint NOT NULL,
    whitelist_check boolean NOT NULL DEFAULT true,
    desired         jsonb NOT NULL DEFAULT '{}',        -- name -> [value, since when]
    root_ca_id      bigint,                             -- of `desired`
    CONSTRAINT device_profile_pkey PRIMARY KEY (group_id),
    CONSTRAINT device_profile_group_fkey FOREIGN KEY (group_id) REFERENCES enrolment_group (id) ON DELETE CASCADE,
    CONSTRAINT device_profile_account_fkey FOREIGN KEY (account_id) REFERENCES account (product_id) ON DELETE CASCADE,
    CONSTRAINT device_profile_root_ca_fkey FOREIGN KEY (root_ca_id) REFERENCES root_ca (id)
);
CREATE INDEX device_profile_account ON device_profile (account_id, group_id);
CREATE INDEX device_profile_root_ca ON device_profile (root_ca_id) WHERE root_ca_id IS NOT NULL;

-- A module is a device of an account, with its root of trust. The key of its device is the uid, its secret the root
-- secret in hex. What it has sealed comes from its bootstrap; `production_…` from the import, before.
CREATE TABLE module (
    device_id         bigint NOT NULL,
    account_id        bigint NOT NULL,
    uid               text NOT NULL,                    -- 16 hex digits, lower case
    profile_id        bigint,                           -- sealed; null: none yet
    sealed_at         timestamptz,
    whitelisted       boolean NOT NULL DEFAULT false,   -- it stands on the whitelist, by uid or by IMEI
    blacklisted       boolean NOT NULL DEFAULT false,   -- it has bootstrapped without leave
    bootstrapped_at   timestamptz,
    signed_at         timestamptz,                      -- by the module's clock: its last bootstrap
    bootstrap_mac     text,                             -- of its last bootstrap: what repeats it has the same
    imei              text,
    device_serial     text,
    production_serial text,
    serial            text,
    type_number       text,
    rot_version       text,
    version           text,
    counter           bigint NOT NULL DEFAULT 0,        -- of its last heartbeat
    last_seen         timestamptz,
    due_at            timestamptz,                      -- when it counts as unreachable; null: it was told, or never came
    desired           jsonb NOT NULL DEFAULT '{}',      -- name -> [value, since when]
    current           jsonb NOT NULL DEFAULT '{}',
    desired_ca        bigint,                           -- of `desired`
    current_ca        bigint,                           -- of `current`
    certificate_id    bigint,                           -- installed, or about to be
    issuer_id         bigint,                           -- its root CA
    warn_at           timestamptz,                      -- when the account is told next that it expires
    CONSTRAINT module_pkey PRIMARY KEY (device_id),
    CONSTRAINT module_uid_key UNIQUE (uid),
    CONSTRAINT module_uid CHECK (uid ~ '^[0-9a-f]{16}$'),
    CONSTRAINT module_device_fkey FOREIGN KEY (device_id) REFERENCES device (id) ON DELETE CASCADE,
    CONSTRAINT module_account_fkey FOREIGN KEY (account_id) REFERENCES account (product_id) ON DELETE CASCADE,
    CONSTRAINT module_profile_fkey FOREIGN KEY (profile_id) REFERENCES device_profile (group_id),
    CONSTRAINT module_desired_ca_fkey FOREIGN KEY (desired_ca) REFERENCES root_ca (id),
    CONSTRAINT module_current_ca_fkey FOREIGN KEY (current_ca) REFERENCES root_ca (id),
    CONSTRAINT module_issuer_fkey FOREIGN KEY (issuer_id) REFERENCES root_ca (id),
    CONSTRAINT module_certificate_fkey FOREIGN KEY (certificate_id) REFERENCES certificate (id)
);
CREATE INDEX module_of_account ON module (account_id, device_id) INCLUDE (uid);
CREATE INDEX module_whitelisted ON module (account_id, device_id) INCLUDE (uid) WHERE whitelisted;
CREATE INDEX module_blacklisted ON module (account_id, device_id) INCLUDE (uid) WHERE blacklisted;
CREATE INDEX module_unattributed ON module (account_id, device_id) INCLUDE (uid) WHERE profile_id IS NULL;
CREATE INDEX module_profile ON module (profile_id, device_id) INCLUDE (uid) WHERE profile_id IS NOT NULL;
CREATE INDEX module_low ON module (account_id, right(uid, 8));
-- Headers of encrypted messages name no more of a module than this.
CREATE UNIQUE INDEX module_twin_key ON module (account_id, right(uid, 8), substr(uid, 5, 4))
    WHERE bootstrapped_at IS NOT NULL;
CREATE INDEX module_imei ON module (account_id, imei) WHERE imei IS NOT NULL;
CREATE INDEX module_serial ON module (account_id, serial) WHERE serial IS NOT NULL;
CREATE INDEX module_device_serial ON module (account_id, device_serial) WHERE device_serial IS NOT NULL;
CREATE INDEX module_production_serial ON module (account_id, production_serial) WHERE production_serial IS NOT NULL;
CREATE INDEX module_desired_ca ON module (desired_ca) WHERE desired_ca IS NOT NULL;
CREATE INDEX module_current_ca ON module (current_ca) WHERE current_ca IS NOT NULL;
CREATE INDEX module_issuer ON module (issuer_id, device_id) WHERE issuer_id IS NOT NULL;
CREATE INDEX module_certificate ON module (certificate_id) WHERE certificate_id IS NOT NULL;
CREATE INDEX module_due ON module (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX module_warn ON module (warn_at) WHERE warn_at IS NOT NULL;

CREATE TABLE whitelist (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    account_id bigint NOT NULL,
    kind       text NOT NULL,
    value      text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT whitelist_pkey PRIMARY KEY (id),
    CONSTRAINT whitelist_value_key UNIQUE (account_id, kind, value),
    CONSTRAINT whitelist_kind CHECK (kind IN ('uid', 'imei')),
    CONSTRAINT whitelist_account_fkey FOREIGN KEY (account_id) REFERENCES account (product_id) ON DELETE CASCADE
);
CREATE INDEX whitelist_page ON whitelist (account_id, id);

CREATE TABLE tag (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    account_id bigint NOT NULL,
    name       text NOT NULL,
    folded     text NOT NULL,                           -- the name as it is compared
    created_at timestamptz NOT NULL,
    CONSTRAINT tag_pkey PRIMARY KEY (id),
    CONSTRAINT tag_name_key UNIQUE (account_id, folded),
    CONSTRAINT tag_account_fkey FOREIGN KEY (account_id) REFERENCES account (product_id) ON DELETE CASCADE
);
CREATE INDEX tag_page ON tag (account_id, id);
CREATE TABLE tag_module (
    tag_id    bigint NOT NULL,
    device_id bigint NOT NULL,
    sync      boolean NOT NULL DEFAULT false,           -- as whoever assigned it said; nothing asks for it
    CONSTRAINT tag_module_pkey PRIMARY KEY (tag_id, device_id),
    CONSTRAINT tag_module_tag_fkey FOREIGN KEY (tag_id) REFERENCES tag (id) ON DELETE CASCADE,
    CONSTRAINT tag_module_device_fkey FOREIGN KEY (device_id) REFERENCES module (device_id) ON DELETE CASCADE
);
CREATE INDEX tag_module_device ON tag_module (device_id);
CREATE TABLE tag_profile (
    tag_id     bigint NOT NULL,
    profile_id bigint NOT NULL,
    sync       boolean NOT NULL DEFAULT false,
    CONSTRAINT tag_profile_pkey PRIMARY KEY (tag_id, profile_id),
    CONSTRAINT tag_profile_tag_fkey FOREIGN KEY (tag_id) REFERENCES tag (id) ON DELETE CASCADE,
    CONSTRAINT tag_profile_profile_fkey FOREIGN KEY (profile_id) REFERENCES device_profile (group_id) ON DELETE CASCADE
);
CREATE INDEX tag_profile_profile ON tag_profile (profile_id);

-- How long lists are, by buckets of 1,000 ids: any page of a list of a million is found without reading the others.
-- Rows are added and never changed, so that writers do not wait for each other; sums are made of them now and then.
CREATE TABLE tally (
    kind   smallint NOT NULL,                           -- which list, see store/lists.py
    owner  bigint NOT NULL,                             -- of which account, profile, tag or authority
    bucket bigint NOT NULL,
    n      integer NOT NULL
);
CREATE INDEX tally_list ON tally (kind, owner, bucket) INCLUDE (n);

CREATE FUNCTION tally_modules() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    INSERT INTO tally SELECT kind, owner, bucket, sign * count(*) FROM (
        SELECT 1 AS kind, account_id AS owner, device_id / 1000 AS bucket FROM them
        UNION ALL SELECT 2, account_id, device_id / 1000 FROM them WHERE whitelisted
        UNION ALL SELECT 3, account_id, device_id / 1000 FROM them WHERE blacklisted
        UNION ALL SELECT 4, profile_id, device_id / 1000 FROM them WHERE profile_id IS NOT NULL
        UNION ALL SELECT 5, account_id, device_id / 1000 FROM them WHERE profile_id IS NULL
        UNION ALL SELECT 8, issuer_id, device_id / 1000 FROM them WHERE issuer_id IS NOT NULL
        UNION ALL SELECT 9, profile_id, 0 FROM them WHERE profile_id IS NOT NULL
    ) list GROUP BY kind, owner, bucket;
    RETURN NULL;
END $$;
CREATE TRIGGER module_inserted AFTER INSERT ON module REFERENCING NEW TABLE AS them
    FOR EACH STATEMENT EXECUTE FUNCTION tally_modules();
CREATE TRIGGER module_deleted AFTER DELETE ON module REFERENCING OLD TABLE AS them
    FOR EACH STATEMENT EXECUTE FUNCTION tally_modules();

CREATE FUNCTION tally_module() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tally SELECT kind, owner, CASE kind WHEN 9 THEN 0 ELSE NEW.device_id / 1000 END, sum(n) FROM (VALUES
        (2, OLD.account_id, -OLD.whitelisted::int), (2, NEW.account_id, NEW.whitelisted::int),
        (3, OLD.account_id, -OLD.blacklisted::int), (3, NEW.account_id, NEW.blacklisted::int),
        (4, OLD.profile_id, -1), (4, NEW.profile_id, 1),
        (5, OLD.account_id, -(OLD.profile_id IS NULL)::int), (5, NEW.account_id, (NEW.profile_id IS NULL)::int),
        (8, OLD.issuer_id, -1), (8, NEW.issuer_id, 1),
        (9, OLD.profile_id, -1), (9, NEW.profile_id, 1)
    ) list (kind, owner, n) WHERE owner IS NOT NULL GROUP BY kind, owner HAVING sum(n) <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER module_moved AFTER UPDATE ON module FOR EACH ROW
    WHEN ((OLD.whitelisted, OLD.blacklisted, OLD.profile_id, OLD.issuer_id)
          IS DISTINCT FROM (NEW.whitelisted, NEW.blacklisted, NEW.profile_id, NEW.issuer_id))
    EXECUTE FUNCTION tally_module();

CREATE FUNCTION tally_whitelist() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    INSERT INTO tally SELECT 6, account_id, id / 1000, sign * count(*) FROM them GROUP BY account_id, id / 1000;
    RETURN NULL;
END $$;
CREATE TRIGGER whitelist_inserted AFTER INSERT ON whitelist REFERENCING NEW TABLE AS them
    FOR EACH STATEMENT EXECUTE FUNCTION tally_whitelist();
CREATE TRIGGER whitelist_deleted AFTER DELETE ON whitelist REFERENCING OLD TABLE AS them
    FOR EACH STATEMENT EXECUTE FUNCTION tally_whitelist();

CREATE FUNCTION tally_tags() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    INSERT INTO tally SELECT 7, tag_id, device_id / 1000, sign * count(*) FROM them GROUP BY tag_id, device_id / 1000
        UNION ALL SELECT 10, tag_id, 0, sign * count(*) FROM them GROUP BY tag_id;
    RETURN NULL;
END $$;
CREATE TRIGGER tag_module_inserted AFTER INSERT ON tag_module REFERENCING NEW TABLE AS them
    FOR EACH STATEMENT EXECUTE FUNCTION tally_tags();
CREATE TRIGGER tag_module_deleted AFTER DELETE ON tag_module REFERENCING OLD TABLE AS them
    FOR EACH STATEMENT EXECUTE FUNCTION tally_tags();

-- What devices have told, and what was noticed about them.
CREATE TABLE notification (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    device_id  bigint NOT NULL,
    kind       text NOT NULL,
    at         timestamptz NOT NULL,
    payload    json NOT NULL,                           -- its names keep their order
    CONSTRAINT notification_pkey PRIMARY KEY (id),
    CONSTRAINT notification_device_fkey FOREIGN KEY (device_id) REFERENCES module (device_id) ON DELETE CASCADE
);
CREATE INDEX notification_device ON notification (device_id, at, id);
CREATE INDEX notification_at ON notification (at);

CREATE TABLE activity (
    id        bigint GENERATED ALWAYS AS IDENTITY,
    device_id bigint NOT NULL,
    at        timestamptz NOT NULL,
    command   text NOT NULL,
    result    text NOT NULL,
    details   jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT activity_pkey PRIMARY KEY (id),
    CONSTRAINT activity_device_fkey FOREIGN KEY (device_id) REFERENCES module (device_id) ON DELETE CASCADE
);
CREATE INDEX activity_device ON activity (device_id, at, id);
CREATE INDEX activity_at ON activity (at);

CREATE TABLE clone_event (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    account_id bigint NOT NULL,
    device_id  bigint NOT NULL,
    at         timestamptz NOT NULL,
    reason     text NOT NULL,
    source     text NOT NULL,                           -- IP address
    imei       text,
    CONSTRAINT clone_event_pkey PRIMARY KEY (id),
    CONSTRAINT clone_event_device_fkey FOREIGN KEY (device_id) REFERENCES module (device_id) ON DELETE CASCADE
);
CREATE INDEX clone_event_device ON clone_event (device_id, at, id);
CREATE INDEX clone_event_account ON clone_event (account_id, at, id);
CREATE INDEX clone_event_at ON clone_event (at);

CREATE TABLE suspicion (
    device_id   bigint NOT NULL,
    reason      text NOT NULL,
    account_id  bigint NOT NULL,
    value       text NOT NULL,                          -- what several modules have
    detected_at timestamptz NOT NULL,
    CONSTRAINT suspicion_pkey PRIMARY KEY (device_id, reason),
    CONSTRAINT suspicion_device_fkey FOREIGN KEY (device_id) REFERENCES module (device_id) ON DELETE CASCADE
);
CREATE INDEX suspicion_value ON suspicion (account_id, reason, value, device_id);
CREATE INDEX suspicion_account ON suspicion (account_id, device_id);

-- By the second while it is young, by the day (UTC) later.
CREATE TABLE usage (
    device_id  bigint NOT NULL,
    kind       text NOT NULL,
    at         timestamptz NOT NULL,                    -- when the second or the day began
    account_id bigint NOT NULL,
    n          bigint NOT NULL,
    CONSTRAINT usage_pkey PRIMARY KEY (device_id, kind, at),
    CONSTRAINT usage_device_fkey FOREIGN KEY (device_id) REFERENCES module (device_id) ON DELETE CASCADE
);
CREATE INDEX usage_account ON usage (account_id, at);
CREATE INDEX usage_at ON usage (at);
CREATE INDEX usage_young ON usage (at) WHERE at AT TIME ZONE 'UTC' <> date_trunc('day', at AT TIME ZONE 'UTC');

-- How a module's keys for data sent to it change.
CREATE TABLE keyset (
    device_id bigint NOT NULL,
    mode      text,                                     -- null: never set
    days      integer,
    epoch     bytea NOT NULL,                           -- 6 bytes
    epoch_at  timestamptz NOT NULL,
    counter   bigint NOT NULL DEFAULT 0,
    told_at   timestamptz,                              -- when the module was last told to rotate
    CONSTRAINT keyset_pkey PRIMARY KEY (device_id),
    CONSTRAINT keyset_mode CHECK (mode IN ('CONTINUOUS', 'AUTOMATIC')),
    CONSTRAINT keyset_days CHECK ((mode IS NOT DISTINCT FROM 'AUTOMATIC') = (days IS NOT NULL)),
    CONSTRAINT keyset_epoch CHECK (length(epoch) = 6),
    CONSTRAINT keyset_device_fkey FOREIGN KEY (device_id) REFERENCES module (device_id) ON DELETE CASCADE
);

-- What an application has ordered for a module's certificate, and the module's heartbeats carry out.
CREATE TABLE certificate_order (
    device_id  bigint NOT NULL,
    kind       text NOT NULL,
    root_ca_id bigint NOT NULL,                         -- whose certificate it will have; of a deletion: has
    days       integer,
    removed    boolean NOT NULL DEFAULT false,          -- of an update: the first of its two heartbeats is over
    ordered_at timestamptz NOT NULL,
    CONSTRAINT certificate_order_pkey PRIMARY KEY (device_id),
    CONSTRAINT certificate_order_kind CHECK (kind IN ('renew', 'update', 'delete', 'transfer')),
    CONSTRAINT certificate_order_device_fkey FOREIGN KEY (device_id) REFERENCES module (device_id) ON DELETE CASCADE,
    CONSTRAINT certificate_order_root_ca_fkey FOREIGN KEY (root_ca_id) REFERENCES root_ca (id)
);
CREATE INDEX certificate_order_root_ca ON certificate_order (root_ca_id);

-- Commands to modules, sent with each answer until the module has said what became of them.
CREATE TABLE command (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    device_id  bigint NOT NULL,
    kind       text NOT NULL,
    body       jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT command_pkey PRIMARY KEY (id),
    CONSTRAINT command_device_fkey FOREIGN KEY (device_id) REFERENCES module (device_id) ON DELETE CASCADE
);
CREATE INDEX command_device ON command (device_id, id);

-- The outbox of webhooks: a delivery is written in the transaction of the change that it tells.
CREATE TABLE webhook (
    id            bigint GENERATED ALWAYS AS IDENTITY,
    account_id    bigint NOT NULL,
    url           text NOT NULL,
    kind          text NOT NULL,
    receiver      uuid NOT NULL GENERATED ALWAYS AS (md5(account_id::text || ' ' || url)::uuid) STORED,
    authorization_token bytea NOT NULL,                 -- sealed
    created_at    timestamptz NOT NULL,
    CONSTRAINT webhook_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_url_key UNIQUE (account_id, url, kind),
    CONSTRAINT webhook_account_fkey FOREIGN KEY (account_id) REFERENCES account (product_id) ON DELETE CASCADE
);
CREATE INDEX webhook_kind ON webhook (account_id, kind);

CREATE TABLE delivery (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    webhook_id   bigint NOT NULL,
    receiver     uuid NOT NULL,                         -- of the webhook
    subject      text NOT NULL,
    kind         text NOT NULL,
    body         text NOT NULL,
    created_at   timestamptz NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL,
    error        text NOT NULL DEFAULT '',              -- of the last attempt
    dead_at      timestamptz,                           -- since when it is given up
    CONSTRAINT delivery_pkey PRIMARY KEY (id),
    CONSTRAINT delivery_webhook_fkey FOREIGN KEY (webhook_id) REFERENCES webhook (id) ON DELETE CASCADE
);
CREATE INDEX delivery_order ON delivery (receiver, subject, id) WHERE dead_at IS NULL;
CREATE INDEX delivery_webhook ON delivery (webhook_id);
CREATE INDEX delivery_dead ON delivery (dead_at, id) WHERE dead_at IS NOT NULL;

-- Deliveries to one receiver (a URL of an account) about one subject keep their order: they wait in a lane, and the
-- process that has its lease is at the first of them. A lane that is empty is deleted.
CREATE TABLE lane (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    account_id bigint NOT NULL,
    receiver   uuid NOT NULL,
    subject    text NOT NULL,
    due_at     timestamptz NOT NULL,                    -- of its first delivery; where it is leased: the lease's end
    lease      uuid,
    CONSTRAINT lane_pkey PRIMARY KEY (id),
    CONSTRAINT lane_subject_key UNIQUE (receiver, subject),
    CONSTRAINT lane_account_fkey FOREIGN KEY (account_id) REFERENCES account (product_id) ON DELETE CASCADE
);
CREATE INDEX lane_account ON lane (account_id);
CREATE INDEX lane_receiver ON lane (receiver, due_at, id);
CREATE INDEX lane_due ON lane (due_at);

CREATE FUNCTION tell_delivery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM them) THEN
        PERFORM pg_notify('gatehouse', '{"change":"delivery"}');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER delivery_added AFTER INSERT ON delivery REFERENCING NEW TABLE AS them
    FOR EACH STATEMENT EXECUTE FUNCTION tell_delivery();
