-- Guards of the outbox and the audit log, and the helpers that every other guard uses.

-- The one clock of money. A database made for tests may replace this function with a shifted one.
CREATE FUNCTION purser_now() RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT clock_timestamp()';

CREATE FUNCTION principal_kind() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT split_part(nullif(current_setting('purser.principal', true), ''), ':', 1) $$;

CREATE FUNCTION principal_id() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT nullif(split_part(nullif(current_setting('purser.principal', true), ''), ':', 2), '')::uuid $$;

-- Operators and the system see all, a merchant the rows that name it, a customer the rows that name
-- them at any merchant; where no principal is set nobody sees anything.
CREATE FUNCTION principal_sees(merchant_id uuid, VARIADIC customer_ids uuid[] DEFAULT '{}') RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS
$$
    SELECT coalesce(
        CASE principal_kind()
            WHEN 'system' THEN true
            WHEN 'operator' THEN true
            WHEN 'merchant' THEN merchant_id = principal_id()
            WHEN 'customer' THEN principal_id() = ANY (customer_ids)
        END, false)
$$;

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql AS
$$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or deleted', tg_table_name
        USING ERRCODE = 'insufficient_privilege';
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO purser_app, purser_poster, purser_sealer, purser_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    purser_now(), principal_kind(), principal_id(), principal_sees(uuid, uuid[])
    TO purser_app, purser_poster, purser_sealer, purser_reader;

ALTER TABLE outbox
    ADD COLUMN sequence bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN tries_count integer NOT NULL DEFAULT 0,
    ALTER COLUMN customer_ids SET DEFAULT '[]',
    ALTER COLUMN claims_count SET DEFAULT 0,
    ALTER COLUMN created_at SET DEFAULT purser_now();
CREATE INDEX outbox_due ON outbox (due_at) WHERE done_at IS NULL AND due_at IS NOT NULL;
CREATE INDEX outbox_merchant ON outbox (merchant_id, sequence) WHERE merchant_id IS NOT NULL;
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON outbox TO purser_app
    USING (principal_sees(merchant_id) OR (principal_kind() = 'customer'
           AND customer_ids ? principal_id()::text));
CREATE POLICY poster ON outbox TO purser_poster USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE (job, due_at, claims_count, tries_count, done_at) ON outbox TO purser_app;
GRANT SELECT, INSERT ON outbox TO purser_poster;

-- What write_outbox() takes. `member` is the place of the group's member that tells it, counted from 1;
-- a public event is one that the merchant's webhook wants.
CREATE TYPE outbox_input AS (
    member integer, public boolean, event_id uuid, topic text, resource_kind text, resource_id uuid,
    resource_version bigint, merchant_id uuid, customer_ids jsonb, payload jsonb, job text,
    delay_seconds double precision);

ALTER TABLE audit_log
    ADD COLUMN sequence bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN recorded_at timestamptz NOT NULL DEFAULT purser_now(),
    ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX audit_log_sequence ON audit_log (sequence);
CREATE INDEX audit_log_transaction ON audit_log (transaction_id);
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- Anyone's phase may add a row; only operators and the system read them.
CREATE POLICY append ON audit_log FOR INSERT TO purser_app, purser_poster WITH CHECK (true);
CREATE POLICY read ON audit_log FOR SELECT TO purser_app USING (principal_sees(NULL));
CREATE POLICY seal ON audit_log FOR SELECT TO purser_sealer USING (true);
GRANT INSERT, SELECT ON audit_log TO purser_app;
GRANT INSERT ON audit_log TO purser_poster;
GRANT SELECT ON audit_log TO purser_sealer;
