-- Certificate authorities and what they issued.

CREATE TABLE authority (
    id            bigint GENERATED ALWAYS AS IDENTITY,
    name          text NOT NULL,
    generation    integer NOT NULL,
    certificate   bytea NOT NULL,                      -- DER
    chain         bytea[] NOT NULL DEFAULT '{}',       -- DER, from its issuer up to an anchor
    key           bytea,                               -- sealed PKCS#8 PEM; none: trusted, and signs nothing here
    key_type      text NOT NULL,
    serial        text NOT NULL,
    subject       text NOT NULL,
    not_before    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL,
    crl_number    bigint NOT NULL DEFAULT 0,
    is_default    boolean NOT NULL DEFAULT false,
    retired_at    timestamptz,                         -- since when it issues nothing
    distrusted_at timestamptz,                         -- since when nothing that it issued is accepted
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT authority_pkey PRIMARY KEY (id),
    CONSTRAINT authority_name_key UNIQUE (name, generation),
    CONSTRAINT authority_name CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
    CONSTRAINT authority_generation CHECK (generation > 0),
    CONSTRAINT authority_validity CHECK (not_before < not_after),
    CONSTRAINT authority_default CHECK (
        NOT is_default OR (key IS NOT NULL AND retired_at IS NULL AND distrusted_at IS NULL))
);
CREATE UNIQUE INDEX authority_certificate_key ON authority (sha256(certificate));
CREATE UNIQUE INDEX authority_one_default ON authority (is_default) WHERE is_default;
CREATE UNIQUE INDEX authority_one_current ON authority (name) WHERE retired_at IS NULL;

CREATE TABLE certificate (
    id            bigint GENERATED ALWAYS AS IDENTITY,
    authority_id  bigint NOT NULL,
    serial        text NOT NULL,                       -- hexadecimal, lower case, no leading zeros
    fingerprint   bytea NOT NULL,                      -- SHA-256 of der
    der           bytea NOT NULL,
    device_id     bigint,
    profile       text NOT NULL,
    cn            text NOT NULL DEFAULT '',
    not_before    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL,
    status        text NOT NULL DEFAULT 'valid',
    reason        text,                                -- CRLReason of a revoked one
    revoked_at    timestamptz,                         -- since when it is held or revoked
    superseded_by bigint,
    last_seen_at  timestamptz,
    warned_days   integer,                             -- the shortest threshold of expiry that was told
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT certificate_pkey PRIMARY KEY (id),
    CONSTRAINT certificate_serial_key UNIQUE (authority_id, serial),
    CONSTRAINT certificate_authority_fkey FOREIGN KEY (authority_id) REFERENCES authority (id),
    CONSTRAINT certificate_device_fkey FOREIGN KEY (device_id) REFERENCES device (id) ON DELETE SET NULL,
    CONSTRAINT certificate_superseded_fkey FOREIGN KEY (superseded_by) REFERENCES certificate (id) ON DELETE SET NULL,
    CONSTRAINT certificate_serial CHECK (serial ~ '^[1-9a-f][0-9a-f]*$'),
    CONSTRAINT certificate_fingerprint CHECK (length(fingerprint) = 32),
    CONSTRAINT certificate_profile CHECK (profile IN ('device', 'server', 'ocsp')),
    CONSTRAINT certificate_status CHECK (status IN ('valid', 'held', 'revoked')),
    CONSTRAINT certificate_validity CHECK (not_before < not_after),
    CONSTRAINT certificate_reason CHECK ((status = 'revoked') = (reason IS NOT NULL)),
    CONSTRAINT certificate_revoked CHECK ((status = 'valid') = (revoked_at IS NULL))
);
CREATE UNIQUE INDEX certificate_fingerprint_key ON certificate (fingerprint);
CREATE INDEX certificate_device ON certificate (device_id);
CREATE INDEX certificate_cn ON certificate (cn);
CREATE INDEX certificate_expiry ON certificate (not_after);
CREATE INDEX certificate_bad ON certificate (authority_id) WHERE status <> 'valid';
CREATE INDEX certificate_superseded ON certificate (superseded_by) WHERE superseded_by IS NOT NULL;

-- Who signs OCSP responses for an authority: a certificate of profile `ocsp` and its key.
CREATE TABLE responder (
    certificate_id bigint NOT NULL,
    authority_id   bigint NOT NULL,
    key            bytea NOT NULL,                     -- sealed PKCS#8 PEM
    CONSTRAINT responder_pkey PRIMARY KEY (certificate_id),
    CONSTRAINT responder_certificate_fkey FOREIGN KEY (certificate_id) REFERENCES certificate (id) ON DELETE CASCADE,
    CONSTRAINT responder_authority_fkey FOREIGN KEY (authority_id) REFERENCES authority (id)
);
CREATE INDEX responder_authority ON responder (authority_id);

-- A device that is gone leaves no valid certificate behind, whoever deleted it and however.
CREATE FUNCTION revoke_of_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM certificate WHERE device_id = OLD.id ORDER BY id FOR NO KEY UPDATE;  -- in the order of everybody else
    UPDATE certificate SET status = 'revoked', reason = 'cessationOfOperation', revoked_at = coalesce(revoked_at, now())
    WHERE device_id = OLD.id AND status <> 'revoked';
    RETURN OLD;
END $$;
CREATE TRIGGER device_certificates_revoked BEFORE DELETE ON device FOR EACH ROW EXECUTE FUNCTION revoke_of_device();

-- Every process hears of a certificate that is no longer good, or good again, and of each change of the authorities.
CREATE FUNCTION tell_certificate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('gatehouse', json_build_object(
        'change', 'certificate', 'authority', NEW.authority_id, 'serial', NEW.serial, 'status', NEW.status)::text);
    RETURN NULL;
END $$;
CREATE TRIGGER certificate_changed AFTER UPDATE ON certificate FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION tell_certificate();

CREATE FUNCTION tell_authority() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('gatehouse', '{"change":"authority"}');
    RETURN NULL;
END $$;
CREATE TRIGGER authority_added AFTER INSERT OR DELETE ON authority FOR EACH ROW EXECUTE FUNCTION tell_authority();
CREATE TRIGGER authority_changed AFTER UPDATE ON authority FOR EACH ROW
    WHEN ((OLD.certificate, OLD.chain, OLD.is_default, OLD.retired_at, OLD.distrusted_at)
          IS DISTINCT FROM (NEW.certificate, NEW.chain, NEW.is_default, NEW.retired_at, NEW.distrusted_at))
    EXECUTE FUNCTION tell_authority();
