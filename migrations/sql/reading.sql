-- Guards of the checkpoints, and the indexes of the pages that people read.

-- Whoever keeps the checkpoints holds this row meanwhile, so that one does at a time.
INSERT INTO follower (name) VALUES ('checkpoint');

ALTER TABLE journal_mark
    ADD COLUMN transaction_id xid8 NOT NULL UNIQUE;

ALTER TABLE account_checkpoint DROP CONSTRAINT account_checkpoint_pkey;
ALTER TABLE account_checkpoint
    -- What the sums contain: all of the account that this snapshot sees.
    ADD COLUMN snapshot pg_snapshot NOT NULL,
    ADD PRIMARY KEY (account_id, number),
    ADD CONSTRAINT account_checkpoint_not_negative
        CHECK (least(debits_posted, credits_posted, debits_pending) >= 0),
    ADD CONSTRAINT account_checkpoint_ceiling CHECK (ceiling_sequence >= last_sequence),
    ADD CONSTRAINT account_checkpoint_account FOREIGN KEY (account_id) REFERENCES account;
CREATE INDEX account_checkpoint_by_version
    ON account_checkpoint (account_id, pg_snapshot_xmax(snapshot), number);
CREATE INDEX account_checkpoint_by_instant ON account_checkpoint (account_id, recorded_max_at, number);

CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON account_checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON journal_mark
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The application has no grant here: what is read of them is a balance, by functions that look whose it is.
ALTER TABLE account_checkpoint ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE journal_mark ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY poster ON account_checkpoint TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY reader ON account_checkpoint FOR SELECT TO purser_reader USING (true);
CREATE POLICY poster ON journal_mark TO purser_poster USING (true) WITH CHECK (true);
CREATE POLICY reader ON journal_mark FOR SELECT TO purser_reader USING (true);
GRANT SELECT, INSERT, UPDATE (ceiling_sequence) ON account_checkpoint TO purser_poster;
GRANT SELECT, INSERT ON journal_mark TO purser_poster;
GRANT SELECT ON account_checkpoint, journal_mark TO purser_reader;

-- What was held and is released or posted later, for the history of an account; paying holds nothing.
CREATE INDEX hold_resolved ON hold (debit_account_id, resolved_sequence) WHERE resolved_sequence IS NOT NULL;

-- Orders of a merchant by all that people ask for: the same write as the index that it replaces.
DROP INDEX payment_order_by_merchant;
CREATE INDEX payment_order_search ON payment_order (merchant_id, currency, type, state, created_at, order_id);
-- Orders of all merchants by time: rows come in its order, so a summary costs next to nothing.
CREATE INDEX payment_order_created ON payment_order USING brin (created_at)
    WITH (pages_per_range = 16, autosummarize = on);
-- What the sweeper looks for each second.
CREATE INDEX payment_order_late ON payment_order (updated_at) WHERE state = 'LATE_PAID';

-- A merchant's events are shown in the order of their time.
DROP INDEX outbox_merchant;
CREATE INDEX outbox_by_merchant ON outbox (merchant_id, created_at, event_id) WHERE merchant_id IS NOT NULL;
