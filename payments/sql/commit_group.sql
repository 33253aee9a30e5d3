-- Phase A, or B, or both, of every operation in one commit: many members in, each with its own outcome.
--
-- A member is what one operation wants written. Its rows come in typed arrays, each row with the place of
-- its member. Nothing that was read before is trusted. Locks are taken in this order of kinds, ascending
-- inside a kind: keys, order numbers, orders, limits, risk profiles, accounts. Outcomes:
--   DONE (not returned), STORED (with that answer), KEY_REUSED, FORBIDDEN, REFUSED (by the books, with
--   their code), and STALE: something a fresh read would cure has moved.
-- Of a member that is not DONE nothing is kept. No expected refusal raises here; what raises is a fault,
-- and undoes the whole group.

-- Members that would write what is not their own: the order must name the principal, every row must belong
-- to that order, and every debited account must be the payer's own, the order's merchant's, or no
-- tenant's. `own_merchants` and `own_payers` (all zeros: none) are those of the members' orders.
CREATE OR REPLACE FUNCTION trespassers(
    members group_member[], own_merchants uuid[], own_payers uuid[],
    orders payment_order[], order_members integer[],
    operations operation[], operation_members integer[],
    decisions decision_input[], profiles profile_input[], uses passwordless_input[],
    legs ledger_leg[], accounts ledger_account[], entry_members integer[], rest jsonb)
