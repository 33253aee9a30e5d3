-- Profiles are read before a payment is committed and written in its commit, only if they are unchanged.

-- The profiles of these keys as they stand, without locks; keys that nobody has are left out.
CREATE OR REPLACE FUNCTION read_profiles(keys text[])
RETURNS TABLE (key text, version bigint, state text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT p.key, p.version, p.state FROM risk_profile p WHERE p.key = ANY (keys)
$$;

-- Locks the profiles that a group will write, ascending by key, and returns the members whose profile is no
-- longer the version that was read (the new version less one). Profiles that nobody has yet are made
-- first, at version 0, so that there is a row to lock; one that is then not written stays at 0, which
-- reads as none. Members that are not `alive` are left out.
CREATE OR REPLACE FUNCTION lock_profiles(profiles profile_input[], alive boolean[]) RETURNS integer[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS
$$
#variable_conflict use_column
DECLARE
    stale integer[];
BEGIN
    INSERT INTO risk_profile (key, customer_id, version, state)
    SELECT DISTINCT wanted.key COLLATE "C", CASE split_part(wanted.key, ':', 1)
               WHEN 'customer' THEN split_part(wanted.key, ':', 2)::uuid END, 0, '{}'
    FROM unnest(profiles) AS wanted
    WHERE wanted.version = 1 AND alive[wanted.member]
    ORDER BY 1
    ON CONFLICT DO NOTHING;

    SELECT array_agg(locked.member) FILTER (WHERE NOT locked.fresh) INTO stale
    FROM (
        SELECT wanted.member, p.version = wanted.version - 1 AS fresh
        FROM (SELECT each.* FROM unnest(profiles) AS each
              WHERE alive[each.member] ORDER BY each.key COLLATE "C") AS wanted
        JOIN risk_profile p ON p.key = wanted.key
        FOR NO KEY UPDATE OF p
    ) AS locked;
    RETURN coalesce(stale, '{}');
END
$$;

-- Writes decisions, and own profiles that lock_profiles() found fresh in the same transaction. A profile
-- that has moved all the same is a fault of the caller and undoes everything.
CREATE OR REPLACE FUNCTION write_assessments(
    decisions decision_input[], profiles profile_input[], alive boolean[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS
$$
#variable_conflict use_column
DECLARE
    wanted_count integer;
    written_count integer;
BEGIN
    INSERT INTO decision (
        decision_id, order_id, stage, attempt, merchant_id, customer_id, payee_customer_id, operation,
        amount_minor, currency, effective_at, outcome, source, probability, reason_codes, rules_fired,
        model_version, features, feature_schema, profile_versions, latency_ms, decided_by,
        override_reason)
    SELECT
        d.decision_id, d.order_id, d.stage, d.attempt, d.merchant_id, d.customer_id, d.payee_customer_id,
        d.operation, d.amount_minor, d.currency, d.effective_at, d.outcome, d.source, d.probability,
        d.reason_codes, d.rules_fired, d.model_version, d.features, d.feature_schema, d.profile_versions,
        d.latency_ms, d.decided_by, d.override_reason
    FROM unnest(decisions) AS d WHERE alive[d.member];

    IF coalesce(cardinality(profiles), 0) = 0 THEN
        RETURN;
    END IF;
    UPDATE risk_profile p
    SET version = fresh.version, state = fresh.state, updated_at = purser_now()
    FROM unnest(profiles) AS fresh
    WHERE p.key = fresh.key AND p.version = fresh.version - 1 AND alive[fresh.member];
    GET DIAGNOSTICS written_count = ROW_COUNT;
    SELECT count(*) INTO wanted_count FROM unnest(profiles) AS fresh WHERE alive[fresh.member];
    IF written_count <> wanted_count THEN
        RAISE EXCEPTION 'a risk profile was written that was not locked fresh'
            USING ERRCODE = 'serialization_failure';
    END IF;
END
$$;

ALTER FUNCTION read_profiles(text[]) OWNER TO purser_poster;
ALTER FUNCTION lock_profiles(profile_input[], boolean[]) OWNER TO purser_poster;
ALTER FUNCTION write_assessments(decision_input[], profile_input[], boolean[]) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION
    read_profiles(text[]), lock_profiles(profile_input[], boolean[]),
    write_assessments(decision_input[], profile_input[], boolean[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    read_profiles(text[]), lock_profiles(profile_input[], boolean[]),
    write_assessments(decision_input[], profile_input[], boolean[]) TO purser_poster;
