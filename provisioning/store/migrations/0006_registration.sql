-- Devices that register themselves with their product's secret, and how many may.

ALTER TABLE product
    ADD COLUMN register_limit integer,
    ADD COLUMN client_authority text NOT NULL DEFAULT '',     -- name of an authority, without generation
    ADD CONSTRAINT product_register_limit CHECK (register_limit > 0);

ALTER TABLE device ADD COLUMN self_registered boolean NOT NULL DEFAULT false;

-- How many of a product's devices have registered themselves. Who writes here has its device rows already: device first,
-- then this one, and of these in the order of product_id.
CREATE TABLE registration (
    product_id bigint NOT NULL,
    devices    integer NOT NULL,
    CONSTRAINT registration_pkey PRIMARY KEY (product_id),
    CONSTRAINT registration_product_fkey FOREIGN KEY (product_id) REFERENCES product (id) ON DELETE CASCADE,
    CONSTRAINT registration_devices CHECK (devices >= 0)
);

-- A device that is gone frees its place, whoever deleted it and however. Once for a statement, so that all its device
-- rows are locked before the first of these.
CREATE FUNCTION free_registration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM gone WHERE self_registered) THEN
        RETURN NULL;
    END IF;
    PERFORM FROM registration r WHERE r.product_id IN (SELECT product_id FROM gone WHERE self_registered)
    ORDER BY r.product_id FOR UPDATE;
    UPDATE registration r SET devices = r.devices - freed.devices
    FROM (SELECT product_id, count(*) AS devices FROM gone WHERE self_registered GROUP BY product_id) freed
    WHERE r.product_id = freed.product_id;
    RETURN NULL;
END $$;
CREATE TRIGGER device_registration_freed AFTER DELETE ON device REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION free_registration();

CREATE FUNCTION free_registrations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM registration;
    RETURN NULL;
END $$;
CREATE TRIGGER device_registrations_freed AFTER TRUNCATE ON device
    FOR EACH STATEMENT EXECUTE FUNCTION free_registrations();
