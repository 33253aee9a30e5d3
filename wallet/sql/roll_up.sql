-- The roll-up: it carries postings of buffered accounts into their balance columns, some time after they
-- were committed. It never takes "all above the last number", because numbers are given before the
-- commit. It keeps the snapshot it has consumed and takes what that one did not see.

-- Rolls up some accounts, here and now, under their locks, which it takes in ascending order. Postings of
-- the transaction that runs it stay for the next time: it may still write more of them. A second call
-- finds nothing new and adds nothing. The sum and the snapshot are read by one statement, hence from
-- one and the same instant.
CREATE OR REPLACE FUNCTION roll_up_accounts(account_ids uuid[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off AS
$$
DECLARE
    own xid8 := pg_current_xact_id();
    rolled_up_count integer;
BEGIN
    PERFORM FROM account a
    WHERE a.account_id = ANY (account_ids) AND a.buffered
    ORDER BY a.account_id FOR NO KEY UPDATE;

    UPDATE account a
    SET debits_posted = a.debits_posted + fresh.debits_minor,
        credits_posted = a.credits_posted + fresh.credits_minor,
        rolled_up_to = fresh.snapshot,
        account_version = a.account_version + 1
    FROM (
        SELECT b.account_id, snapshot_without(pg_current_snapshot(), own) AS snapshot,
            coalesce((SELECT sum(p.amount_minor) FROM posting p
                      WHERE p.debit_account_id = b.account_id AND p.debit_buffered
                        AND p.transaction_id >= pg_snapshot_xmin(b.rolled_up_to)
                        AND NOT pg_visible_in_snapshot(p.transaction_id, b.rolled_up_to)
                        AND p.transaction_id <> own), 0) AS debits_minor,
            coalesce((SELECT sum(p.amount_minor) FROM posting p
                      WHERE p.credit_account_id = b.account_id AND p.credit_buffered
                        AND p.transaction_id >= pg_snapshot_xmin(b.rolled_up_to)
                        AND NOT pg_visible_in_snapshot(p.transaction_id, b.rolled_up_to)
                        AND p.transaction_id <> own), 0) AS credits_minor
        FROM account b
        WHERE b.account_id = ANY (account_ids) AND b.buffered
    ) AS fresh
    WHERE a.account_id = fresh.account_id;
    GET DIAGNOSTICS rolled_up_count = ROW_COUNT;
    RETURN rolled_up_count;
END
$$;
ALTER FUNCTION roll_up_accounts(uuid[]) OWNER TO purser_poster;

-- The worker's step: finds the buffered accounts that about `entries_max` entries touched which it has not
-- followed yet, and rolls them up. One at a time: a second worker finds the follower locked and gets
-- nothing. Returns how many entries it followed; 0 means that it has caught up.
CREATE OR REPLACE FUNCTION roll_up(entries_max integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off AS
$$
DECLARE
    was pg_snapshot;
    step record;
BEGIN
    SELECT f.consumed INTO was FROM follower f WHERE f.name = 'roll_up' FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT * INTO step FROM unfollowed(was, entries_max);
    IF step.entries_count = 0 THEN
        RETURN 0;
    END IF;

    PERFORM roll_up_accounts(ARRAY(
        SELECT DISTINCT side.account_id
        FROM unnest(step.sequences) AS followed (sequence)
        -- OFFSET 0 keeps it a look-up per entry, whatever the planner thinks of the tables' sizes.
        CROSS JOIN LATERAL (SELECT * FROM posting WHERE posting.sequence = followed.sequence OFFSET 0) AS p
        CROSS JOIN LATERAL (VALUES (p.debit_account_id, p.debit_buffered),
                                   (p.credit_account_id, p.credit_buffered)) AS side (account_id, buffered)
        WHERE side.buffered));

    UPDATE follower SET consumed = step.consumed, advanced_at = purser_now() WHERE name = 'roll_up';
    RETURN step.entries_count;
END
$$;
ALTER FUNCTION roll_up(integer) OWNER TO purser_poster;

-- The next entries of a follower that has consumed `was`: all of the oldest transactions that it did not
-- see, about `entries_max` entries, and the snapshot it has consumed once it has dealt with them. A
-- transaction is followed whole or not at all. A journal that was moved to another cluster has
-- snapshots from the future there; following it would silently skip entries, so that is an error.
CREATE OR REPLACE FUNCTION unfollowed(
    was pg_snapshot, entries_max integer,
    OUT sequences bigint[], OUT entries_count integer, OUT consumed pg_snapshot)
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS
$$
DECLARE
    present pg_snapshot := snapshot_without(pg_current_snapshot(), pg_current_xact_id_if_assigned());
    limit_id xid8;
BEGIN
    IF pg_snapshot_xmax(was) > pg_snapshot_xmax(present) THEN
        RAISE EXCEPTION 'the journal was followed in another cluster: its snapshots are from the future'
            USING ERRCODE = 'data_corrupted';
    END IF;
    SELECT max(fresh.transaction_id) INTO limit_id
    FROM (SELECT e.transaction_id FROM entry e
          WHERE e.transaction_id >= pg_snapshot_xmin(was)
            AND NOT pg_visible_in_snapshot(e.transaction_id, was)
            AND pg_visible_in_snapshot(e.transaction_id, present)
          ORDER BY e.transaction_id LIMIT entries_max) AS fresh;
    -- What was consumed stays consumed, even where an older transaction ended only now.
    consumed := snapshot_before(
        present, greatest((limit_id::text::numeric + 1)::text::xid8, pg_snapshot_xmax(was)));
    -- OFFSET 0: the order is made afterwards, not by a walk through the whole journal.
    SELECT array_agg(fresh.sequence ORDER BY fresh.sequence), count(*) INTO sequences, entries_count
    FROM (SELECT e.sequence FROM entry e
          WHERE e.transaction_id >= pg_snapshot_xmin(was)
            AND e.transaction_id < pg_snapshot_xmax(consumed)
            AND NOT pg_visible_in_snapshot(e.transaction_id, was)
            AND pg_visible_in_snapshot(e.transaction_id, consumed)
          OFFSET 0) AS fresh;
END
$$;

REVOKE ALL ON FUNCTION roll_up_accounts(uuid[]), roll_up(integer), unfollowed(pg_snapshot, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION unfollowed(pg_snapshot, integer) TO purser_poster, purser_sealer;
GRANT EXECUTE ON FUNCTION roll_up(integer) TO purser_app;
