-- Updates of products: which image, for whom, how fast, and how it went.

CREATE TABLE software_update (
    id          bigint GENERATED ALWAYS AS IDENTITY,
    product_id  bigint NOT NULL,
    version     text NOT NULL,
    checksum    text NOT NULL,                         -- of the image, SHA-256 in lower-case hex: its address
    size        bigint NOT NULL,                       -- of the image, bytes
    file        text NOT NULL,                         -- name of the image in links
    policy      text NOT NULL DEFAULT '',
    percentage  integer NOT NULL DEFAULT 100,
    max_devices integer,                               -- null: no limit
    rate        integer,                               -- devices in any rate_period; null: no limit
    rate_period integer NOT NULL DEFAULT 3600,         -- seconds
    test        boolean NOT NULL DEFAULT false,
    stopped_at  timestamptz,
    why_stopped text NOT NULL DEFAULT '',
    offered     bigint NOT NULL DEFAULT 0,             -- devices that were offered it; those of them that reported
    succeeded   bigint NOT NULL DEFAULT 0,
    failed      bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT software_update_pkey PRIMARY KEY (id),
    CONSTRAINT software_update_product_fkey FOREIGN KEY (product_id) REFERENCES product (id) ON DELETE CASCADE,
    CONSTRAINT software_update_checksum CHECK (checksum ~ '^[0-9a-f]{64}$'),
    CONSTRAINT software_update_size CHECK (size >= 0),
    CONSTRAINT software_update_percentage CHECK (percentage BETWEEN 1 AND 100),
    CONSTRAINT software_update_max CHECK (max_devices > 0),
    CONSTRAINT software_update_rate CHECK (rate > 0 AND rate_period > 0)
);
CREATE INDEX software_update_product ON software_update (product_id);
CREATE INDEX software_update_image ON software_update (checksum);

-- A device counts once for each update, however often it asks and reports.
CREATE TABLE update_offer (
    update_id   bigint NOT NULL,
    device_id   bigint NOT NULL,
    offered_at  timestamptz NOT NULL,
    success     boolean,                               -- null: no report yet
    reported_at timestamptz,
    CONSTRAINT update_offer_pkey PRIMARY KEY (update_id, device_id),
    CONSTRAINT update_offer_update_fkey FOREIGN KEY (update_id) REFERENCES software_update (id) ON DELETE CASCADE,
    CONSTRAINT update_offer_device_fkey FOREIGN KEY (device_id) REFERENCES device (id) ON DELETE CASCADE,
    CONSTRAINT update_offer_reported CHECK ((success IS NULL) = (reported_at IS NULL))
);
CREATE INDEX update_offer_device ON update_offer (device_id);
CREATE INDEX update_offer_when ON update_offer (update_id, offered_at);
