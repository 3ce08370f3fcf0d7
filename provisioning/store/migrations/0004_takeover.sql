-- One session for each device, across all processes; and what TRUNCATE takes away is told as well.

-- The session that a row is of: `login` names it within its process, `since` orders it among all, by this clock alone.
ALTER TABLE presence
    ADD COLUMN login bigint NOT NULL DEFAULT 0,
    ADD COLUMN since timestamptz NOT NULL DEFAULT '-infinity';

-- A process hears that a newer session of the device has begun at another one, and which of its own is meant.
CREATE FUNCTION tell_takeover() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('gatehouse', json_build_object(
        'change', 'taken_over', 'protocol', d.protocol, 'product', p.key, 'device', d.key,
        'node', OLD.node, 'id', OLD.device_id, 'login', OLD.login)::text)
    FROM device d JOIN product p ON p.id = d.product_id WHERE d.id = OLD.device_id;
    RETURN NULL;
END $$;
CREATE TRIGGER presence_taken_over AFTER UPDATE ON presence FOR EACH ROW
    WHEN (OLD.online AND OLD.node <> NEW.node) EXECUTE FUNCTION tell_takeover();

CREATE FUNCTION tell_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('gatehouse', '{"change":"truncated"}');
    RETURN NULL;
END $$;
CREATE TRIGGER device_truncated AFTER TRUNCATE ON device FOR EACH STATEMENT EXECUTE FUNCTION tell_truncated();
CREATE TRIGGER product_truncated AFTER TRUNCATE ON product FOR EACH STATEMENT EXECUTE FUNCTION tell_truncated();
CREATE TRIGGER certificate_truncated AFTER TRUNCATE ON certificate FOR EACH STATEMENT EXECUTE FUNCTION tell_truncated();
CREATE TRIGGER authority_truncated AFTER TRUNCATE ON authority FOR EACH STATEMENT EXECUTE FUNCTION tell_truncated();
