-- Guards of orders and what hangs on them. The ceilings I1 and I2 stand here and in commit_group().

ALTER TABLE payment_order
    ADD CONSTRAINT payment_order_number UNIQUE (merchant_id, merchant_order_no),
    ADD CONSTRAINT payment_order_type CHECK (type IN ('PAY', 'TOP_UP', 'TRANSFER', 'PAYOUT')),
    ADD CONSTRAINT payment_order_version CHECK (version > 0),
    ADD CONSTRAINT payment_order_amount CHECK (amount_minor > 0),
    ADD CONSTRAINT payment_order_not_negative CHECK (least(
        authorized_minor, capture_pending_minor, captured_minor, releasing_minor, released_minor,
        reversed_minor, refund_pending_minor, refunded_minor, disputed_open_minor,
        dispute_lost_minor, suspense_minor, fee_minor, fee_refunded_minor) >= 0),
    ADD CONSTRAINT payment_order_i1 CHECK (
        captured_minor + capture_pending_minor + releasing_minor + released_minor
        <= authorized_minor),
    ADD CONSTRAINT payment_order_i2 CHECK (
        refunded_minor + refund_pending_minor + reversed_minor <= captured_minor),
    ADD CONSTRAINT payment_order_i10 CHECK (
        fee_refunded_minor <= fee_minor AND fee_minor <= amount_minor);
CREATE INDEX payment_order_by_merchant ON payment_order (merchant_id, created_at DESC, order_id DESC);
CREATE INDEX payment_order_by_payer ON payment_order (payer_customer_id, created_at DESC, order_id DESC)
    WHERE payer_customer_id IS NOT NULL;
CREATE INDEX payment_order_by_payee ON payment_order (payee_customer_id, created_at DESC, order_id DESC)
    WHERE payee_customer_id IS NOT NULL;
CREATE INDEX payment_order_expiring ON payment_order (expires_at)
    WHERE state IN ('CREATED', 'REQUIRES_ACTION', 'PROCESSING', 'IN_REVIEW');
CREATE INDEX payment_order_reviewed ON payment_order (created_at) WHERE state = 'IN_REVIEW';
CREATE INDEX payment_order_attention ON payment_order (updated_at) WHERE needs_attention IS NOT NULL;
CREATE INDEX payment_order_unsettled ON payment_order (merchant_id, currency)
    WHERE settlement_progress = 'ELIGIBLE';

-- No foreign key to the order: commit_group(), the only writer, has inserted or locked it.
ALTER TABLE operation
    ADD CONSTRAINT operation_amount CHECK (amount_minor >= 0 AND fee_minor >= 0);
-- An operation that opens an order has the order's own number, which is unique there.
CREATE UNIQUE INDEX operation_number ON operation (merchant_id, type, operation_number)
    WHERE type NOT IN ('PAY', 'TOP_UP', 'TRANSFER', 'PAYOUT');
CREATE INDEX operation_by_order ON operation (order_id);
CREATE INDEX operation_unresolved ON operation (next_check_at)
    WHERE state IN ('CREATED', 'SUBMITTED', 'PENDING', 'UNKNOWN');

ALTER TABLE attempt
    ADD CONSTRAINT attempt_of_operation FOREIGN KEY (operation_id) REFERENCES operation,
    ADD CONSTRAINT attempt_number UNIQUE (channel, channel_request_number);
CREATE INDEX attempt_by_order ON attempt (order_id);
CREATE INDEX attempt_by_operation ON attempt (operation_id);

ALTER TABLE channel_event
    ADD CONSTRAINT channel_event_key UNIQUE (channel, event_key),
    ALTER COLUMN received_at SET DEFAULT purser_now();
CREATE INDEX channel_event_unapplied ON channel_event (received_at) WHERE applied_at IS NULL;
CREATE INDEX channel_event_by_order ON channel_event (order_id) WHERE order_id IS NOT NULL;

-- What a channel told us stays as it came; only the note that it was applied may be added, once.
CREATE FUNCTION refuse_change_of_event() RETURNS trigger
LANGUAGE plpgsql AS
$$
BEGIN
    IF old.applied_at IS NOT NULL
       OR (new.channel, new.event_key, new.kind, new.channel_request_number, new.raw_body,
           new.parsed, new.received_at)
          IS DISTINCT FROM
          (old.channel, old.event_key, old.kind, old.channel_request_number, old.raw_body,
           old.parsed, old.received_at)
    THEN
        RAISE EXCEPTION 'a channel event never changes' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN new;
