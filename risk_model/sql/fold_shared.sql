-- Shared profiles are folded behind the payments that they describe. Numbers are given before the commit,
-- so nothing here takes "all above the last number": the follower keeps the snapshot it has consumed
-- and takes what that one did not see, whole transactions at a time.

-- Locks the follower and returns the decisions and labels of about `events_max` that it has not folded yet,
-- in the order in which it folds them, and the snapshot it has consumed with them. Nothing when
-- another worker folds. The transaction that runs this writes no decisions itself.
CREATE OR REPLACE FUNCTION take_unfolded(events_max integer)
RETURNS TABLE (
    consumed text, decision_id uuid, label_id uuid, merchant_id uuid, payee_customer_id uuid,
    operation text, amount_minor bigint, currency text, effective_at timestamptz, outcome text,
    features bytea, feature_schema text, known_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
#variable_conflict use_column
DECLARE
    was pg_snapshot;
    present pg_snapshot;
    limit_id xid8;
    reached pg_snapshot;
BEGIN
    IF principal_kind() IS DISTINCT FROM 'system' THEN
        RAISE EXCEPTION 'only the system folds' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT f.consumed INTO was
    FROM risk_follower f WHERE f.name = 'fold_shared' FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    present := snapshot_without(pg_current_snapshot(), pg_current_xact_id());
    IF pg_snapshot_xmax(was) > pg_snapshot_xmax(present) THEN
        RAISE EXCEPTION 'decisions were folded in another cluster: its snapshots are from the future'
            USING ERRCODE = 'data_corrupted';
    END IF;
    -- Both queries leave out what is never folded: an analyst's override, a label that says genuine, and
    -- a second report of the same fraud.
    SELECT max(fresh.transaction_id) INTO limit_id
    FROM (
        (SELECT d.transaction_id FROM decision d
         WHERE d.source <> 'ANALYST' AND d.transaction_id >= pg_snapshot_xmin(was)
           AND NOT pg_visible_in_snapshot(d.transaction_id, was)
           AND pg_visible_in_snapshot(d.transaction_id, present)
         ORDER BY d.transaction_id LIMIT events_max)
        UNION ALL
        (SELECT l.transaction_id FROM label l
         WHERE l.is_fraud AND NOT EXISTS (
               SELECT FROM decision_fold f
               WHERE f.decision_id = l.decision_id AND f.label_id IS NOT NULL)
           AND l.transaction_id >= pg_snapshot_xmin(was)
           AND NOT pg_visible_in_snapshot(l.transaction_id, was)
           AND pg_visible_in_snapshot(l.transaction_id, present)
         ORDER BY l.transaction_id LIMIT events_max)
        ORDER BY 1 LIMIT events_max
    ) AS fresh;
    IF limit_id IS NULL THEN
        RETURN;
    END IF;
    -- What was consumed stays consumed, even where an older transaction ended only now.
    reached := snapshot_before(
        present, greatest((limit_id::text::numeric + 1)::text::xid8, pg_snapshot_xmax(was)));

    RETURN QUERY
    SELECT reached::text, each.decision_id, each.label_id, each.merchant_id, each.payee_customer_id,
           each.operation::text, each.amount_minor, each.currency::text, each.effective_at,
           each.outcome::text, each.features, each.feature_schema::text, each.known_at
    FROM (
        SELECT d.*, NULL::uuid AS label_id, NULL::timestamptz AS known_at, d.transaction_id AS told_by
        FROM decision d
        WHERE d.source <> 'ANALYST' AND d.transaction_id >= pg_snapshot_xmin(was)
          AND d.transaction_id < pg_snapshot_xmax(reached)
          AND NOT pg_visible_in_snapshot(d.transaction_id, was)
          AND pg_visible_in_snapshot(d.transaction_id, reached)
        UNION ALL
        SELECT d.*, l.label_id, l.known_at, l.transaction_id
        FROM label l JOIN decision d ON d.decision_id = l.decision_id
        WHERE l.is_fraud AND NOT EXISTS (
              SELECT FROM decision_fold f
              WHERE f.decision_id = l.decision_id AND f.label_id IS NOT NULL)
          AND l.transaction_id >= pg_snapshot_xmin(was)
          AND l.transaction_id < pg_snapshot_xmax(reached)
          AND NOT pg_visible_in_snapshot(l.transaction_id, was)
          AND pg_visible_in_snapshot(l.transaction_id, reached)
    ) AS each
    ORDER BY each.told_by, each.known_at NULLS FIRST, each.sequence;
END
$$;

-- Writes what was folded: each step with the version it made, the last state of each profile, and the
-- snapshot that take_unfolded() gave. Only this worker writes shared profiles, under the follower's lock.
CREATE OR REPLACE FUNCTION write_folds(
    keys text[], versions bigint[], decision_ids uuid[], label_ids uuid[],
    profiles profile_input[], reached text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
BEGIN
    IF principal_kind() IS DISTINCT FROM 'system' THEN
        RAISE EXCEPTION 'only the system folds' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO decision_fold (key, version, decision_id, label_id)
    SELECT f.key, f.version, f.decision_id, f.label_id
    FROM unnest(keys, versions, decision_ids, label_ids) WITH ORDINALITY
        AS f (key, version, decision_id, label_id, n)
    ORDER BY f.n;
    INSERT INTO risk_profile AS p (key, version, state)
    SELECT fresh.key, fresh.version, fresh.state
    FROM unnest(profiles) AS fresh
    WHERE fresh.key NOT LIKE 'customer:%' AND fresh.key NOT LIKE 'payouts:%'
    ORDER BY fresh.key COLLATE "C"
    ON CONFLICT (key) DO UPDATE
        SET version = excluded.version, state = excluded.state, updated_at = purser_now();
    UPDATE risk_follower SET consumed = reached::pg_snapshot, advanced_at = purser_now()
    WHERE name = 'fold_shared';
END
$$;

-- The shared profiles that a fold begins with.
CREATE OR REPLACE FUNCTION read_shared_profiles(keys text[])
RETURNS TABLE (key text, version bigint, state text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT p.* FROM read_profiles(keys) AS p WHERE principal_kind() = 'system'
$$;

ALTER FUNCTION take_unfolded(integer) OWNER TO purser_poster;
ALTER FUNCTION write_folds(
    text[], bigint[], uuid[], uuid[], profile_input[], text) OWNER TO purser_poster;
ALTER FUNCTION read_shared_profiles(text[]) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION
    take_unfolded(integer), write_folds(
    text[], bigint[], uuid[], uuid[], profile_input[], text), read_shared_profiles(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    take_unfolded(integer), write_folds(
    text[], bigint[], uuid[], uuid[], profile_input[], text), read_shared_profiles(text[])
    TO purser_app;
