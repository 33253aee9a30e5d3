-- The canonical text of an entry: what its caller asked for, and nothing that the ledger added. The same
-- text comes out of the caller's input and out of the stored rows, so that a repeated id can be
-- compared, the chain can be sealed over it, and `ledger verify` can find a row that was changed.

CREATE OR REPLACE FUNCTION microseconds(instant timestamptz) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT (extract(epoch FROM instant) * 1000000)::bigint $$;

-- One leg. No part of it can contain the separator, so no two legs share a text.
CREATE OR REPLACE FUNCTION leg_content(
    action text, hold_id uuid, debit_account_id uuid, credit_account_id uuid, amount_minor bigint,
    currency text, expires_at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS
$$
    SELECT CASE action
        WHEN 'POST' THEN format('POST:%s:%s:%s:%s', debit_account_id, credit_account_id, amount_minor, currency)
        WHEN 'POST_HOLD' THEN format('POST_HOLD:%s:%s:%s', hold_id, credit_account_id, amount_minor)
        WHEN 'HOLD' THEN format('HOLD:%s:%s:%s:%s:%s:%s', hold_id, debit_account_id, credit_account_id,
                                amount_minor, currency, microseconds(expires_at))
        ELSE format('%s:%s', action, hold_id) END
$$;

-- The free text stands last and the facts are JSON, which ends by itself: no two entries share a text.
CREATE OR REPLACE FUNCTION entry_content(
    entry_id uuid, kind text, effective_at timestamptz, order_id uuid, operation_id uuid, merchant_id uuid,
    legs text, facts jsonb, description text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS
$$
    SELECT format('%s|%s|%s|%s|%s|%s|%s|%s|%s', entry_id, kind, microseconds(effective_at), order_id,
                  operation_id, merchant_id, legs, facts, description)
$$;

-- Stored entries, from their rows: `content` is the text above, `added` what the ledger itself put beside it.
-- Together they leave no column out, so the chain covers them all.
CREATE OR REPLACE FUNCTION stored_content(sequences bigint[])
RETURNS TABLE (sequence bigint, content_hash bytea, content text, added text)
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off AS
$$
    SELECT e.sequence, e.content_hash,
           entry_content(e.entry_id, e.kind, e.effective_at, e.order_id, e.operation_id, e.merchant_id,
                         legs.content, e.facts, e.description),
           format('%s:%s:%s|%s', e.transaction_id, microseconds(e.recorded_at), encode(e.content_hash, 'hex'),
                  legs.added)
    FROM unnest(sequences) AS wanted (sequence)
    -- OFFSET 0 keeps it a look-up per entry, whatever the planner thinks of the tables' sizes.
    CROSS JOIN LATERAL (SELECT * FROM entry WHERE entry.sequence = wanted.sequence OFFSET 0) AS e
    CROSS JOIN LATERAL (
        SELECT string_agg(leg.content, '|' ORDER BY leg.line) FILTER (WHERE leg.content IS NOT NULL),
               string_agg(leg.added, '|' ORDER BY leg.line, leg.added)
        FROM (
            SELECT p.line, leg_content(
                       CASE WHEN p.hold_id IS NULL THEN 'POST' ELSE 'POST_HOLD' END, p.hold_id,
                       p.debit_account_id, p.credit_account_id, p.amount_minor, p.currency, NULL),
                   format('%s:%s:%s:%s:%s:%s:%s', p.line, p.debit_account_id, p.currency, p.debit_buffered,
                          p.credit_buffered, p.transaction_id, microseconds(p.recorded_at))
            FROM posting p WHERE p.sequence = e.sequence
            UNION ALL
            SELECT h.line, leg_content('HOLD', h.hold_id, h.debit_account_id, h.credit_account_id,
                                       h.amount_minor, h.currency, h.expires_at),
                   format('%s:%s', h.line, h.transaction_id)
            FROM hold h WHERE h.sequence = e.sequence
            UNION ALL
            SELECT h.resolved_line, CASE WHEN h.state <> 'POSTED' THEN leg_content(
                       CASE h.state WHEN 'VOIDED' THEN 'VOID_HOLD' ELSE 'EXPIRE_HOLD' END,
                       h.hold_id, NULL, NULL, NULL, NULL, NULL) END,
                   format('%s:%s:%s:%s:%s:%s', h.resolved_line, h.hold_id, h.state, h.posted_minor,
                          h.resolved_transaction_id, microseconds(h.resolved_at))
            FROM hold h WHERE h.resolved_sequence = e.sequence
        ) AS leg (line, content, added)
    ) AS legs (content, added)
$$;
REVOKE ALL ON FUNCTION stored_content(bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION microseconds(timestamptz),
    leg_content(text, uuid, uuid, uuid, bigint, text, timestamptz),
    entry_content(uuid, text, timestamptz, uuid, uuid, uuid, text, jsonb, text),
    stored_content(bigint[]) TO purser_poster, purser_sealer, purser_reader;