END
$$;
CREATE TRIGGER refuse_change BEFORE UPDATE ON channel_event
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_event();
CREATE TRIGGER refuse_delete BEFORE DELETE ON channel_event
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON channel_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE idempotency
    ALTER COLUMN created_at SET DEFAULT purser_now();
-- Keys come in the order of their time, and only the sweep asks for it.
CREATE INDEX idempotency_age ON idempotency USING brin (created_at) WITH (pages_per_range = 32);

ALTER TABLE challenge
    ADD CONSTRAINT challenge_of_order FOREIGN KEY (order_id) REFERENCES payment_order,
    ADD CONSTRAINT challenge_wrong CHECK (wrong_count BETWEEN 0 AND 3);
CREATE INDEX challenge_by_order ON challenge (order_id);

ALTER TABLE passwordless_use
    ADD CONSTRAINT passwordless_use_not_negative CHECK (used_minor >= 0),
    ADD CONSTRAINT passwordless_use_day UNIQUE (customer_id, currency, used_on);

ALTER TABLE settlement
    ALTER COLUMN created_at SET DEFAULT purser_now(),
    ADD CONSTRAINT settlement_amount CHECK (amount_minor >= 0);
CREATE INDEX settlement_by_merchant ON settlement (merchant_id, created_at DESC);

-- What commit_group() takes of each member, and what a payment consumes of its payer's limit. Orders and
-- operations are taken as rows of their tables.
CREATE TYPE group_member AS (
    principal text, order_id uuid, expected_version bigint, stale_when_refused boolean,
    idempotency_id uuid, operation text, key text, input_hash text, result text);
CREATE TYPE passwordless_input AS (
    member integer, passwordless_use_id uuid, customer_id uuid, currency text, used_on date,
    amount_minor bigint);

ALTER TABLE payment_order ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE operation ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE attempt ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE channel_event ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE challenge ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE passwordless_use ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE settlement ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY tenant ON payment_order TO purser_app
    USING (principal_sees(merchant_id, payer_customer_id, payee_customer_id))
    WITH CHECK (principal_sees(merchant_id, payer_customer_id, payee_customer_id));
CREATE POLICY tenant ON operation TO purser_app
    USING (principal_sees(merchant_id, payer_customer_id, payee_customer_id));
CREATE POLICY tenant ON attempt TO purser_app USING (principal_sees(merchant_id));
CREATE POLICY tenant ON channel_event TO purser_app
    USING (principal_sees(merchant_id)) WITH CHECK (principal_sees(merchant_id));
CREATE POLICY tenant ON idempotency TO purser_app
    USING (principal_kind() = 'system'
           OR principal = current_setting('purser.principal', true))
    WITH CHECK (principal = current_setting('purser.principal', true));
CREATE POLICY tenant ON challenge TO purser_app USING (principal_sees(merchant_id, customer_id));
CREATE POLICY tenant ON passwordless_use TO purser_app USING (principal_sees(NULL, customer_id));
CREATE POLICY tenant ON settlement TO purser_app
    USING (principal_sees(merchant_id)) WITH CHECK (principal_kind() IN ('operator', 'system'));

CREATE POLICY poster ON payment_order TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON operation TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON attempt TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON channel_event TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON idempotency TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON challenge TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON passwordless_use TO purser_poster USING (true) WITH CHECK (true);

-- Orders change only inside commit_group(); the application itself may mark them settled.
GRANT SELECT, UPDATE (settlement_progress, version, updated_at) ON payment_order TO purser_app;
GRANT SELECT ON operation, attempt, challenge, passwordless_use TO purser_app;
GRANT SELECT, INSERT, UPDATE (attempt_id, order_id, merchant_id, outcome, applied_at)
    ON channel_event TO purser_app;
GRANT SELECT, INSERT, DELETE ON idempotency TO purser_app;
GRANT SELECT, INSERT ON settlement TO purser_app;
GRANT SELECT, INSERT, UPDATE ON payment_order, operation, attempt, challenge, passwordless_use
    TO purser_poster;
GRANT DELETE ON payment_order TO purser_poster;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency TO purser_poster;
GRANT SELECT, INSERT, UPDATE (attempt_id, order_id, merchant_id, outcome, applied_at)
    ON channel_event TO purser_poster;
