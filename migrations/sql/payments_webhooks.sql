-- Guards of the merchants' endpoints and of the record of what was sent to them.

ALTER TABLE webhook_endpoint
    ADD CONSTRAINT webhook_endpoint_state
        CHECK (state IN ('ENABLED', 'DISABLED', 'FAILED', 'GONE')),
    ADD CONSTRAINT webhook_endpoint_failures CHECK (failures_count >= 0),
    ADD CONSTRAINT webhook_endpoint_previous_secret
        CHECK ((previous_secret_sealed IS NULL) = (previous_secret_until IS NULL)),
    ALTER COLUMN failures_count SET DEFAULT 0,
    ALTER COLUMN created_at SET DEFAULT purser_now(),
    ALTER COLUMN updated_at SET DEFAULT purser_now();

ALTER TABLE webhook_delivery
    ADD CONSTRAINT webhook_delivery_try UNIQUE (event_id, try_number),
    ADD CONSTRAINT webhook_delivery_outcome CHECK (outcome IN ('DELIVERED', 'FAILED')),
    ADD CONSTRAINT webhook_delivery_endpoint
        FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoint,
    ALTER COLUMN delivered_at SET DEFAULT purser_now();
CREATE INDEX webhook_delivery_by_merchant ON webhook_delivery (merchant_id, delivered_at DESC);
-- An event waits for the earlier ones of its resource that are not delivered yet.
CREATE INDEX outbox_undelivered ON outbox (resource_id, resource_version)
    WHERE job = 'deliver_webhook' AND done_at IS NULL;

-- A replay asks for a range of time; rows come in its order, so this index costs next to nothing.
CREATE INDEX outbox_created ON outbox USING brin (created_at);

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON webhook_delivery
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON webhook_delivery
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE webhook_endpoint ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE webhook_delivery ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON webhook_endpoint TO purser_app
    USING (principal_sees(merchant_id)) WITH CHECK (principal_sees(merchant_id));
CREATE POLICY tenant ON webhook_delivery TO purser_app
    USING (principal_sees(merchant_id)) WITH CHECK (principal_sees(merchant_id));
-- The group functions ask whether a merchant has an endpoint, and see no more of it.
CREATE POLICY poster ON webhook_endpoint FOR SELECT TO purser_poster USING (true);

GRANT SELECT, INSERT, UPDATE (url, state, secret_sealed, previous_secret_sealed,
    previous_secret_until, failures_count, updated_at) ON webhook_endpoint TO purser_app;
GRANT SELECT, INSERT ON webhook_delivery TO purser_app;
GRANT SELECT (merchant_id, state) ON webhook_endpoint TO purser_poster;
