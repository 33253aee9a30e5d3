-- Guards of decisions, profiles and labels. Decisions and profiles are written by the functions in
-- risk_model/sql alone; nobody changes a decision, a label or a fold.

ALTER TABLE decision
    ADD COLUMN sequence bigint GENERATED ALWAYS AS IDENTITY,
    -- Numbers are given before the commit; the fold goes by the transaction instead.
    ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ALTER COLUMN decided_at SET DEFAULT purser_now(),
    ADD CONSTRAINT decision_once UNIQUE (order_id, stage, attempt),
    ADD CONSTRAINT decision_outcome CHECK (outcome IN ('ALLOW', 'CHALLENGE', 'REVIEW', 'BLOCK')),
    ADD CONSTRAINT decision_source CHECK (source IN ('MODEL', 'RULES', 'FALLBACK', 'ANALYST')),
    ADD CONSTRAINT decision_probability CHECK (probability BETWEEN 0 AND 1),
    ADD CONSTRAINT decision_model CHECK (
        source <> 'MODEL' OR (probability IS NOT NULL AND model_version IS NOT NULL)),
    ADD CONSTRAINT decision_override CHECK (
        (source = 'ANALYST') = (decided_by IS NOT NULL AND override_reason IS NOT NULL)),
    ADD CONSTRAINT decision_amount CHECK (amount_minor > 0),
    ADD CONSTRAINT decision_features CHECK (octet_length(features) % 4 = 0);
CREATE INDEX decision_transaction ON decision (transaction_id);
CREATE INDEX decision_decided_at ON decision USING brin (decided_at);

ALTER TABLE risk_profile
    ALTER COLUMN updated_at SET DEFAULT purser_now(),
    ADD CONSTRAINT risk_profile_version CHECK (version >= 0),
    ADD CONSTRAINT risk_profile_owner CHECK (
        key ~ '^(customer|payouts|merchant|payee):[0-9a-f-]{36}$'
        AND (customer_id IS NOT NULL) = (key LIKE 'customer:%')),
    ADD CONSTRAINT risk_profile_size CHECK (octet_length(state) < 8000),
    -- Room on each page for the next version of a row.
    SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

ALTER TABLE label
    ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ALTER COLUMN recorded_at SET DEFAULT purser_now(),
    ADD CONSTRAINT label_decision FOREIGN KEY (decision_id) REFERENCES decision,
    ADD CONSTRAINT label_source CHECK (source IN ('CHARGEBACK', 'REFUND', 'ANALYST', 'REPORT')),
    -- A label that claims to be known in the future would leak into features before its time.
    ADD CONSTRAINT label_known CHECK (event_at <= known_at AND known_at <= recorded_at),
    ADD CONSTRAINT label_once UNIQUE (decision_id, source, known_at);
CREATE INDEX label_transaction ON label (transaction_id);

ALTER TABLE decision_fold
    ALTER COLUMN fold_id DROP DEFAULT,
    ALTER COLUMN fold_id DROP DEFAULT,
    ALTER COLUMN fold_id ADD GENERATED ALWAYS AS IDENTITY,
    ADD CONSTRAINT decision_fold_step UNIQUE (key, version),
    ADD CONSTRAINT decision_fold_label FOREIGN KEY (label_id) REFERENCES label,
    ADD CONSTRAINT decision_fold_once UNIQUE NULLS NOT DISTINCT (decision_id, key, label_id);

-- What the group functions take, with the place of the group's member, counted from 1. `version` is the
-- one that is written: the version that was read, plus one.
CREATE TYPE decision_input AS (
    member integer, decision_id uuid, order_id uuid, stage text, attempt smallint, merchant_id uuid,
    customer_id uuid, payee_customer_id uuid, operation text, amount_minor bigint, currency text,
    effective_at timestamptz, outcome text, source text, probability double precision,
    reason_codes jsonb, rules_fired jsonb, model_version text, features bytea, feature_schema text,
    profile_versions jsonb, latency_ms double precision, decided_by text, override_reason text);
CREATE TYPE profile_input AS (member integer, key text, version bigint, state text);

-- A snapshot that has seen nothing yet.
ALTER TABLE risk_follower ADD COLUMN consumed pg_snapshot NOT NULL DEFAULT '3:3:';
INSERT INTO risk_follower (name) VALUES ('fold_shared');

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON decision
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON label
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON decision_fold
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON risk_profile
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE decision ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE risk_profile ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE label ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE decision_fold ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- The payer and the merchant may see that their payment was judged; views decide which columns they get.
CREATE POLICY tenant ON decision FOR SELECT TO purser_app
    USING (principal_sees(merchant_id, customer_id));
-- Profiles and labels are for operators and the system alone.
CREATE POLICY staff ON risk_profile FOR SELECT TO purser_app USING (principal_sees(NULL));
CREATE POLICY staff ON decision_fold FOR SELECT TO purser_app USING (principal_sees(NULL));
CREATE POLICY staff ON label TO purser_app
    USING (principal_sees(NULL)) WITH CHECK (principal_sees(NULL));

CREATE POLICY poster ON decision TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON risk_profile TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON decision_fold TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON label FOR SELECT TO purser_poster USING (true);
CREATE POLICY reader ON decision FOR SELECT TO purser_reader USING (true);
CREATE POLICY reader ON label FOR SELECT TO purser_reader USING (true);
CREATE POLICY reader ON decision_fold FOR SELECT TO purser_reader USING (true);

GRANT SELECT ON decision, risk_profile, decision_fold, risk_follower TO purser_app;
GRANT SELECT, INSERT ON label TO purser_app;
GRANT SELECT, INSERT ON decision, decision_fold TO purser_poster;
GRANT SELECT, INSERT, UPDATE (version, state, updated_at) ON risk_profile TO purser_poster;
GRANT SELECT, UPDATE (consumed, advanced_at) ON risk_follower TO purser_poster;
GRANT SELECT ON label TO purser_poster;
GRANT SELECT ON decision, label, decision_fold TO purser_reader;
