-- Guards of the ledger. Nobody but the functions in wallet/sql may write these tables, and nobody at all
-- may change an entry, a posting or a sealed block.

ALTER TABLE account
    -- What the roll-up has consumed of a buffered account's postings; empty for all other accounts.
    ADD COLUMN rolled_up_to pg_snapshot,
    ALTER COLUMN debits_posted SET DEFAULT 0,
    ALTER COLUMN credits_posted SET DEFAULT 0,
    ALTER COLUMN debits_pending SET DEFAULT 0,
    ALTER COLUMN credits_pending SET DEFAULT 0,
    ALTER COLUMN credit_limit_minor SET DEFAULT 0,
    ALTER COLUMN frozen SET DEFAULT false,
    ALTER COLUMN credits_frozen SET DEFAULT false,
    ALTER COLUMN account_version SET DEFAULT 0,
    ALTER COLUMN opened_at SET DEFAULT purser_now(),
    ADD CONSTRAINT account_owner UNIQUE (owner_id, kind, currency, owner_kind),
    -- What the postings' foreign keys point at, so that a posting cannot mix currencies.
    ADD CONSTRAINT account_currency UNIQUE (account_id, currency),
    ADD CONSTRAINT account_currency_code CHECK (currency ~ '^[A-Z][A-Z0-9_]{2,15}$'),
    ADD CONSTRAINT account_normal_side CHECK (normal_side IN ('debit', 'credit')),
    ADD CONSTRAINT account_not_negative CHECK (least(
        debits_posted, credits_posted, debits_pending, credits_pending, credit_limit_minor) >= 0),
    ADD CONSTRAINT account_rolled_up CHECK (buffered = (rolled_up_to IS NOT NULL)),
    -- The last line of defence against an overdraft. A buffered account's columns are behind its
    -- postings, so its floor is judged by post_entries() alone.
    ADD CONSTRAINT account_floor CHECK (NOT has_floor OR buffered OR credit_limit_minor + CASE normal_side
        WHEN 'credit' THEN credits_posted - debits_posted - debits_pending
        ELSE debits_posted - credits_posted - credits_pending END >= 0),
    -- Room on each page for the next version of a row, so that a balance changes without touching an index.
    SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- Statistics of a nearly empty table would make plans that are wrong a minute later, when it is not.