RETURNS integer[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
DECLARE
    principals constant text[] := ARRAY(SELECT m.principal FROM unnest(members) AS m);
    order_ids constant uuid[] := ARRAY(SELECT m.order_id FROM unnest(members) AS m);
    found integer[];
BEGIN
    SELECT array_agg(DISTINCT wrong.n) INTO found
    FROM (
        SELECT m.n FROM unnest(principals) WITH ORDINALITY AS m (principal, n)
        WHERE NOT coalesce(split_part(m.principal, ':', 1) IN ('operator', 'system')
            OR m.principal = 'merchant:' || own_merchants[m.n]
            OR m.principal = 'customer:' || own_payers[m.n], false)
        UNION ALL
        SELECT place.n FROM unnest(order_members) WITH ORDINALITY AS place (n, i)
        WHERE ((orders[place.i]).order_id, (orders[place.i]).merchant_id)
              IS DISTINCT FROM (order_ids[place.n], own_merchants[place.n])
        UNION ALL
        SELECT place.n FROM unnest(operation_members) WITH ORDINALITY AS place (n, i)
        WHERE ((operations[place.i]).order_id, (operations[place.i]).merchant_id)
              IS DISTINCT FROM (order_ids[place.n], own_merchants[place.n])
        UNION ALL
        SELECT d.member FROM unnest(decisions) AS d
        WHERE (d.order_id, d.merchant_id) IS DISTINCT FROM (order_ids[d.member], own_merchants[d.member])
        UNION ALL
        SELECT p.member FROM unnest(profiles) AS p
        WHERE coalesce(p.key NOT IN ('customer:' || own_payers[p.member],
                                     'payouts:' || own_merchants[p.member]), true)
        UNION ALL
        SELECT u.member FROM unnest(uses) AS u WHERE u.customer_id IS DISTINCT FROM own_payers[u.member]
        UNION ALL
        SELECT place.n
        FROM debited_owners(legs, accounts) AS debited
        CROSS JOIN LATERAL (SELECT entry_members[debited.ordinal]) AS place (n)
        WHERE NOT coalesce(CASE debited.owner_kind
            WHEN 'customer' THEN debited.owner_id = own_payers[place.n]
                AND (debited.resolves_hold OR principals[place.n] = 'customer:' || debited.owner_id)
            WHEN 'merchant' THEN debited.owner_id = own_merchants[place.n]
            ELSE debited.owner_kind IN ('channel', 'platform') END, false)
    ) AS wrong;
    IF rest <> '[]' THEN
        SELECT found || array_agg((e ->> 'member')::integer) INTO found
        FROM jsonb_array_elements(rest) AS e
        CROSS JOIN LATERAL jsonb_array_elements((e -> 'attempts') || (e -> 'challenges')) AS written
        WHERE written ->> 'order_id' IS DISTINCT FROM order_ids[(e ->> 'member')::integer]::text
           OR written ->> 'merchant_id' IS DISTINCT FROM own_merchants[(e ->> 'member')::integer]::text;
    END IF;
    RETURN coalesce(found, '{}');
END
$$;

CREATE OR REPLACE FUNCTION commit_group(
    members group_member[], orders payment_order[], order_members integer[],
    operations operation[], operation_members integer[], decisions decision_input[],
    profiles profile_input[], uses passwordless_input[], passwordless_limit_minor bigint,
    entries ledger_entry[], entry_members integer[], legs ledger_leg[], accounts ledger_account[],
    events outbox_input[], rest jsonb)
RETURNS TABLE (member integer, outcome text, code text, available_minor bigint, result text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS
$$
#variable_conflict use_column
DECLARE
    members_count constant integer := cardinality(members);
    nobody constant uuid := '00000000-0000-0000-0000-000000000000';
    -- Whether a member is still on its way to DONE; the others have their outcome.
    alive boolean[] := array_fill(true, ARRAY[members_count]);
    outcomes text[] := array_fill(NULL::text, ARRAY[members_count]);
    codes text[] := array_fill(NULL::text, ARRAY[members_count]);
    availables bigint[] := array_fill(NULL::bigint, ARRAY[members_count]);
    own_merchants uuid[];
    own_payers uuid[];
    kept boolean[];
    wanted_count integer;
    written_count integer;
    place integer;
    found record;
BEGIN
    IF members_count > 1 THEN
        -- A member that waits long for a lock would hold up its neighbours; alone it may.
        PERFORM set_config('lock_timeout', '250ms', true);
    END IF;

    -- Keys. Whoever holds an uncommitted one is waited for; then its answer is read.
    INSERT INTO idempotency (idempotency_id, principal, operation, key, input_hash, result)
    SELECT m.idempotency_id, m.principal, m.operation, m.key, m.input_hash, m.result
    FROM unnest(members) AS m
    WHERE m.idempotency_id IS NOT NULL
    ORDER BY m.idempotency_id
    ON CONFLICT (idempotency_id) DO NOTHING;
    GET DIAGNOSTICS written_count = ROW_COUNT;
    SELECT count(m.idempotency_id) INTO wanted_count FROM unnest(members) AS m;
    IF written_count < wanted_count THEN
        FOR found IN
            SELECT m.n, i.result, i.input_hash = m.input_hash AS same
            FROM unnest(members) WITH ORDINALITY AS m (principal, order_id, expected_version,
                stale_when_refused, idempotency_id, operation, key, input_hash, result, n)
            LEFT JOIN idempotency i ON i.idempotency_id = m.idempotency_id
            WHERE m.idempotency_id IS NOT NULL
              AND (i.xmin IS DISTINCT FROM pg_current_xact_id()::xid OR EXISTS (
                  SELECT FROM unnest(members) WITH ORDINALITY AS before (principal, order_id,
                      expected_version, stale_when_refused, idempotency_id, operation, key, input_hash,
                      result, n)
                  WHERE before.idempotency_id = m.idempotency_id AND before.n < m.n))
        LOOP
            alive[found.n] := false;
            -- Too old, and dropped a moment ago: a fresh read finds it free.
            outcomes[found.n] := CASE WHEN found.same IS NULL THEN 'STALE'
                                      WHEN found.same THEN 'STORED' ELSE 'KEY_REUSED' END;
        END LOOP;
    END IF;

    -- Whose order, whose accounts: nothing is taken from the caller's word.
    SELECT array_agg(coalesce(own.merchant_id, nobody) ORDER BY own.n),
           array_agg(coalesce(own.payer_customer_id, nobody) ORDER BY own.n),
           count(*), count(DISTINCT own.n)
    INTO own_merchants, own_payers, written_count, wanted_count
    FROM (
        SELECT o.n, o.merchant_id, o.payer_customer_id
        FROM (SELECT order_members[i] AS n, (orders[i]).merchant_id, (orders[i]).payer_customer_id
              FROM generate_subscripts(order_members, 1) AS i) AS o
        WHERE (members[o.n]).expected_version IS NULL
        UNION ALL
        SELECT m.n, p.merchant_id, p.payer_customer_id
        FROM (SELECT n, (members[n]).order_id FROM generate_series(1, members_count) AS n
              WHERE (members[n]).expected_version IS NOT NULL) AS m
        LEFT JOIN payment_order p ON p.order_id = m.order_id
    ) AS own;
    IF (written_count, wanted_count) <> (members_count, members_count) THEN
        RAISE EXCEPTION 'a new order comes with one row' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH place IN ARRAY trespassers(
        members, own_merchants, own_payers, orders, order_members, operations, operation_members,
        decisions, profiles, uses, legs, accounts, entry_members, rest)
    LOOP
        IF alive[place] THEN
            alive[place] := false;
            outcomes[place] := 'FORBIDDEN';
        END IF;
    END LOOP;

    -- Order numbers of new orders, then the rows of those that exist already.
    INSERT INTO payment_order
    SELECT (o.r).*
    FROM (SELECT orders[i] AS r FROM generate_subscripts(order_members, 1) AS i
          WHERE alive[order_members[i]] AND (members[order_members[i]]).expected_version IS NULL
          OFFSET 0) AS o
    ORDER BY (o.r).merchant_id, (o.r).merchant_order_no
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written_count = ROW_COUNT;
    SELECT count(*) INTO wanted_count
    FROM generate_series(1, members_count) AS n
    WHERE alive[n] AND (members[n]).expected_version IS NULL;
    IF written_count < wanted_count THEN
        FOR place IN
            SELECT n FROM generate_series(1, members_count) AS n
            LEFT JOIN payment_order o ON o.order_id = (members[n]).order_id
                AND o.xmin = pg_current_xact_id()::xid
            WHERE alive[n] AND (members[n]).expected_version IS NULL AND o.order_id IS NULL
        LOOP
            alive[place] := false;
            outcomes[place] := 'STALE';
        END LOOP;
    END IF;
    IF wanted_count < members_count THEN
        FOR place IN
            SELECT locked.n
            FROM (SELECT m.n, o.version, m.expected_version,
                         row_number() OVER (PARTITION BY m.order_id ORDER BY m.n) AS nth
                  FROM (SELECT n, (members[n]).order_id, (members[n]).expected_version
                        FROM generate_series(1, members_count) AS n
                        WHERE alive[n] AND (members[n]).expected_version IS NOT NULL) AS m
                  LEFT JOIN (
                      SELECT p.order_id, p.version FROM payment_order p
                      WHERE p.order_id IN (
                          SELECT (members[n]).order_id FROM generate_series(1, members_count) AS n
                          WHERE alive[n] AND (members[n]).expected_version IS NOT NULL)
                      ORDER BY p.order_id FOR NO KEY UPDATE
                  ) AS o ON o.order_id = m.order_id) AS locked
            WHERE locked.version IS DISTINCT FROM locked.expected_version OR locked.nth > 1
        LOOP
            alive[place] := false;
            outcomes[place] := 'STALE';
        END LOOP;
    END IF;

    -- Limits: what was paid today without a password, checked and consumed in one statement.
    IF cardinality(uses) > 0 THEN
        INSERT INTO passwordless_use AS p
            (passwordless_use_id, customer_id, currency, used_on, used_minor)
        SELECT u.passwordless_use_id, u.customer_id, u.currency, u.used_on, u.amount_minor
        FROM unnest(uses) AS u
        WHERE alive[u.member] AND u.amount_minor <= passwordless_limit_minor
        ORDER BY u.passwordless_use_id
        ON CONFLICT (passwordless_use_id) DO UPDATE
            SET used_minor = p.used_minor + excluded.used_minor
            WHERE p.used_minor + excluded.used_minor <= passwordless_limit_minor;
        GET DIAGNOSTICS written_count = ROW_COUNT;
        SELECT count(*) INTO wanted_count FROM unnest(uses) AS u WHERE alive[u.member];
        IF written_count < wanted_count THEN
            FOR place IN
                SELECT u.member FROM unnest(uses) AS u
                LEFT JOIN passwordless_use p ON p.passwordless_use_id = u.passwordless_use_id
                    AND p.xmin = pg_current_xact_id()::xid
                WHERE alive[u.member] AND p.passwordless_use_id IS NULL
            LOOP
                alive[place] := false;
                outcomes[place] := 'STALE';
            END LOOP;
        END IF;
    END IF;
    kept := alive;

    -- Own risk profiles: written only if they are still what was read.
    IF cardinality(profiles) > 0 THEN
        FOREACH place IN ARRAY lock_profiles(profiles, alive) LOOP
            alive[place] := false;
            outcomes[place] := 'STALE';
        END LOOP;
    END IF;

    -- The books.
    IF cardinality(entries) > 0 THEN
        FOR found IN
            SELECT p.member, p.code, p.available_minor
            FROM post_members(entries, entry_members, legs, accounts, alive) AS p
        LOOP
            alive[found.member] := false;
            codes[found.member] := found.code;
            availables[found.member] := found.available_minor;
            outcomes[found.member] := CASE WHEN (members[found.member]).stale_when_refused
                THEN 'STALE' ELSE 'REFUSED' END;
        END LOOP;
    END IF;

    IF false = ANY (alive) THEN
        PERFORM undo_members(members, alive, kept, outcomes, uses);
    END IF;
    PERFORM write_effects(
        members, alive, orders, order_members, operations, operation_members, decisions, profiles,
        events, rest);

    RETURN QUERY
    SELECT n, outcomes[n], codes[n], availables[n],
           CASE WHEN outcomes[n] = 'STORED' THEN (
               SELECT i.result FROM idempotency i WHERE i.idempotency_id = (members[n]).idempotency_id) END
    FROM generate_series(1, members_count) AS n
    WHERE NOT alive[n]
    ORDER BY n;
END
$$;

-- Books the entries of the members that are alive; returns those that the books refused.
CREATE OR REPLACE FUNCTION post_members(
    entries ledger_entry[], entry_members integer[], legs ledger_leg[], accounts ledger_account[],
    alive boolean[])
RETURNS TABLE (member integer, code text, available_minor bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
#variable_conflict use_column
DECLARE
    booked integer[] := entry_members;
    ordinals integer[];
BEGIN
    IF EXISTS (SELECT FROM unnest(entry_members) AS n WHERE NOT alive[n]) THEN
        -- Without the others the places are counted anew.
        SELECT array_agg(CASE WHEN alive[e.n] THEN e.place END ORDER BY e.i),
               array_agg(e.n ORDER BY e.i) FILTER (WHERE alive[e.n])
        INTO ordinals, booked
        FROM (SELECT n, i, count(*) FILTER (WHERE alive[n]) OVER (ORDER BY i) AS place
              FROM unnest(entry_members) WITH ORDINALITY AS each (n, i)) AS e;
        entries := ARRAY(
            SELECT ROW(ordinals[e.ordinal], e.entry_id, e.kind, e.effective_at, e.order_id, e.operation_id,
                       e.merchant_id, e.description, e.facts, NULL, NULL)::ledger_entry
            FROM unnest(entries) AS e WHERE ordinals[e.ordinal] IS NOT NULL ORDER BY e.ordinal);
        legs := ARRAY(
            SELECT ROW(ordinals[l.ordinal], l.line, l.part, l.action, l.debit_account_id,
                       l.credit_account_id, l.amount_minor, l.currency, l.hold_id, l.expires_at,
                       l.held_minor)::ledger_leg
            FROM unnest(legs) AS l WHERE ordinals[l.ordinal] IS NOT NULL ORDER BY l.ordinal, l.line);
    END IF;
    RETURN QUERY
    SELECT booked[posted.ordinal], posted.code, posted.available_minor
    FROM post_entries(entries, legs, accounts) WITH ORDINALITY AS posted (
        entry_id, outcome, code, account_id, available_minor, sequence, ordinal)
    WHERE posted.outcome = 'REFUSED';
END
$$;

-- Takes back what members that ended otherwise had written: keys, new orders, and what they had used
-- of a limit (those that were `kept` alive by then).
CREATE OR REPLACE FUNCTION undo_members(
    members group_member[], alive boolean[], kept boolean[], outcomes text[],
    uses passwordless_input[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS
$$
#variable_conflict use_column
BEGIN
    DELETE FROM idempotency i
    WHERE i.xmin = pg_current_xact_id()::xid AND i.idempotency_id IN (
        SELECT (members[n]).idempotency_id FROM generate_subscripts(members, 1) AS n
        WHERE outcomes[n] IN ('STALE', 'FORBIDDEN', 'REFUSED'));
    DELETE FROM payment_order o
    WHERE o.xmin = pg_current_xact_id()::xid AND o.order_id IN (
        SELECT (members[n]).order_id FROM generate_subscripts(members, 1) AS n
        WHERE NOT alive[n] AND (members[n]).expected_version IS NULL);
    UPDATE passwordless_use p SET used_minor = p.used_minor - u.amount_minor
    FROM unnest(uses) AS u
    WHERE kept[u.member] AND NOT alive[u.member] AND p.passwordless_use_id = u.passwordless_use_id;
END
$$;

-- Writes the rows of the members that are alive: orders, operations, decisions, profiles, outbox rows, and
-- of those that have any, the rest: attempts, challenges, channel events and the notes on them, audit rows.
CREATE OR REPLACE FUNCTION write_effects(
    members group_member[], alive boolean[], orders payment_order[], order_members integer[],
    operations operation[], operation_members integer[], decisions decision_input[],
    profiles profile_input[], events outbox_input[], rest jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS
$$
#variable_conflict use_column
DECLARE
    subscribers uuid[];
    follows constant boolean := EXISTS (
        SELECT FROM unnest(members) AS m WHERE m.expected_version IS NOT NULL);
BEGIN
    IF follows THEN
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
        FROM (SELECT (each.r).* FROM (
                  SELECT orders[i] AS r FROM generate_subscripts(order_members, 1) AS i
                  WHERE alive[order_members[i]]
                    AND (members[order_members[i]]).expected_version IS NOT NULL OFFSET 0) AS each
             ) AS r
        WHERE o.order_id = r.order_id AND (o.version, o.state) IS DISTINCT FROM (r.version, r.state);
    END IF;

    INSERT INTO operation
    SELECT (each.r).* FROM (
        SELECT operations[i] AS r FROM generate_subscripts(operation_members, 1) AS i
        WHERE alive[operation_members[i]]
          AND (members[operation_members[i]]).expected_version IS NULL OFFSET 0) AS each;
    IF follows THEN
        INSERT INTO operation
        SELECT (each.r).* FROM (
            SELECT operations[i] AS r FROM generate_subscripts(operation_members, 1) AS i
            WHERE alive[operation_members[i]]
              AND (members[operation_members[i]]).expected_version IS NOT NULL OFFSET 0) AS each
        ON CONFLICT (operation_id) DO UPDATE SET
            state = excluded.state, fee_minor = excluded.fee_minor, reason = excluded.reason,
            approval = excluded.approval, next_check_at = excluded.next_check_at,
            checks_count = excluded.checks_count, submitted_at = excluded.submitted_at,
            updated_at = excluded.updated_at;
    END IF;

    IF cardinality(decisions) + cardinality(profiles) > 0 THEN
        PERFORM write_assessments(decisions, profiles, alive);
    END IF;
    IF rest <> '[]' THEN
        PERFORM write_rest(rest, alive);
    END IF;

    -- An event that no endpoint waits for causes no job; it stays for replay.
    subscribers := ARRAY(
        SELECT w.merchant_id FROM webhook_endpoint w
        WHERE w.state = 'ENABLED' AND w.merchant_id = ANY (ARRAY(
            SELECT DISTINCT e.merchant_id FROM unnest(events) AS e WHERE e.public)));
    PERFORM write_outbox(events, alive, subscribers, 'deliver_webhook');
END
$$;

-- What few members have, as JSON documents of the tables' columns.
CREATE OR REPLACE FUNCTION write_rest(rest jsonb, alive boolean[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
DECLARE
    kept constant jsonb := (SELECT jsonb_agg(e) FROM jsonb_array_elements(rest) AS e
                            WHERE alive[(e ->> 'member')::integer]);
BEGIN
    IF kept IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO attempt
    SELECT r.* FROM jsonb_array_elements(kept) AS e,
        jsonb_populate_recordset(NULL::attempt, e -> 'attempts') AS r
    ON CONFLICT (attempt_id) DO UPDATE SET
        result = excluded.result, channel_trade_no = excluded.channel_trade_no,
        reason = excluded.reason, sends_count = excluded.sends_count,
        verdict_at = excluded.verdict_at, updated_at = excluded.updated_at;

    INSERT INTO challenge
    SELECT r.* FROM jsonb_array_elements(kept) AS e,
        jsonb_populate_recordset(NULL::challenge, e -> 'challenges') AS r
    ON CONFLICT (challenge_id) DO UPDATE SET
        state = excluded.state, wrong_count = excluded.wrong_count,
        expires_at = excluded.expires_at;

    INSERT INTO channel_event
    SELECT r.* FROM jsonb_array_elements(kept) AS e,
        jsonb_populate_recordset(NULL::channel_event, e -> 'channel_events') AS r
    ON CONFLICT DO NOTHING;

    UPDATE channel_event c SET
        applied_at = purser_now(), outcome = a.outcome, order_id = a.order_id,
        attempt_id = a.attempt_id, merchant_id = a.merchant_id
    FROM jsonb_array_elements(kept) AS e,
         jsonb_to_recordset(e -> 'applied_events') AS a (
             channel_event_id uuid, outcome text, order_id uuid, attempt_id uuid, merchant_id uuid)
    WHERE c.channel_event_id = a.channel_event_id AND c.applied_at IS NULL;

    INSERT INTO audit_log (audit_id, actor, action, subject, outcome, facts)
    SELECT a.* FROM jsonb_array_elements(kept) AS e,
        jsonb_to_recordset(e -> 'audits') AS a (
            audit_id uuid, actor text, action text, subject text, outcome text, facts jsonb);
END
$$;

DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY['trespassers', 'commit_group', 'post_members', 'undo_members',
                                     'write_effects', 'write_rest'] LOOP
        EXECUTE format('ALTER FUNCTION %I OWNER TO purser_poster', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %I FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I TO purser_poster', signature);
    END LOOP;
    GRANT EXECUTE ON FUNCTION commit_group TO purser_app;
END
$$;
