-- The worker that keeps the checkpoints: sums of accounts up to a snapshot, behind the payments.
--
-- Each time the journal has grown by `entries_min` entries, one of about as many is drawn, by a hash of its
-- number, and the accounts that it touched get a checkpoint. So an account has one about every `entries_min`
-- of its own entries, whether it is in each entry or in one of a thousand, and nothing is counted for it on
-- the way of a payment. A busy account has one at each step.

-- The worker's step; returns how many checkpoints it wrote. One at a time: a second worker finds the
-- follower locked and gets nothing. It is one transaction: killed anywhere, it has done nothing.
CREATE OR REPLACE FUNCTION keep_checkpoints(entries_min integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS
$$
#variable_conflict use_column
DECLARE
    numbered boolean := pg_current_xact_id_if_assigned() IS NOT NULL;
    -- Read before this transaction has a number: all that have a later one number their entries above it.
    reached bigint := coalesce((SELECT max(e.sequence) FROM entry e), 0);
    marked bigint;
    written_count integer;
BEGIN
    PERFORM FROM follower f WHERE f.name = 'checkpoint' FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    marked := coalesce((SELECT max(m.sequence) FROM journal_mark m), 0);
    IF numbered OR reached < marked + entries_min THEN
        RETURN 0;
    END IF;

    written_count := write_checkpoints(ARRAY(
        SELECT DISTINCT side.account_id
        -- After a long pause only the newest are looked at: one checkpoint ends all of it.
        FROM generate_series(greatest(marked + 1, reached - 100 * entries_min), reached) AS drawn (sequence)
        CROSS JOIN LATERAL (
            SELECT p.debit_account_id FROM posting p WHERE p.sequence = drawn.sequence
            UNION ALL
            SELECT p.credit_account_id FROM posting p WHERE p.sequence = drawn.sequence
            UNION ALL
            SELECT h.debit_account_id FROM hold h WHERE h.sequence = drawn.sequence
            UNION ALL
            SELECT h.debit_account_id FROM hold h WHERE h.resolved_sequence = drawn.sequence
        ) AS side (account_id)
        WHERE hashint8(drawn.sequence) % entries_min = 0));
    INSERT INTO journal_mark (sequence, transaction_id) VALUES (reached, pg_current_xact_id());
    UPDATE follower SET advanced_at = purser_now() WHERE name = 'checkpoint';
    RETURN written_count;
END
$$;
ALTER FUNCTION keep_checkpoints(integer) OWNER TO purser_poster;

-- Writes the next checkpoint of each of these accounts that has moved since its last one. The caller keeps
-- others from doing so meanwhile. Sums and snapshot are read by one statement, hence from one instant.
CREATE OR REPLACE FUNCTION write_checkpoints(account_ids uuid[]) RETURNS integer
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS
$$
#variable_conflict use_column
DECLARE
    of_account_id uuid;
    last account_checkpoint;
    fresh record;
    written_count integer := 0;
BEGIN
    FOREACH of_account_id IN ARRAY account_ids LOOP
        SELECT c.* INTO last FROM account_checkpoint c
        WHERE c.account_id = of_account_id ORDER BY c.number DESC LIMIT 1;

        SELECT snapshot_without(pg_current_snapshot(), pg_current_xact_id_if_assigned()) AS snapshot,
               sum(e.debit_minor)::bigint AS debits_minor, sum(e.credit_minor)::bigint AS credits_minor,
               sum(e.held_minor)::bigint AS held_minor, count(*) AS events_count,
               max(e.sequence) AS last_sequence, max(e.recorded_at) AS recorded_max_at,
               -- What was recorded before things that older checkpoints have seen already.
               min(e.recorded_at) FILTER (WHERE e.recorded_at <= last.recorded_max_at) AS late_min_at,
               max(e.sequence) FILTER (WHERE e.recorded_at <= last.recorded_max_at) AS late_sequence
        INTO fresh
        FROM account_events(of_account_id, coalesce(sequence_floor(last.snapshot), 0),
                            9223372036854775807) AS e
        WHERE NOT pg_visible_in_snapshot(e.transaction_id, coalesce(last.snapshot, '3:3:'))
          AND e.transaction_id IS DISTINCT FROM pg_current_xact_id_if_assigned();
        CONTINUE WHEN fresh.events_count = 0;

        UPDATE account_checkpoint c SET ceiling_sequence = fresh.late_sequence
        WHERE c.account_id = of_account_id AND c.recorded_max_at >= fresh.late_min_at
          AND c.ceiling_sequence < fresh.late_sequence;
        INSERT INTO account_checkpoint (
            account_id, number, snapshot, debits_posted, credits_posted, debits_pending, last_sequence,
            ceiling_sequence, recorded_max_at)
        SELECT of_account_id, coalesce(last.number, 0) + 1, fresh.snapshot,
               coalesce(last.debits_posted, 0) + fresh.debits_minor,
               coalesce(last.credits_posted, 0) + fresh.credits_minor,
               coalesce(last.debits_pending, 0) + fresh.held_minor,
               greatest(last.last_sequence, fresh.last_sequence),
               greatest(last.last_sequence, fresh.last_sequence),
               greatest(last.recorded_max_at, fresh.recorded_max_at);
        written_count := written_count + 1;
    END LOOP;
    RETURN written_count;
END
$$;

REVOKE ALL ON FUNCTION write_checkpoints(uuid[]), keep_checkpoints(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_checkpoints(uuid[]) TO purser_poster;
GRANT EXECUTE ON FUNCTION keep_checkpoints(integer) TO purser_app;
