-- Which gateway speaks for a device that has no connection of its own.

CREATE TABLE binding (
    sub_device_id bigint NOT NULL,
    gateway_id    bigint NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT binding_pkey PRIMARY KEY (sub_device_id),
    CONSTRAINT binding_sub_device_fkey FOREIGN KEY (sub_device_id) REFERENCES device (id) ON DELETE CASCADE,
    CONSTRAINT binding_gateway_fkey FOREIGN KEY (gateway_id) REFERENCES device (id) ON DELETE CASCADE,
    CONSTRAINT binding_of_another CHECK (sub_device_id <> gateway_id)
);
CREATE INDEX binding_gateway ON binding (gateway_id);

-- A sub-device that may not go on has no session that could end: its gateway's ends, and begins again without it.
CREATE FUNCTION tell_gateway() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('gatehouse', json_build_object(
        'change', 'kicked', 'protocol', g.protocol, 'product', p.key, 'device', g.key)::text)
    FROM binding b JOIN device g ON g.id = b.gateway_id JOIN product p ON p.id = g.product_id
    WHERE b.sub_device_id = OLD.id;
    RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER sub_device_changed AFTER UPDATE ON device FOR EACH ROW
    WHEN ((NEW.disabled AND NOT OLD.disabled) OR OLD.secret IS DISTINCT FROM NEW.secret)
    EXECUTE FUNCTION tell_gateway();
CREATE TRIGGER sub_device_deleted BEFORE DELETE ON device FOR EACH ROW EXECUTE FUNCTION tell_gateway();
