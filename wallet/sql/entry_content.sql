-- The canonical text of an entry: what its caller asked for, and nothing that the ledger added. The same
-- text comes out of the caller's input and out of the stored rows, so that a repeated id can be
-- compared, the chain can be sealed over it, and `ledger verify` can find a row that was changed.

CREATE OR REPLACE FUNCTION microseconds(instant timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT (extract(epoch FROM instant) * 1000000)::bigint $$;

-- One leg. No part of it can contain the separator, so no two legs share a text.
CREATE OR REPLACE FUNCTION leg_content(
    action text, hold_id uuid, debit_account_id uuid, credit_account_id uuid, amount_minor bigint,
    currency text, expires_at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
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
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
    SELECT format('%s|%s|%s|%s|%s|%s|%s|%s|%s', entry_id, kind, microseconds(effective_at), order_id,
                  operation_id, merchant_id, legs, facts, description)
$$;

-- The text of stored entries, from their rows.
CREATE OR REPLACE FUNCTION stored_content(sequences bigint[])
RETURNS TABLE (sequence bigint, entry_id uuid, recorded_at timestamptz, transaction_id xid8,
               content_hash bytea, content text)
LANGUAGE sql STABLE SET enable_seqscan = off AS
$$
    SELECT e.sequence, e.entry_id, e.recorded_at, e.transaction_id, e.content_hash,
           entry_content(e.entry_id, e.kind, e.effective_at, e.order_id, e.operation_id, e.merchant_id,
                         legs.content, e.facts, e.description)
    FROM unnest(sequences) AS wanted (sequence)
    JOIN entry e ON e.sequence = wanted.sequence
    CROSS JOIN LATERAL (
        SELECT string_agg(leg.content, '|' ORDER BY leg.line) AS content
        FROM (
            SELECT p.line, leg_content(
                       CASE WHEN p.hold_id IS NULL THEN 'POST' ELSE 'POST_HOLD' END, p.hold_id,
                       p.debit_account_id, p.credit_account_id, p.amount_minor, p.currency, NULL)
            FROM posting p WHERE p.sequence = e.sequence
            UNION ALL
            SELECT h.line, leg_content('HOLD', h.hold_id, h.debit_account_id, h.credit_account_id,
                                       h.amount_minor, h.currency, h.expires_at)
            FROM hold h WHERE h.sequence = e.sequence
            UNION ALL
            SELECT h.resolved_line, leg_content(
                       CASE h.state WHEN 'VOIDED' THEN 'VOID_HOLD' ELSE 'EXPIRE_HOLD' END,
                       h.hold_id, NULL, NULL, NULL, NULL, NULL)
            FROM hold h WHERE h.resolved_sequence = e.sequence AND h.state <> 'POSTED'
        ) AS leg (line, content)
    ) AS legs
$$;
GRANT EXECUTE ON FUNCTION microseconds(timestamptz),
    leg_content(text, uuid, uuid, uuid, bigint, text, timestamptz),
    entry_content(uuid, text, timestamptz, uuid, uuid, uuid, text, jsonb, text),
    stored_content(bigint[]) TO purser_poster, purser_sealer, purser_reader;
