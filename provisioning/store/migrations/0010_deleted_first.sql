-- Whoever deletes a device revokes its certificates, too. A session that stands on one must hear of the deletion, which
-- it may have to tell its device, before it hears of its certificate. The text is that of tell_device(): of two that are
-- the same, a transaction sends the first.
CREATE OR REPLACE FUNCTION revoke_of_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.key IS NOT NULL THEN
        PERFORM pg_notify('gatehouse', json_build_object(
            'change', 'deleted', 'protocol', OLD.protocol,
            'product', (SELECT key FROM product WHERE id = OLD.product_id), 'device', OLD.key)::text);
    END IF;
    PERFORM FROM certificate WHERE device_id = OLD.id ORDER BY id FOR NO KEY UPDATE;  -- in the order of everybody else
    UPDATE certificate SET status = 'revoked', reason = 'cessationOfOperation', revoked_at = coalesce(revoked_at, now())
    WHERE device_id = OLD.id AND status <> 'revoked';
    RETURN OLD;
END $$;

-- Whose a certificate is, logins are told too, though it was revoked long before.
CREATE TRIGGER certificate_owner_changed AFTER UPDATE ON certificate FOR EACH ROW
    WHEN (OLD.device_id IS DISTINCT FROM NEW.device_id) EXECUTE FUNCTION tell_certificate();
