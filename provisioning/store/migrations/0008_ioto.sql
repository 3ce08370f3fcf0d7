-- Devices that belong to an account, what they tell of themselves, and the tokens that they show.

CREATE TABLE claim (
    device_id    bigint NOT NULL,
    account      text NOT NULL,
    cloud_type   text NOT NULL,
    cloud_name   text NOT NULL,
    cloud_region text NOT NULL,
    claimed_at   timestamptz NOT NULL DEFAULT now(),
    asked_at     timestamptz,                          -- since when the device waits for leave to get another token
    confirmed    boolean NOT NULL DEFAULT false,       -- its next request is granted
    CONSTRAINT claim_pkey PRIMARY KEY (device_id),
    CONSTRAINT claim_device_fkey FOREIGN KEY (device_id) REFERENCES device (id) ON DELETE CASCADE,
    CONSTRAINT claim_cloud_type CHECK (cloud_type IN ('hosted', 'dedicated'))
);
CREATE INDEX claim_account ON claim (account);

CREATE TABLE description (
    device_id   bigint NOT NULL,
    body        jsonb NOT NULL DEFAULT '{}',           -- of its last registration
    fields      jsonb NOT NULL DEFAULT '{}',           -- of its last check for an update
    test        boolean NOT NULL DEFAULT false,
    version     text,
    accessed_at timestamptz,
    checked_at  timestamptz,
    CONSTRAINT description_pkey PRIMARY KEY (device_id),
    CONSTRAINT description_device_fkey FOREIGN KEY (device_id) REFERENCES device (id) ON DELETE CASCADE
);

CREATE TABLE token (
    hash       bytea NOT NULL,                         -- SHA-256 of the token, which nobody keeps
    device_id  bigint,
    issued_at  timestamptz NOT NULL,
    used_at    timestamptz,                            -- when it was first shown
    revoked_at timestamptz,
    reason     text,
    CONSTRAINT token_pkey PRIMARY KEY (hash),
    CONSTRAINT token_device_fkey FOREIGN KEY (device_id) REFERENCES device (id),
    CONSTRAINT token_hash CHECK (length(hash) = 32),
    CONSTRAINT token_reason CHECK (reason IN ('replaced', 'released', 'deleted')),
    CONSTRAINT token_revoked CHECK ((revoked_at IS NULL) = (reason IS NULL)),
    CONSTRAINT token_orphan CHECK (device_id IS NOT NULL OR reason IS NOT DISTINCT FROM 'deleted')
);
CREATE INDEX token_device ON token (device_id);

-- A device that is gone leaves its tokens behind, whoever deleted it: who shows one is told that the device is gone.
CREATE FUNCTION bury_tokens() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE token SET device_id = NULL, revoked_at = coalesce(revoked_at, now()), reason = 'deleted'
    WHERE device_id = OLD.id;
    RETURN OLD;
END $$;
CREATE TRIGGER device_tokens_buried BEFORE DELETE ON device FOR EACH ROW EXECUTE FUNCTION bury_tokens();
