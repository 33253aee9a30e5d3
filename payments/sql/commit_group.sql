-- Phase A, or B, or both, of every operation in one commit: many members in, each with its own outcome.
--
-- A member is what one operation wants written: `done` if the books agree, `refused` if they do not.
-- Nothing that was read before is trusted. Locks are taken in this order of kinds, ascending inside
-- a kind: keys, order numbers, orders, limits, risk profiles, accounts. Outcomes:
--   DONE, REFUSED (with the books' code), STORED (that answer), KEY_REUSED, FORBIDDEN, and STALE:
--   something a fresh read would cure has moved, and nothing of the member was kept.
-- No expected refusal raises here; what raises is a fault, and undoes the whole group.

CREATE OR REPLACE FUNCTION with_refusal(effects jsonb, code text, available_minor bigint)
RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS
$$
DECLARE
    path text[];
BEGIN
    FOREACH path SLICE 1 IN ARRAY ARRAY[
        ARRAY['orders', '0', 'failure_reason'], ARRAY['operations', '0', 'reason'],
        ARRAY['result', 'order', 'failure_reason'], ARRAY['result', 'operation', 'reason'],
        ARRAY['result', 'refusal', 'code']]
    LOOP
        -- An order that is not written keeps the reason that it has.
        CONTINUE WHEN path[2] IN ('0', 'order', 'operation') AND effects #> '{orders,0}' IS NULL;
        effects := jsonb_set(effects, path, to_jsonb(code), false);
    END LOOP;
    IF available_minor IS NOT NULL AND effects #> '{result,refusal,data}' IS NOT NULL THEN
        effects := jsonb_set(effects, '{result,refusal,data,available_minor}',
                             to_jsonb(greatest(available_minor, 0)));
    END IF;
    RETURN effects;
END
$$;

-- Whether a member writes only what is its own: the order names its principal, every row belongs to that
-- order, and every debited account is the payer's own, the order's merchant's, or no tenant's.
CREATE OR REPLACE FUNCTION member_is_own(principal text, order_id text, body jsonb, effects jsonb)
RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, public AS
$$
    SELECT (split_part(principal, ':', 1) IN ('operator', 'system')
            OR principal IN ('merchant:' || (body ->> 'merchant_id'),
                             'customer:' || (body ->> 'payer_customer_id')))
       AND NOT EXISTS (
            SELECT FROM jsonb_path_query(effects,
                '$[*].keyvalue() ? (@.key == "orders" || @.key == "operations" || @.key == "attempts"
                 || @.key == "challenges" || @.key == "decisions").value[*]') AS written
            WHERE written ->> 'order_id' IS DISTINCT FROM order_id
               OR written ->> 'merchant_id' IS DISTINCT FROM body ->> 'merchant_id')
       AND NOT EXISTS (
            SELECT FROM jsonb_path_query(effects, '$[*].profiles[*]') AS profile
            WHERE coalesce(profile ->> 'key' NOT IN (
                'customer:' || coalesce(body ->> 'payer_customer_id', ''),
                'payouts:' || (body ->> 'merchant_id')), true))
       AND NOT EXISTS (
            SELECT FROM debited_owners(effects #> '{0,entry}') AS debited
            WHERE NOT coalesce(CASE debited.owner_kind
                WHEN 'customer' THEN debited.owner_id::text = body ->> 'payer_customer_id'
                    AND (debited.resolves_hold OR principal = 'customer:' || debited.owner_id)
                WHEN 'merchant' THEN debited.owner_id::text = body ->> 'merchant_id'
                ELSE debited.owner_kind IN ('channel', 'platform') END, false))
$$;

CREATE OR REPLACE FUNCTION commit_group(members jsonb)
RETURNS TABLE (member integer, outcome text, code text, result jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
#variable_conflict use_column
DECLARE
    members_count constant integer := jsonb_array_length(members);
    outcomes text[] := array_fill(NULL::text, ARRAY[members_count]);
    codes text[] := array_fill(NULL::text, ARRAY[members_count]);
    effects jsonb[] := ARRAY(SELECT m -> 'done' FROM jsonb_array_elements(members) m);
    consumed bigint[] := '{}';
    found record;
BEGIN
    -- Keys. Whoever holds an uncommitted one is waited for; then its answer is read.
    FOR found IN
        WITH wanted AS (
            SELECT n, (m -> 'idempotency' ->> 'idempotency_id')::uuid AS id, m
            FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
            WHERE m -> 'idempotency' ->> 'idempotency_id' IS NOT NULL
        ), taken AS (
            INSERT INTO idempotency AS i
                (idempotency_id, principal, operation, key, input_hash, result)
            SELECT id, m ->> 'principal', m -> 'idempotency' ->> 'operation',
                   m -> 'idempotency' ->> 'key', m -> 'idempotency' ->> 'input_hash',
                   m -> 'done' -> 'result'
            FROM wanted ORDER BY id
            ON CONFLICT (idempotency_id) DO NOTHING
            RETURNING i.idempotency_id
        )
        SELECT n FROM wanted WHERE id NOT IN (SELECT idempotency_id FROM taken)
    LOOP
        outcomes[found.n] := 'STORED';
    END LOOP;
    FOR found IN
        SELECT n, i.result, i.input_hash = m -> 'idempotency' ->> 'input_hash' AS same
        FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
        LEFT JOIN idempotency i ON i.idempotency_id = (m -> 'idempotency' ->> 'idempotency_id')::uuid
        WHERE outcomes[n] = 'STORED'
    LOOP
        IF found.same IS NULL THEN
            -- Too old, and dropped a moment ago: a fresh read finds it free.
            outcomes[found.n] := 'STALE';
        ELSIF found.same THEN
            effects[found.n] := jsonb_build_object('result', found.result);
        ELSE
            outcomes[found.n] := 'KEY_REUSED';
        END IF;
    END LOOP;

    -- Whose order, whose accounts: nothing is taken from the caller's word.
    FOR found IN
        SELECT n
        FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
        LEFT JOIN payment_order o ON o.order_id = (m ->> 'order_id')::uuid
        WHERE outcomes[n] IS NULL
          AND NOT coalesce(member_is_own(
              m ->> 'principal', m ->> 'order_id', coalesce(to_jsonb(o), m #> '{done,orders,0}'),
              CASE jsonb_typeof(m -> 'refused')
                   WHEN 'object' THEN jsonb_build_array(m -> 'done', m -> 'refused')
                   ELSE jsonb_build_array(m -> 'done') END), false)
    LOOP
        outcomes[found.n] := 'FORBIDDEN';
    END LOOP;

    -- Order numbers of new orders, then the rows of those that exist already.
    FOR found IN
        WITH wanted AS (
            SELECT n, m #> '{done,orders,0}' AS body
            FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
            WHERE outcomes[n] IS NULL AND m ->> 'expected_version' IS NULL
        ), taken AS (
            INSERT INTO payment_order
            SELECT r.* FROM wanted, jsonb_populate_record(NULL::payment_order, body) AS r
            ORDER BY r.merchant_id, r.merchant_order_no
            ON CONFLICT DO NOTHING
            RETURNING order_id
        )
        SELECT n FROM wanted
        WHERE (body ->> 'order_id')::uuid NOT IN (SELECT order_id FROM taken)
    LOOP
        outcomes[found.n] := 'STALE';
    END LOOP;
    FOR found IN
        WITH locked AS MATERIALIZED (
            SELECT o.order_id, o.version FROM payment_order o
            WHERE o.order_id IN (
                SELECT (m ->> 'order_id')::uuid
                FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
                WHERE outcomes[n] IS NULL AND m ->> 'expected_version' IS NOT NULL)
            ORDER BY o.order_id FOR NO KEY UPDATE
        )
        SELECT n
        FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
        LEFT JOIN locked ON locked.order_id = (m ->> 'order_id')::uuid
        WHERE outcomes[n] IS NULL AND m ->> 'expected_version' IS NOT NULL
          AND locked.version IS DISTINCT FROM (m ->> 'expected_version')::bigint
    LOOP
        outcomes[found.n] := 'STALE';
    END LOOP;

    -- Limits: what was paid today without a password, checked and consumed in one statement.
    FOR found IN
        WITH wanted AS (
            SELECT n, u.*
            FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n),
                 jsonb_to_record(m #> '{done,passwordless_use}') AS u (
                     passwordless_use_id uuid, customer_id uuid, currency text, used_on date,
                     amount_minor bigint, limit_minor bigint)
            WHERE outcomes[n] IS NULL AND u.passwordless_use_id IS NOT NULL
        ), consumed AS (
            INSERT INTO passwordless_use AS p
                (passwordless_use_id, customer_id, currency, used_on, used_minor)
            SELECT passwordless_use_id, customer_id, currency, used_on, amount_minor
            FROM wanted WHERE amount_minor <= limit_minor ORDER BY passwordless_use_id
            ON CONFLICT (passwordless_use_id) DO UPDATE
                SET used_minor = p.used_minor + excluded.used_minor
                WHERE p.used_minor + excluded.used_minor <= (
                    SELECT limit_minor FROM wanted w
                    WHERE w.passwordless_use_id = p.passwordless_use_id)
            RETURNING p.passwordless_use_id
        )
        SELECT n, passwordless_use_id IN (SELECT passwordless_use_id FROM consumed) AS fits
        FROM wanted
    LOOP
        IF found.fits THEN
            consumed := consumed || found.n;
        ELSE
            outcomes[found.n] := 'STALE';
        END IF;
    END LOOP;

    -- Own risk profiles: written only if they are still what was read.
    FOR found IN
        WITH checked AS MATERIALIZED (
            SELECT * FROM lock_profiles(coalesce((
                SELECT jsonb_agg(p)
                FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n),
                     jsonb_array_elements(m #> '{done,profiles}') AS p
                WHERE outcomes[n] IS NULL), '[]'))
        )
        SELECT DISTINCT n
        FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n),
             jsonb_array_elements(m #> '{done,profiles}') AS p
        JOIN checked ON checked.key = p ->> 'key' AND NOT checked.fresh
        WHERE outcomes[n] IS NULL
    LOOP
        outcomes[found.n] := 'STALE';
    END LOOP;

    -- The books. Every debited account must be the principal's own or one that the order's merchant has.
    FOR found IN
        SELECT n, posted.outcome AS posted, posted.code, posted.available_minor,
               m -> 'refused' AS refused, (m ->> 'stale_when_refused')::boolean AS stale
        FROM post_entries(coalesce((
                 SELECT jsonb_agg(m #> '{done,entry}' ORDER BY n)
                 FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
                 WHERE outcomes[n] IS NULL AND m #>> '{done,entry,entry_id}' IS NOT NULL), '[]')
             ) AS posted
        JOIN jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
            ON (m #>> '{done,entry,entry_id}')::uuid = posted.entry_id
        WHERE outcomes[n] IS NULL AND posted.outcome = 'REFUSED'
    LOOP
        IF found.stale THEN
            outcomes[found.n] := 'STALE';
        ELSE
            outcomes[found.n] := 'REFUSED';
            codes[found.n] := found.code;
            -- A member without an ending for this keeps nothing either; its caller learns the code.
            effects[found.n] := CASE WHEN jsonb_typeof(found.refused) = 'object'
                THEN with_refusal(found.refused, found.code, found.available_minor) END;
        END IF;
    END LOOP;

    -- Nothing is kept of a member that is stale, forbidden, or refused without an ending for it.
    DELETE FROM idempotency i
    USING jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
    WHERE (outcomes[n] IN ('STALE', 'FORBIDDEN') OR effects[n] IS NULL)
      AND i.idempotency_id = (m -> 'idempotency' ->> 'idempotency_id')::uuid;
    DELETE FROM payment_order o
    USING jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
    WHERE outcomes[n] = 'STALE' AND m ->> 'expected_version' IS NULL
      AND o.order_id = (m #>> '{done,orders,0,order_id}')::uuid
      AND o.xmin = pg_current_xact_id()::xid;
    UPDATE passwordless_use p SET used_minor = p.used_minor - u.amount_minor
    FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n),
         jsonb_to_record(m #> '{done,passwordless_use}') AS u (
             passwordless_use_id uuid, amount_minor bigint)
    WHERE n = ANY (consumed) AND outcomes[n] IS NOT NULL
      AND p.passwordless_use_id = u.passwordless_use_id;

    FOR n IN 1 .. members_count LOOP
        outcomes[n] := coalesce(outcomes[n], 'DONE');
    END LOOP;
    PERFORM write_effects(jsonb_agg(effects[n] ORDER BY n))
    FROM generate_series(1, members_count) AS n
    WHERE outcomes[n] IN ('DONE', 'REFUSED');
    UPDATE idempotency i SET result = effects[n] -> 'result'
    FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
    WHERE outcomes[n] = 'REFUSED'
      AND i.idempotency_id = (m -> 'idempotency' ->> 'idempotency_id')::uuid;

    RETURN QUERY
    SELECT (m ->> 'member')::integer, outcomes[n], codes[n],
           CASE WHEN outcomes[n] IN ('DONE', 'REFUSED', 'STORED') THEN effects[n] -> 'result' END
    FROM jsonb_array_elements(members) WITH ORDINALITY AS each (m, n)
    ORDER BY n;
END
$$;

-- Writes the rows of members whose fate is decided: orders, operations, attempts, challenges, the
-- notes on channel events, decisions, profiles, audit rows and outbox rows.
CREATE OR REPLACE FUNCTION write_effects(effects jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
BEGIN
    UPDATE payment_order o SET
        version = r.version, state = r.state,
        authorized_minor = r.authorized_minor, capture_pending_minor = r.capture_pending_minor,
        captured_minor = r.captured_minor, releasing_minor = r.releasing_minor,
        released_minor = r.released_minor, reversed_minor = r.reversed_minor,
        refund_pending_minor = r.refund_pending_minor, refunded_minor = r.refunded_minor,
        disputed_open_minor = r.disputed_open_minor, dispute_lost_minor = r.dispute_lost_minor,
        suspense_minor = r.suspense_minor,
        fee_minor = r.fee_minor, fee_refunded_minor = r.fee_refunded_minor,
        refund_progress = r.refund_progress, payout_progress = r.payout_progress,
        settlement_progress = r.settlement_progress, action_url = r.action_url,
        failure_reason = r.failure_reason, closed_by = r.closed_by,
        needs_attention = r.needs_attention, updated_at = r.updated_at
    FROM jsonb_array_elements(effects) AS e, jsonb_array_elements(e -> 'orders') AS body,
         jsonb_populate_record(NULL::payment_order, body) AS r
    WHERE o.order_id = r.order_id AND (o.version, o.state) IS DISTINCT FROM (r.version, r.state);

    INSERT INTO operation
    SELECT r.* FROM jsonb_array_elements(effects) AS e,
        jsonb_populate_recordset(NULL::operation, e -> 'operations') AS r
    ON CONFLICT (operation_id) DO UPDATE SET
        state = excluded.state, fee_minor = excluded.fee_minor, reason = excluded.reason,
        approval = excluded.approval, next_check_at = excluded.next_check_at,
        checks_count = excluded.checks_count, submitted_at = excluded.submitted_at,
        updated_at = excluded.updated_at;

    INSERT INTO attempt
    SELECT r.* FROM jsonb_array_elements(effects) AS e,
        jsonb_populate_recordset(NULL::attempt, e -> 'attempts') AS r
    ON CONFLICT (attempt_id) DO UPDATE SET
        result = excluded.result, channel_trade_no = excluded.channel_trade_no,
        reason = excluded.reason, sends_count = excluded.sends_count,
        verdict_at = excluded.verdict_at, updated_at = excluded.updated_at;

    INSERT INTO challenge
    SELECT r.* FROM jsonb_array_elements(effects) AS e,
        jsonb_populate_recordset(NULL::challenge, e -> 'challenges') AS r
    ON CONFLICT (challenge_id) DO UPDATE SET
        state = excluded.state, wrong_count = excluded.wrong_count,
        expires_at = excluded.expires_at;

    INSERT INTO channel_event
    SELECT r.* FROM jsonb_array_elements(effects) AS e,
        jsonb_populate_recordset(NULL::channel_event, e -> 'channel_events') AS r
    ON CONFLICT DO NOTHING;

    UPDATE channel_event c SET
        applied_at = purser_now(), outcome = a.outcome, order_id = a.order_id,
        attempt_id = a.attempt_id, merchant_id = a.merchant_id
    FROM jsonb_array_elements(effects) AS e,
         jsonb_to_recordset(e -> 'applied_events') AS a (
             channel_event_id uuid, outcome text, order_id uuid, attempt_id uuid, merchant_id uuid)
    WHERE c.channel_event_id = a.channel_event_id AND c.applied_at IS NULL;

    PERFORM write_assessments(
        coalesce((SELECT jsonb_agg(d) FROM jsonb_array_elements(effects) AS e,
                         jsonb_array_elements(e -> 'decisions') AS d), '[]'),
        coalesce((SELECT jsonb_agg(p) FROM jsonb_array_elements(effects) AS e,
                         jsonb_array_elements(e -> 'profiles') AS p), '[]'));

    INSERT INTO audit_log (audit_id, actor, action, subject, outcome, facts)
    SELECT a.* FROM jsonb_array_elements(effects) AS e,
        jsonb_to_recordset(e -> 'audits') AS a (
            audit_id uuid, actor text, action text, subject text, outcome text, facts jsonb);

    -- An event that no endpoint waits for causes no job; it stays for replay.
    PERFORM write_outbox(coalesce((
        SELECT jsonb_agg(CASE
            WHEN (o ->> 'public')::boolean AND EXISTS (
                SELECT FROM webhook_endpoint w
                WHERE w.merchant_id = (o ->> 'merchant_id')::uuid AND w.state = 'ENABLED')
            THEN o || '{"job": "deliver_webhook"}' ELSE o END)
        FROM jsonb_array_elements(effects) AS e, jsonb_array_elements(e -> 'outbox') AS o), '[]'));
END
$$;

ALTER FUNCTION with_refusal(jsonb, text, bigint) OWNER TO purser_poster;
ALTER FUNCTION member_is_own(text, text, jsonb, jsonb) OWNER TO purser_poster;
ALTER FUNCTION commit_group(jsonb) OWNER TO purser_poster;
ALTER FUNCTION write_effects(jsonb) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION
    with_refusal(jsonb, text, bigint), member_is_own(text, text, jsonb, jsonb), commit_group(jsonb),
    write_effects(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    with_refusal(jsonb, text, bigint), member_is_own(text, text, jsonb, jsonb), write_effects(jsonb)
    TO purser_poster;
GRANT EXECUTE ON FUNCTION commit_group(jsonb) TO purser_app;
