-- Profiles are read before a payment is committed and written in its commit, only if they are unchanged.

-- The profiles of these keys as they stand, without locks; keys that nobody has are left out.
CREATE OR REPLACE FUNCTION read_profiles(keys text[]) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT jsonb_build_object('key', p.key, 'version', p.version, 'state', p.state)
    FROM risk_profile p WHERE p.key = ANY (keys)
$$;

-- Locks the profiles that a group will write, ascending by key, and tells which are still the version that
-- was read (the new version less one). Profiles that nobody has yet are made first, at version 0, so
-- that there is a row to lock; one that is then not written stays at 0, which reads as none.
CREATE OR REPLACE FUNCTION lock_profiles(profiles jsonb) RETURNS TABLE (key text, fresh boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
#variable_conflict use_column
BEGIN
    INSERT INTO risk_profile (key, customer_id, version, state)
    SELECT DISTINCT wanted.key COLLATE "C", CASE split_part(wanted.key, ':', 1)
               WHEN 'customer' THEN split_part(wanted.key, ':', 2)::uuid END, 0, '{}'::jsonb
    FROM jsonb_to_recordset(profiles) AS wanted (key text)
    WHERE NOT EXISTS (SELECT FROM risk_profile p WHERE p.key = wanted.key)
    ORDER BY 1
    ON CONFLICT DO NOTHING;

    RETURN QUERY
    WITH locked AS MATERIALIZED (
        SELECT p.key, p.version FROM risk_profile p
        WHERE p.key IN (SELECT wanted.key FROM jsonb_to_recordset(profiles) AS wanted (key text))
        ORDER BY p.key COLLATE "C" FOR NO KEY UPDATE
    )
    SELECT wanted.key, locked.version = wanted.version - 1
    FROM jsonb_to_recordset(profiles) AS wanted (key text, version bigint)
    JOIN locked ON locked.key = wanted.key;
END
$$;

-- Writes decisions, and own profiles that lock_profiles() found fresh in the same transaction. A profile
-- that has moved all the same is a fault of the caller and undoes everything.
CREATE OR REPLACE FUNCTION write_assessments(decisions jsonb, profiles jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
DECLARE
    written_count integer;
BEGIN
    INSERT INTO decision (
        decision_id, order_id, stage, attempt, merchant_id, customer_id, payee_customer_id, operation,
        amount_minor, currency, effective_at, outcome, source, probability, reason_codes, rules_fired,
        model_version, features, feature_schema, profile_versions, latency_ms, decided_by,
        override_reason)
    SELECT
        decision_id, order_id, stage, attempt, merchant_id, customer_id, payee_customer_id, operation,
        amount_minor, currency, effective_at, outcome, source, probability, reason_codes, rules_fired,
        model_version, features, feature_schema, profile_versions, latency_ms, decided_by,
        override_reason
    FROM jsonb_populate_recordset(NULL::decision, decisions);

    IF jsonb_array_length(profiles) = 0 THEN
        RETURN;
    END IF;
    UPDATE risk_profile p
    SET version = fresh.version, state = fresh.state, updated_at = purser_now()
    FROM jsonb_to_recordset(profiles) AS fresh (key text, version bigint, state jsonb)
    WHERE p.key = fresh.key AND p.version = fresh.version - 1;
    GET DIAGNOSTICS written_count = ROW_COUNT;
    IF written_count <> jsonb_array_length(profiles) THEN
        RAISE EXCEPTION 'a risk profile was written that was not locked fresh'
            USING ERRCODE = 'serialization_failure';
    END IF;
END
$$;

ALTER FUNCTION read_profiles(text[]) OWNER TO purser_poster;
ALTER FUNCTION lock_profiles(jsonb) OWNER TO purser_poster;
ALTER FUNCTION write_assessments(jsonb, jsonb) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION
    read_profiles(text[]), lock_profiles(jsonb), write_assessments(jsonb, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    read_profiles(text[]), lock_profiles(jsonb), write_assessments(jsonb, jsonb) TO purser_poster;
