-- Balances of the past. An account's history is the sum of its events: each posting, each hold when it is
-- made, and again when it is resolved. A checkpoint holds the sums of all events that one snapshot sees; a
-- read starts from the nearest one before and adds the few events that it lacks. Everything that decides
-- which those are is data that was written with the checkpoints, so that late commits, long transactions
-- and clocks that go back make a read slower and never wrong.

-- The events of an account with `after_sequence < sequence <= last_sequence`. A hold is set aside when it
-- was recorded, and not before then released.
CREATE OR REPLACE FUNCTION account_events(of_account_id uuid, after_sequence bigint, last_sequence bigint)
RETURNS TABLE (sequence bigint, transaction_id xid8, recorded_at timestamptz,
               debit_minor bigint, credit_minor bigint, held_minor bigint)
LANGUAGE sql STABLE AS
$$
    SELECT p.sequence, p.transaction_id, p.recorded_at, p.amount_minor, 0::bigint, 0::bigint
    FROM posting p
    WHERE p.debit_account_id = of_account_id AND p.sequence > after_sequence AND p.sequence <= last_sequence
    UNION ALL
    SELECT p.sequence, p.transaction_id, p.recorded_at, 0, p.amount_minor, 0
    FROM posting p
    WHERE p.credit_account_id = of_account_id AND p.sequence > after_sequence AND p.sequence <= last_sequence
    UNION ALL
    SELECT h.sequence, h.transaction_id, e.recorded_at, 0, 0, h.amount_minor
    FROM hold h JOIN entry e ON e.sequence = h.sequence
    WHERE h.debit_account_id = of_account_id AND h.sequence > after_sequence AND h.sequence <= last_sequence
    UNION ALL
    SELECT h.resolved_sequence, h.resolved_transaction_id, greatest(e.recorded_at, h.resolved_at), 0, 0,
           -h.amount_minor
    FROM hold h JOIN entry e ON e.sequence = h.sequence
    WHERE h.debit_account_id = of_account_id
      AND h.resolved_sequence > after_sequence AND h.resolved_sequence <= last_sequence
$$;

-- Every entry that a snapshot does not see has a sequence above this: its transaction got its number after
-- the mark's, and an entry gets its sequence after its transaction has a number (see `post_entries.sql`).
CREATE OR REPLACE FUNCTION sequence_floor(snapshot pg_snapshot) RETURNS bigint
LANGUAGE sql STABLE AS
$$
    SELECT coalesce((SELECT m.sequence FROM journal_mark m
                     WHERE m.transaction_id < pg_snapshot_xmin(snapshot)
                     ORDER BY m.transaction_id DESC LIMIT 1), 0)
$$;

-- No event of the account that the snapshot sees has a sequence above this: they were all over when the
-- first checkpoint was written that comes wholly after the snapshot.
CREATE OR REPLACE FUNCTION sequence_reach(of_account_id uuid, seen pg_snapshot) RETURNS bigint
LANGUAGE sql STABLE AS
$$
    SELECT coalesce((SELECT c.last_sequence FROM account_checkpoint c
                     WHERE c.account_id = of_account_id
                       AND pg_snapshot_xmax(c.snapshot) >= pg_snapshot_xmax(seen)
                       AND pg_snapshot_xmin(c.snapshot) >= pg_snapshot_xmax(seen)
                     ORDER BY pg_snapshot_xmax(c.snapshot), c.number LIMIT 1), 9223372036854775807)
$$;

