-- The proof that the books are what they should be. Each function is one statement, hence one instant, and
-- returns what it found wrong; the large ones go through the journal in pieces. They only read.

CREATE OR REPLACE FUNCTION require_auditor() RETURNS void
LANGUAGE plpgsql STABLE AS
$$
BEGIN
    -- Without this, somebody who may see nothing would find nothing wrong.
    IF NOT principal_sees(NULL) THEN
        RAISE EXCEPTION 'only operators and the system verify the ledger'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

-- Every account: its columns equal its postings and holds, and it is above its floor. Every currency: debits
-- equal credits.
CREATE OR REPLACE FUNCTION verify_accounts(findings_max integer)
RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
BEGIN
    PERFORM require_auditor();
    RETURN QUERY
    WITH moved AS (
        SELECT side.account_id,
               sum(side.debit_minor) AS debits, sum(side.credit_minor) AS credits,
               sum(side.debit_minor) FILTER (WHERE rolled) AS rolled_debits,
               sum(side.credit_minor) FILTER (WHERE rolled) AS rolled_credits
        FROM (SELECT debit_account_id, amount_minor, 0, debit_buffered, transaction_id FROM posting
              UNION ALL
              SELECT credit_account_id, 0, amount_minor, credit_buffered, transaction_id FROM posting
             ) AS side (account_id, debit_minor, credit_minor, buffered, transaction_id)
        JOIN account a ON a.account_id = side.account_id
        CROSS JOIN LATERAL (SELECT NOT side.buffered OR coalesce(
            pg_visible_in_snapshot(side.transaction_id, a.rolled_up_to), false)) AS r (rolled)
        GROUP BY side.account_id
    ), held AS (
        SELECT debit_account_id AS account_id, sum(amount_minor) AS pending
        FROM hold WHERE state = 'PENDING' GROUP BY debit_account_id
    ), book AS (
        SELECT a.*, coalesce(m.debits, 0) AS debits, coalesce(m.credits, 0) AS credits,
               coalesce(m.rolled_debits, 0) AS rolled_debits, coalesce(m.rolled_credits, 0) AS rolled_credits,
               coalesce(h.pending, 0) AS pending
        FROM account a
        LEFT JOIN moved m ON m.account_id = a.account_id
        LEFT JOIN held h ON h.account_id = a.account_id
    )
    (SELECT 'BALANCE_DIFFERS', b.account_id::text, format(
         'columns %s and %s, postings %s and %s', b.debits_posted, b.credits_posted, b.rolled_debits,
         b.rolled_credits)
     FROM book b
     WHERE b.debits_posted <> b.rolled_debits OR b.credits_posted <> b.rolled_credits
     LIMIT findings_max)
    UNION ALL
    (SELECT 'PENDING_DIFFERS', b.account_id::text, format(
         'columns %s and %s, pending holds %s', b.debits_pending, b.credits_pending, b.pending)
     FROM book b WHERE b.debits_pending <> b.pending OR b.credits_pending <> 0
     LIMIT findings_max)
    UNION ALL
    (SELECT 'BELOW_FLOOR', b.account_id::text, format('%s debits, %s credits, %s pending, limit %s',
         b.debits, b.credits, b.pending, b.credit_limit_minor)
     FROM book b
     WHERE b.has_floor AND b.credit_limit_minor + CASE b.normal_side
         WHEN 'credit' THEN b.credits - b.debits - b.pending ELSE b.debits - b.credits END < 0
     LIMIT findings_max)
    UNION ALL
    (SELECT 'CURRENCY_UNBALANCED', b.currency::text, format('debits %s, credits %s', sum(b.debits), sum(b.credits))
     FROM book b GROUP BY b.currency HAVING sum(b.debits) <> sum(b.credits));
END
$$;