ALTER TABLE account SET (autovacuum_analyze_threshold = 1000, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE entry SET (autovacuum_analyze_threshold = 1000, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE posting SET (autovacuum_analyze_threshold = 1000, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE hold SET (autovacuum_analyze_threshold = 1000, autovacuum_analyze_scale_factor = 0.05);

CREATE SEQUENCE entry_sequence OWNED BY entry.sequence;

ALTER TABLE entry
    -- Numbers are given before the commit; followers of the journal go by the transaction instead.
    ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD CONSTRAINT entry_content_hash CHECK (octet_length(content_hash) = 32),
    -- What separates the parts of an entry's canonical text.
    ADD CONSTRAINT entry_kind CHECK (strpos(kind, '|') = 0);
CREATE INDEX entry_transaction ON entry (transaction_id);
CREATE INDEX entry_order ON entry (order_id) WHERE order_id IS NOT NULL;

-- There are no foreign keys to the entry and to the accounts: the one function that writes postings has
-- read both accounts and compared their currency, nothing deletes either, and `ledger verify` finds a
-- posting without them. A foreign key would ask four times for each payment, and lock the row of the
-- account that everybody pays.
ALTER TABLE posting DROP CONSTRAINT posting_pkey;
ALTER TABLE posting
    ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD PRIMARY KEY (sequence, line),
    ADD CONSTRAINT posting_amount CHECK (amount_minor > 0),
    ADD CONSTRAINT posting_sides CHECK (debit_account_id <> credit_account_id);
CREATE INDEX posting_debits ON posting (debit_account_id, sequence);
CREATE INDEX posting_credits ON posting (credit_account_id, sequence);
-- For the roll-up: what a buffered account has not consumed lies at the end of these.
CREATE INDEX posting_buffered_debits ON posting (debit_account_id, transaction_id) WHERE debit_buffered;
CREATE INDEX posting_buffered_credits ON posting (credit_account_id, transaction_id) WHERE credit_buffered;

ALTER TABLE hold
    ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD COLUMN resolved_transaction_id xid8,
    ALTER COLUMN state SET DEFAULT 'PENDING',
    ALTER COLUMN posted_minor SET DEFAULT 0,
    ADD CONSTRAINT hold_amount CHECK (amount_minor > 0),
    ADD CONSTRAINT hold_sides CHECK (debit_account_id <> credit_account_id),
    ADD CONSTRAINT hold_state CHECK (state IN ('PENDING', 'POSTED', 'VOIDED', 'EXPIRED')),
    ADD CONSTRAINT hold_posted CHECK (posted_minor <= amount_minor
        AND CASE state WHEN 'POSTED' THEN posted_minor > 0 ELSE posted_minor = 0 END),
    ADD CONSTRAINT hold_resolved CHECK ((state = 'PENDING') = (resolved_sequence IS NULL)
        AND (state = 'PENDING') = (resolved_line IS NULL)
        AND (state = 'PENDING') = (resolved_at IS NULL)
        AND (state = 'PENDING') = (resolved_transaction_id IS NULL)),
    ADD CONSTRAINT hold_debit FOREIGN KEY (debit_account_id, currency)
        REFERENCES account (account_id, currency),
    ADD CONSTRAINT hold_credit FOREIGN KEY (credit_account_id, currency)
        REFERENCES account (account_id, currency);
CREATE INDEX hold_made ON hold (sequence);
CREATE INDEX hold_resolution ON hold (resolved_sequence) WHERE resolved_sequence IS NOT NULL;
CREATE INDEX hold_debits ON hold (debit_account_id, sequence);
CREATE INDEX hold_pending ON hold (debit_account_id) WHERE state = 'PENDING';
CREATE INDEX hold_expiring ON hold (expires_at) WHERE state = 'PENDING' AND expires_at IS NOT NULL;

ALTER TABLE sealed_block
    ADD COLUMN entry_sequences bigint[] NOT NULL,
    ALTER COLUMN sealed_at SET DEFAULT purser_now(),
    ADD CONSTRAINT sealed_block_hashes
        CHECK (octet_length(previous_hash) = 32 AND octet_length(block_hash) = 32),
    ADD CONSTRAINT sealed_block_entries
        CHECK (entries_count > 0 AND entries_count = cardinality(entry_sequences));

-- A snapshot that has seen nothing yet: no transaction of ours is below the first normal one.
ALTER TABLE follower ADD COLUMN consumed pg_snapshot NOT NULL DEFAULT '3:3:';
INSERT INTO follower (name) VALUES ('roll_up'), ('seal');

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON posting
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON sealed_block
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON account
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON hold
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What post_entries() takes: entries, each movement in them, and the accounts that they may open. The
-- places are counted from 1; the hash and the place of an earlier equal id are its own to fill in.
CREATE TYPE ledger_entry AS (
    ordinal integer, entry_id uuid, kind text, effective_at timestamptz, order_id uuid,
    operation_id uuid, merchant_id uuid, description text, facts jsonb, content_hash bytea,
    -- The place of an earlier entry of the same call with the same id.
    previous integer);
CREATE TYPE ledger_leg AS (
    -- The entry's place in the call, the leg's in its entry, and in its action.
    ordinal integer, line smallint, part smallint, action text, debit_account_id uuid, credit_account_id uuid,
    amount_minor bigint, currency text, hold_id uuid, expires_at timestamptz,
    -- What this leg adds to the debit account's pending column; negative where it resolves a hold.
    held_minor bigint);
-- What an entry says of an account that it may open.
CREATE TYPE ledger_account AS (
    account_id uuid, owner_kind text, owner_id uuid, kind text, currency text);
CREATE TYPE ledger_verdict AS (outcome text, code text, account_id uuid, available_minor bigint);

ALTER TABLE account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE entry ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE posting ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE hold ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- A customer or a merchant sees its own accounts, the postings and holds that touch one of them, and the
-- entries that hold one of those. The inner look-ups are themselves under these policies, so the rule
-- is written once, and nothing is stored or indexed for it.
CREATE POLICY tenant ON account FOR SELECT TO purser_app USING (principal_sees(
    CASE owner_kind WHEN 'merchant' THEN owner_id END,
    CASE owner_kind WHEN 'customer' THEN owner_id END));
CREATE POLICY tenant ON posting FOR SELECT TO purser_app USING (EXISTS (
    SELECT FROM account WHERE account_id IN (debit_account_id, credit_account_id)));
CREATE POLICY tenant ON hold FOR SELECT TO purser_app USING (EXISTS (
    SELECT FROM account WHERE account_id IN (debit_account_id, credit_account_id)));
CREATE POLICY tenant ON entry FOR SELECT TO purser_app USING (
    principal_sees(merchant_id)
    OR EXISTS (SELECT FROM posting WHERE posting.sequence = entry.sequence)
    OR EXISTS (SELECT FROM hold WHERE hold.sequence = entry.sequence)
    OR EXISTS (SELECT FROM hold WHERE hold.resolved_sequence = entry.sequence));

CREATE POLICY poster ON account TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON entry TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON posting TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY poster ON hold TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY reader ON account FOR SELECT TO purser_reader, purser_sealer USING (true);
CREATE POLICY reader ON entry FOR SELECT TO purser_reader, purser_sealer USING (true);
CREATE POLICY reader ON posting FOR SELECT TO purser_reader, purser_sealer USING (true);
CREATE POLICY reader ON hold FOR SELECT TO purser_reader, purser_sealer USING (true);

GRANT SELECT ON account, entry, posting, hold, sealed_block, follower TO purser_app, purser_reader;
GRANT SELECT, INSERT ON account, entry, posting, hold TO purser_poster;
GRANT UPDATE (debits_posted, credits_posted, debits_pending, rolled_up_to, account_version, frozen,
              credits_frozen, credit_limit_minor) ON account TO purser_poster;
GRANT UPDATE (state, posted_minor, resolved_sequence, resolved_line, resolved_at, resolved_transaction_id)
    ON hold TO purser_poster;
GRANT USAGE ON SEQUENCE entry_sequence TO purser_poster;
GRANT SELECT, UPDATE (consumed, advanced_at) ON follower TO purser_poster, purser_sealer;
GRANT SELECT ON entry, posting, hold TO purser_sealer;
GRANT SELECT, INSERT ON sealed_block TO purser_sealer;
