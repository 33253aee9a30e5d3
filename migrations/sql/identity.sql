-- Guards of those who ask and of what proves it. The application's role reads and writes only through
-- these grants; who is asking is set for each phase, and the policies read it.

GRANT USAGE ON SCHEMA public TO purser_lookup;
GRANT EXECUTE ON FUNCTION purser_now() TO purser_lookup;

-- The owner of a secret, or the system; nobody else, operators included.
CREATE FUNCTION principal_is(kind text, id uuid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS
$$
    SELECT coalesce(principal_kind() = 'system'
                    OR (principal_kind() = kind AND principal_id() = id), false)
$$;
GRANT EXECUTE ON FUNCTION principal_is(text, uuid) TO purser_app;

-- Enough of a name for a payer to recognise a friend, too little to learn one.
CREATE FUNCTION masked_name(name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT repeat('*', greatest(1, least(length(name) - 1, 3))) || right(name, 1) $$;
GRANT EXECUTE ON FUNCTION masked_name(text) TO purser_app, purser_poster, purser_lookup;

ALTER TABLE customer
    ALTER COLUMN created_at SET DEFAULT purser_now(),
    ADD CONSTRAINT customer_status CHECK (status IN ('PENDING', 'ACTIVE', 'SUSPENDED')),
    ADD CONSTRAINT customer_address CHECK (phone IS NOT NULL OR email IS NOT NULL OR status <> 'PENDING'),
    ADD CONSTRAINT customer_phone CHECK (phone ~ '^\+[1-9][0-9]{6,14}$');
-- An address belongs to one customer from the moment a code has proved it.
CREATE UNIQUE INDEX customer_phone_proved ON customer (phone) WHERE status <> 'PENDING';
CREATE UNIQUE INDEX customer_email_proved ON customer (email) WHERE status <> 'PENDING';
CREATE INDEX customer_pending ON customer (created_at) WHERE status = 'PENDING';
ALTER TABLE customer ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON customer TO purser_app
    USING (principal_sees(NULL, customer_id)) WITH CHECK (principal_sees(NULL, customer_id));
-- A proved customer is never deleted, only one whose code never came back.
CREATE POLICY unproved ON customer AS RESTRICTIVE FOR DELETE TO purser_app USING (status = 'PENDING');
CREATE POLICY poster ON customer FOR SELECT TO purser_poster USING (true);
CREATE POLICY lookup ON customer FOR SELECT TO purser_lookup USING (true);
GRANT SELECT, INSERT, UPDATE (status, display_name, phone, email), DELETE ON customer TO purser_app;
GRANT SELECT ON customer TO purser_poster;
GRANT SELECT (customer_id, phone, email, status, display_name) ON customer TO purser_lookup;

ALTER TABLE merchant
    ALTER COLUMN created_at SET DEFAULT purser_now(),
    ADD CONSTRAINT merchant_status CHECK (status IN ('ACTIVE', 'SUSPENDED')),
    ADD CONSTRAINT merchant_fee CHECK (fee_rate_millionths BETWEEN 0 AND 1000000),
    ADD CONSTRAINT merchant_limit CHECK (payment_limit_minor > 0);
-- The merchant that owns a wallet's own top-ups and transfers.
INSERT INTO merchant (merchant_id, name, status, fee_rate_millionths, currencies, payment_limit_minor)
VALUES ('00000000-0000-7000-8000-000000000001', 'Purser', 'ACTIVE', 0, '["CNY", "USD", "EUR"]',
        100000000);
ALTER TABLE merchant ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON merchant FOR SELECT TO purser_app USING (principal_sees(merchant_id));
CREATE POLICY operate ON merchant TO purser_app
    USING (principal_kind() IN ('operator', 'system'))
    WITH CHECK (principal_kind() IN ('operator', 'system'));
CREATE POLICY poster ON merchant FOR SELECT TO purser_poster USING (true);
CREATE POLICY lookup ON merchant FOR SELECT TO purser_lookup USING (true);
GRANT SELECT, INSERT, UPDATE (name, status, fee_rate_millionths, currencies, payment_limit_minor)
    ON merchant TO purser_app;
GRANT SELECT ON merchant TO purser_poster;
GRANT SELECT (merchant_id, name) ON merchant TO purser_lookup;

ALTER TABLE merchant_key
    ALTER COLUMN created_at SET DEFAULT purser_now(),
    ADD CONSTRAINT merchant_key_algorithm
        CHECK (algorithm IN ('ed25519', 'rsa-v1_5-sha256', 'hmac-sha256')),
    ADD CONSTRAINT merchant_key_merchant FOREIGN KEY (merchant_id) REFERENCES merchant (merchant_id);
CREATE INDEX merchant_key_merchant ON merchant_key (merchant_id, created_at);
ALTER TABLE merchant_key ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON merchant_key TO purser_app
    USING (principal_sees(merchant_id)) WITH CHECK (principal_sees(merchant_id));
CREATE POLICY lookup ON merchant_key FOR SELECT TO purser_lookup USING (true);
GRANT SELECT, INSERT, UPDATE (expires_at) ON merchant_key TO purser_app;
GRANT SELECT ON merchant_key TO purser_lookup;

ALTER TABLE operator
    ALTER COLUMN created_at SET DEFAULT purser_now(),
    ADD CONSTRAINT operator_status CHECK (status IN ('ACTIVE', 'DISABLED'));
CREATE UNIQUE INDEX operator_email ON operator (email);
ALTER TABLE operator ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY operate ON operator TO purser_app
    USING (principal_kind() IN ('operator', 'system'))
    WITH CHECK (principal_kind() IN ('operator', 'system'));
CREATE POLICY lookup ON operator FOR SELECT TO purser_lookup USING (true);
GRANT SELECT, INSERT, UPDATE (roles, status) ON operator TO purser_app;
GRANT SELECT (operator_id, email, status) ON operator TO purser_lookup;

ALTER TABLE credential
    ADD CONSTRAINT credential_kind CHECK (kind IN ('LOGIN', 'PAYMENT')),
    ALTER COLUMN changed_at SET DEFAULT purser_now();
CREATE UNIQUE INDEX credential_owner ON credential (owner_id, kind);
ALTER TABLE credential ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON credential TO purser_app
    USING (principal_is(owner_kind, owner_id)) WITH CHECK (principal_is(owner_kind, owner_id));
CREATE POLICY poster ON credential FOR SELECT TO purser_poster USING (true);
GRANT SELECT, INSERT, UPDATE (password_hash, changed_at), DELETE ON credential TO purser_app;
-- Whether there is one, never the hash.
GRANT SELECT (owner_id, kind) ON credential TO purser_poster;

ALTER TABLE login
    ALTER COLUMN created_at SET DEFAULT purser_now(),
    ADD CONSTRAINT login_kind CHECK (principal_kind IN ('customer', 'merchant', 'operator'));
CREATE INDEX login_principal ON login (principal_id) WHERE ended_at IS NULL;
CREATE INDEX login_expires ON login (expires_at);
ALTER TABLE login ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON login TO purser_app
    USING (principal_is(principal_kind, principal_id) OR principal_kind() = 'operator')
    WITH CHECK (principal_is(principal_kind, principal_id) OR principal_kind() = 'operator');
CREATE POLICY lookup ON login FOR SELECT TO purser_lookup USING (true);
GRANT SELECT, INSERT, UPDATE (ended_at, end_reason), DELETE ON login TO purser_app;
GRANT SELECT (login_id, principal_kind, principal_id, ended_at, expires_at) ON login TO purser_lookup;

ALTER TABLE refresh_token
    ALTER COLUMN created_at SET DEFAULT purser_now(),
    ADD CONSTRAINT refresh_token_login FOREIGN KEY (login_id) REFERENCES login (login_id)
        ON DELETE CASCADE;
CREATE INDEX refresh_token_login ON refresh_token (login_id);
ALTER TABLE refresh_token ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- The login's own policy decides: this sees only what the phase may see there.
CREATE POLICY owner ON refresh_token TO purser_app
    USING (EXISTS (SELECT FROM login WHERE login.login_id = refresh_token.login_id))
    WITH CHECK (EXISTS (SELECT FROM login WHERE login.login_id = refresh_token.login_id));
CREATE POLICY lookup ON refresh_token FOR SELECT TO purser_lookup USING (true);
GRANT SELECT, INSERT, UPDATE (used_at), DELETE ON refresh_token TO purser_app;
GRANT SELECT (token_digest, login_id) ON refresh_token TO purser_lookup;

ALTER TABLE one_time_code
    ALTER COLUMN requested_at SET DEFAULT purser_now(),
    ADD CONSTRAINT one_time_code_state
        CHECK (state IN ('REQUESTED', 'ISSUED', 'USED', 'REPLACED', 'VOID', 'UNADDRESSED')),
    ADD CONSTRAINT one_time_code_tries CHECK (tries_count BETWEEN 0 AND tries_max),
    ADD CONSTRAINT one_time_code_digest CHECK (state <> 'ISSUED' OR code_digest IS NOT NULL);
-- A new code replaces the old: there is never a second one that would be accepted.
CREATE UNIQUE INDEX one_time_code_live ON one_time_code (customer_id, purpose, resource_id)
    WHERE state IN ('REQUESTED', 'ISSUED');
CREATE INDEX one_time_code_expires ON one_time_code (expires_at);
ALTER TABLE one_time_code ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON one_time_code TO purser_app
    USING (principal_is('customer', customer_id)) WITH CHECK (principal_is('customer', customer_id));
GRANT SELECT, INSERT, UPDATE (state, code_digest, tries_count, issues_count, expires_at), DELETE
    ON one_time_code TO purser_app;

ALTER TABLE signing_key ALTER COLUMN created_at SET DEFAULT purser_now();
GRANT SELECT, INSERT, UPDATE (retires_at), DELETE ON signing_key TO purser_app;

CREATE INDEX request_nonce_expires ON request_nonce (expires_at);
GRANT SELECT, INSERT, DELETE ON request_nonce TO purser_app;

CREATE INDEX limit_counter_window ON limit_counter (window_ends_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON limit_counter TO purser_app;