-- Every hold: resolved once, by an entry that is there, and what was posted of it equals its postings.
CREATE OR REPLACE FUNCTION verify_holds(findings_max integer)
RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
BEGIN
    PERFORM require_auditor();
    RETURN QUERY
    SELECT 'HOLD_DIFFERS', coalesce(h.hold_id, p.hold_id)::text,
           format('%s, posted %s, postings %s', coalesce(h.state, 'missing'), h.posted_minor, p.posted)
    FROM hold h
    FULL JOIN (SELECT hold_id, sum(amount_minor) AS posted, min(sequence) AS first_sequence,
                      max(sequence) AS last_sequence, min(debit_account_id::text) AS debit_account_id
               FROM posting WHERE hold_id IS NOT NULL GROUP BY hold_id) AS p ON p.hold_id = h.hold_id
    WHERE h.hold_id IS NULL
       OR h.posted_minor <> coalesce(p.posted, 0)
       OR p.hold_id IS NOT NULL AND (h.state <> 'POSTED' OR p.debit_account_id <> h.debit_account_id::text
           OR p.first_sequence <> h.resolved_sequence OR p.last_sequence <> h.resolved_sequence)
       OR NOT EXISTS (SELECT FROM entry e WHERE e.sequence = h.sequence)
       OR h.resolved_sequence IS NOT NULL
          AND NOT EXISTS (SELECT FROM entry e WHERE e.sequence = h.resolved_sequence)
    LIMIT findings_max;
END
$$;

-- A posting without its entry, or without its accounts in its currency.
CREATE OR REPLACE FUNCTION verify_postings(findings_max integer)
RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
BEGIN
    PERFORM require_auditor();
    RETURN QUERY
    (SELECT 'ENTRY_MISSING', p.sequence::text, format('posting %s of %s', p.line, p.amount_minor)
     FROM posting p
     WHERE NOT EXISTS (SELECT FROM entry e WHERE e.sequence = p.sequence)
     LIMIT findings_max)
    UNION ALL
    (SELECT 'ACCOUNT_DIFFERS', p.sequence::text, format('posting %s in %s', p.line, p.currency)
     FROM posting p
     LEFT JOIN account debit ON debit.account_id = p.debit_account_id AND debit.currency = p.currency
     LEFT JOIN account credit ON credit.account_id = p.credit_account_id AND credit.currency = p.currency
     WHERE debit.account_id IS NULL OR credit.account_id IS NULL
     LIMIT findings_max);
END
$$;