-- The posted balance and the holds of an account as they were: at a ledger version exactly; at an instant,
-- what was recorded by then and is committed now.
CREATE OR REPLACE FUNCTION read_balance_as_of(of_account_id uuid, version text, instant timestamptz)
RETURNS TABLE (posted_minor bigint, pending_minor bigint, credit_limit_minor bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS
$$
#variable_conflict use_column
DECLARE
    seen pg_snapshot := version::pg_snapshot;
    base account_checkpoint;
    newest account_checkpoint;
    ceiling bigint := 9223372036854775807;
    newest_floor bigint;
    debits_minor numeric;
    credits_minor numeric;
    held_minor numeric;
BEGIN
    PERFORM FROM account a WHERE a.account_id = of_account_id AND account_seen(a);
    IF NOT FOUND THEN
        RETURN;
    END IF;

    IF version IS NOT NULL THEN
        -- All that the checkpoint saw was over before the oldest transaction that the version did not see.
        SELECT c.* INTO base FROM account_checkpoint c
        WHERE c.account_id = of_account_id AND pg_snapshot_xmax(c.snapshot) <= pg_snapshot_xmin(seen)
        ORDER BY pg_snapshot_xmax(c.snapshot) DESC, c.number DESC LIMIT 1;
        ceiling := sequence_reach(of_account_id, seen);
        newest_floor := 9223372036854775807;
    ELSE
        SELECT c.* INTO base FROM account_checkpoint c
        WHERE c.account_id = of_account_id AND c.recorded_max_at <= instant
        ORDER BY c.recorded_max_at DESC, c.number DESC LIMIT 1;
        -- What the next checkpoint and later ones have of that time is not above the next one's ceiling;
        -- what none has is above the newest one's floor.
        SELECT c.ceiling_sequence INTO ceiling FROM account_checkpoint c
        WHERE c.account_id = of_account_id AND c.number > coalesce(base.number, 0)
        ORDER BY c.number LIMIT 1;
        SELECT c.* INTO newest FROM account_checkpoint c
        WHERE c.account_id = of_account_id ORDER BY c.number DESC LIMIT 1;
        newest_floor := coalesce(sequence_floor(newest.snapshot), 0);
        IF ceiling IS NULL OR ceiling >= newest_floor THEN
            ceiling := 9223372036854775807;
            newest_floor := ceiling;
        END IF;
    END IF;

    SELECT coalesce(sum(e.debit_minor), 0) + coalesce(base.debits_posted, 0),
           coalesce(sum(e.credit_minor), 0) + coalesce(base.credits_posted, 0),
           coalesce(sum(e.held_minor), 0) + coalesce(base.debits_pending, 0)
    INTO debits_minor, credits_minor, held_minor
    FROM (
        SELECT * FROM account_events(of_account_id, coalesce(sequence_floor(base.snapshot), 0), ceiling) AS near
        WHERE NOT pg_visible_in_snapshot(near.transaction_id, coalesce(base.snapshot, '3:3:'))
        UNION ALL
        SELECT * FROM account_events(of_account_id, newest_floor, 9223372036854775807) AS fresh
        WHERE NOT pg_visible_in_snapshot(fresh.transaction_id, coalesce(newest.snapshot, '3:3:'))
    ) AS e
    WHERE CASE WHEN seen IS NOT NULL THEN pg_visible_in_snapshot(e.transaction_id, seen)
               ELSE e.recorded_at <= instant END;

    RETURN QUERY
    SELECT (CASE a.normal_side WHEN 'credit' THEN credits_minor - debits_minor
                               ELSE debits_minor - credits_minor END)::bigint,
           CASE a.normal_side WHEN 'credit' THEN held_minor ELSE 0 END::bigint,
           a.credit_limit_minor
    FROM account a WHERE a.account_id = of_account_id;
END
$$;

ALTER FUNCTION read_balance_as_of(uuid, text, timestamptz) OWNER TO purser_reader;
REVOKE ALL ON FUNCTION account_events(uuid, bigint, bigint), sequence_floor(pg_snapshot),
    sequence_reach(uuid, pg_snapshot), read_balance_as_of(uuid, text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION account_events(uuid, bigint, bigint), sequence_floor(pg_snapshot)
    TO purser_poster, purser_reader;
GRANT EXECUTE ON FUNCTION sequence_reach(uuid, pg_snapshot) TO purser_reader;
GRANT EXECUTE ON FUNCTION read_balance_as_of(uuid, text, timestamptz) TO purser_app;