-- The entries after `after_sequence`: each says what its caller sent. `last_sequence` is where to go on, NULL
-- at the end.
CREATE OR REPLACE FUNCTION verify_entries(
    after_sequence bigint, entries_max integer,
    OUT entries_count integer, OUT last_sequence bigint, OUT differing bigint[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
DECLARE
    sequences bigint[];
BEGIN
    PERFORM require_auditor();
    sequences := ARRAY(SELECT e.sequence FROM entry e WHERE e.sequence > after_sequence
                       ORDER BY e.sequence LIMIT entries_max);
    entries_count := cardinality(sequences);
    last_sequence := sequences[entries_count];
    SELECT array_agg(s.sequence ORDER BY s.sequence) INTO differing
    FROM stored_content(sequences) AS s
    WHERE s.content_hash <> sha256(convert_to(s.content, 'UTF8'));
END
$$;

-- Some blocks of the chain: each follows the one before it, and its hash is that of its entries as they are
-- stored now.
CREATE OR REPLACE FUNCTION verify_blocks(after_block bigint, blocks_max integer)
RETURNS TABLE (block_number bigint, entries_count integer, linked boolean, sound boolean, block_hash bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
#variable_conflict use_column
BEGIN
    PERFORM require_auditor();
    RETURN QUERY
    SELECT b.block_number, b.entries_count,
           b.previous_hash = coalesce((SELECT p.block_hash FROM sealed_block p
                                       WHERE p.block_number = b.block_number - 1),
                                      CASE b.block_number WHEN 1 THEN decode(repeat('00', 32), 'hex')
                                                          ELSE ''::bytea END),
           coalesce(b.block_hash = block_hash(b.previous_hash, b.entry_sequences), false),
           b.block_hash
    FROM sealed_block b
    WHERE b.block_number > after_block
    ORDER BY b.block_number LIMIT blocks_max;
END
$$;

-- Entries that the sealer has passed: each is in exactly one block, and nothing else is in any.
CREATE OR REPLACE FUNCTION verify_sealing(findings_max integer)
RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
BEGIN
    PERFORM require_auditor();
    RETURN QUERY
    SELECT CASE WHEN e.sequence IS NULL THEN 'SEALED_ENTRY_MISSING'
                WHEN s.sequence IS NULL THEN 'ENTRY_NOT_SEALED' ELSE 'ENTRY_SEALED_TWICE' END,
           coalesce(e.sequence, s.sequence)::text,
           format('in %s blocks', coalesce(s.blocks_count, 0))
    FROM (SELECT entry.sequence FROM entry, follower
          WHERE follower.name = 'seal' AND pg_visible_in_snapshot(entry.transaction_id, follower.consumed)) AS e
    FULL JOIN (SELECT unnest(b.entry_sequences) AS sequence, count(*) AS blocks_count
               FROM sealed_block b GROUP BY 1) AS s ON s.sequence = e.sequence
    WHERE e.sequence IS NULL OR s.sequence IS NULL OR s.blocks_count > 1
    LIMIT findings_max;
END
$$;

-- Snapshots that this cluster has not reached yet: the database came from another one by dump and restore,
-- where transaction ids start again, and its followers would skip entries.
CREATE OR REPLACE FUNCTION verify_snapshots(findings_max integer)
RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
BEGIN
    PERFORM require_auditor();
    RETURN QUERY
    SELECT 'SNAPSHOT_FROM_THE_FUTURE', s.subject, s.snapshot::text
    FROM (SELECT f.name::text, f.consumed FROM follower f
          UNION ALL
          SELECT a.account_id::text, a.rolled_up_to FROM account a WHERE a.buffered
          UNION ALL
          SELECT c.account_id::text, c.snapshot FROM account_checkpoint c) AS s (subject, snapshot)
    WHERE pg_snapshot_xmax(s.snapshot) > pg_snapshot_xmax(pg_current_snapshot())
    LIMIT findings_max;
END
$$;

-- Every checkpoint: its sums are those of the events that its snapshot sees, and its bounds leave none out.
-- Each event belongs to the first checkpoint that sees it; from there on the sums only grow.
CREATE OR REPLACE FUNCTION verify_checkpoints(findings_max integer)
RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
BEGIN
    PERFORM require_auditor();
    RETURN QUERY
    WITH bounds AS (
        SELECT c.account_id,
               array_agg(pg_snapshot_xmax(c.snapshot) ORDER BY pg_snapshot_xmax(c.snapshot), c.number) AS ends,
               array_agg(c.number ORDER BY pg_snapshot_xmax(c.snapshot), c.number) AS numbers,
               array_agg(c.recorded_max_at ORDER BY pg_snapshot_xmax(c.snapshot), c.number) AS maxima
        FROM account_checkpoint c GROUP BY c.account_id
    ), placed AS MATERIALIZED (
        -- A binary search finds the first that may have seen it; the long arrays stay behind here.
        SELECT b.account_id, e.*, b.numbers[place + 1] AS number,
               coalesce(e.recorded_at < b.maxima[place], false) AS late
        FROM bounds b CROSS JOIN LATERAL account_events(b.account_id, 0, 9223372036854775807) AS e
        CROSS JOIN LATERAL (SELECT width_bucket(e.transaction_id, b.ends)) AS before (place)
    ), seen AS MATERIALIZED (
        SELECT p.account_id, p.sequence, p.recorded_at, p.debit_minor, p.credit_minor, p.held_minor,
               p.late OR NOT pg_visible_in_snapshot(p.transaction_id, c.snapshot) AS late, CASE
                   WHEN pg_visible_in_snapshot(p.transaction_id, c.snapshot) THEN p.number
                   -- It was in progress then.
                   ELSE (SELECT later.number FROM account_checkpoint later
                         WHERE later.account_id = p.account_id
                           AND pg_snapshot_xmax(later.snapshot) > p.transaction_id
                           AND pg_visible_in_snapshot(p.transaction_id, later.snapshot)
                         ORDER BY pg_snapshot_xmax(later.snapshot), later.number LIMIT 1) END AS number
        FROM placed p JOIN account_checkpoint c ON c.account_id = p.account_id AND c.number = p.number
    ), summed AS (
        SELECT s.account_id, s.number, sum(s.debit_minor) AS debits_minor, sum(s.credit_minor) AS credits_minor,
               sum(s.held_minor) AS held_minor, max(s.sequence) AS last_sequence,
               max(s.recorded_at) AS recorded_max_at
        FROM seen s GROUP BY s.account_id, s.number
    ), counted AS (
        SELECT c.account_id, c.number,
               (c.debits_posted, c.credits_posted, c.debits_pending, c.last_sequence, c.recorded_max_at)::text
                   AS written,
               (sum(s.debits_minor) OVER upward, sum(s.credits_minor) OVER upward,
                sum(s.held_minor) OVER upward, max(s.last_sequence) OVER upward,
                max(s.recorded_max_at) OVER upward)::text AS right_one
        FROM account_checkpoint c LEFT JOIN summed s ON s.account_id = c.account_id AND s.number = c.number
        WINDOW upward AS (PARTITION BY c.account_id ORDER BY c.number)
    )
    (SELECT 'CHECKPOINT_DIFFERS', format('%s %s', c.account_id, c.number),
            format('%s written, %s counted', c.written, c.right_one)
     FROM counted c WHERE c.written IS DISTINCT FROM c.right_one
     LIMIT findings_max)
    UNION ALL
    -- Recorded before the last event of an older checkpoint, and above what that one says.
    (SELECT 'CHECKPOINT_PASSED_OVER', format('%s %s', older.account_id, older.number),
            format('ceiling %s, event at %s', older.ceiling_sequence, s.sequence)
     FROM seen s JOIN account_checkpoint older ON older.account_id = s.account_id
         AND older.number < s.number AND older.recorded_max_at > s.recorded_at
         AND older.ceiling_sequence < s.sequence
     WHERE s.late
     LIMIT findings_max);
END
$$;

-- Every mark: what later transactions booked is above it.
CREATE OR REPLACE FUNCTION verify_marks(findings_max integer)
RETURNS TABLE (finding text, subject text, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
DECLARE
    transaction_ids xid8[];
    sequences bigint[];
BEGIN
    PERFORM require_auditor();
    SELECT array_agg(m.transaction_id ORDER BY m.transaction_id),
           array_agg(m.sequence ORDER BY m.transaction_id)
    INTO transaction_ids, sequences FROM journal_mark m;
    RETURN QUERY
    SELECT 'ENTRY_BELOW_MARK', e.sequence::text,
           format('of transaction %s, marked %s', e.transaction_id, mark.sequence)
    FROM entry e
    CROSS JOIN LATERAL (SELECT sequences[width_bucket(e.transaction_id, transaction_ids)]) AS mark (sequence)
    WHERE e.sequence <= mark.sequence
    LIMIT findings_max;
END
$$;

ALTER FUNCTION verify_accounts(integer) OWNER TO purser_reader;
ALTER FUNCTION verify_holds(integer) OWNER TO purser_reader;
ALTER FUNCTION verify_postings(integer) OWNER TO purser_reader;
ALTER FUNCTION verify_entries(bigint, integer) OWNER TO purser_reader;
ALTER FUNCTION verify_blocks(bigint, integer) OWNER TO purser_reader;
ALTER FUNCTION verify_sealing(integer) OWNER TO purser_reader;
ALTER FUNCTION verify_snapshots(integer) OWNER TO purser_reader;
ALTER FUNCTION verify_checkpoints(integer) OWNER TO purser_reader;
ALTER FUNCTION verify_marks(integer) OWNER TO purser_reader;
REVOKE ALL ON FUNCTION require_auditor(), verify_accounts(integer), verify_holds(integer),
    verify_postings(integer), verify_entries(bigint, integer), verify_blocks(bigint, integer),
    verify_sealing(integer), verify_snapshots(integer), verify_checkpoints(integer), verify_marks(integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION require_auditor() TO purser_reader;
GRANT EXECUTE ON FUNCTION verify_accounts(integer), verify_holds(integer), verify_postings(integer),
    verify_entries(bigint, integer), verify_blocks(bigint, integer), verify_sealing(integer),
    verify_snapshots(integer), verify_checkpoints(integer), verify_marks(integer) TO purser_app;
