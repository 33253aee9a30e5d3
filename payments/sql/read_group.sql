-- What hangs on an order, and, for a member that follows on it, its merchant's balances.
CREATE OR REPLACE FUNCTION read_followed(o payment_order, follows boolean, number text) RETURNS json
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
    SELECT json_build_object(
        'order', o,
        'operations', (
            SELECT json_agg(to_json(p) ORDER BY p.created_at, p.operation_id)
            FROM operation p WHERE p.order_id = o.order_id),
        'refund_of_number', (
            SELECT to_json(p) FROM operation p
            WHERE p.merchant_id = o.merchant_id AND p.type = 'REFUND' AND p.operation_number = number),
        'attempts', (
            SELECT json_agg(to_json(a) ORDER BY a.created_at, a.attempt_id)
            FROM attempt a WHERE a.order_id = o.order_id),
        'challenge', (
            SELECT to_json(c) FROM challenge c WHERE c.order_id = o.order_id
            ORDER BY c.created_at DESC LIMIT 1),
        'balances', (
            SELECT json_object_agg(r.kind, r.available_minor)
            FROM read_merchant_accounts(CASE WHEN follows THEN o.merchant_id END, o.currency) AS r))
$$;

-- All that the members of a group need to decide, in one statement without locks. Nothing read here is
-- trusted by commit_group(). A member sees its own order, its own key and its own limit; of the others
-- only what a payment to them must know.
--
-- Plans are kept for a session's life, maybe from when the tables were empty: without sequential scans
-- they are right then and stay right. The same holds for commit_group().

CREATE OR REPLACE FUNCTION read_group(
    principals text[], idempotency_ids uuid[], order_ids uuid[], merchant_ids uuid[],
    order_numbers text[], refund_numbers text[], payee_ids uuid[], own_keys text[], shared_keys text[],
    currencies text[])
RETURNS TABLE (
    now timestamptz, stored_hash text, stored_result text, merchant json, payer_status text, payee_status text,
    own_version bigint, own_state text, shared_version bigint, shared_state text,
    passwordless_used_minor bigint, followed json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_mergejoin = off AS
$$
    WITH placed AS MATERIALIZED (
        SELECT m.*, o.found, o.order_id AS found_id, coalesce(o.merchant_id, m.merchant_id) AS seller_id,
               o.currency AS order_currency
        FROM (
            SELECT r.*, split_part(r.principal, ':', 1) AS kind,
                   nullif(split_part(r.principal, ':', 2), '')::uuid AS id
            FROM unnest(principals, idempotency_ids, order_ids, merchant_ids, order_numbers,
                        refund_numbers, payee_ids, own_keys, shared_keys, currencies)
                WITH ORDINALITY AS r (
                    principal, idempotency_id, order_id, merchant_id, merchant_order_no, refund_number,
                    payee_customer_id, own_key, shared_key, currency, n)
        ) AS m
        LEFT JOIN LATERAL (
            SELECT p AS found, p.order_id, p.merchant_id, p.currency FROM payment_order p
            WHERE p.order_id = m.order_id
              AND (m.kind IN ('operator', 'system')
                   OR m.kind = 'merchant' AND p.merchant_id = m.id
                   OR m.kind = 'customer' AND m.id IN (p.payer_customer_id, p.payee_customer_id))
            UNION ALL
            -- Whoever opens an order must know that its number is taken. The order that is asked for
            -- leaves only the index of numbers: that of the merchant's newest would do as well while
            -- the tables are empty, and would read all his orders later.
            (SELECT p, p.order_id, p.merchant_id, p.currency FROM payment_order p
             WHERE m.order_id IS NULL AND p.merchant_id = m.merchant_id
               AND p.merchant_order_no BETWEEN m.merchant_order_no AND m.merchant_order_no
             ORDER BY p.merchant_order_no LIMIT 1)
        ) AS o ON true
    ), merchants AS MATERIALIZED (
        SELECT * FROM read_merchants(ARRAY(SELECT DISTINCT seller_id FROM placed))
    ), customers AS MATERIALIZED (
        SELECT * FROM read_customers(ARRAY(
            SELECT id FROM placed WHERE kind = 'customer'
            UNION SELECT payee_customer_id FROM placed WHERE payee_customer_id IS NOT NULL))
    ), profiles AS MATERIALIZED (
        SELECT * FROM read_profiles(ARRAY(
            SELECT own_key FROM placed WHERE own_key = principal OR own_key NOT LIKE 'customer:%'
            UNION SELECT shared_key FROM placed WHERE shared_key NOT LIKE 'customer:%'))
    )
    SELECT purser_now(), i.input_hash, i.result, seller.party, payer.status, payee.status,
           own.version, own.state, shared.version, shared.state,
           coalesce(used.used_minor, 0),
           CASE WHEN m.found_id IS NOT NULL
                THEN read_followed(m.found, m.order_id IS NOT NULL, m.refund_number) END
    FROM placed AS m
    LEFT JOIN idempotency i ON i.idempotency_id = m.idempotency_id AND i.principal = m.principal
    LEFT JOIN merchants AS seller ON seller.merchant_id = m.seller_id
    LEFT JOIN customers AS payer ON m.kind = 'customer' AND payer.customer_id = m.id
    LEFT JOIN customers AS payee ON payee.customer_id = m.payee_customer_id
    LEFT JOIN profiles AS own
        ON own.key = m.own_key AND (m.own_key = m.principal OR m.own_key NOT LIKE 'customer:%')
    LEFT JOIN profiles AS shared ON shared.key = m.shared_key
    LEFT JOIN passwordless_use used
        ON m.kind = 'customer' AND used.customer_id = m.id AND used.currency = m.currency
           AND used.used_on = (purser_now() AT TIME ZONE 'UTC')::date
    ORDER BY m.n
$$;

-- Locks what a member that was overtaken three times will change, before it reads again: its order, then
-- its own risk profiles.
CREATE OR REPLACE FUNCTION lock_member(of_order_id uuid, profile_keys text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
BEGIN
    PERFORM FROM payment_order o WHERE o.order_id = of_order_id FOR NO KEY UPDATE;
    PERFORM lock_profiles(
        ARRAY(SELECT ROW(1, key, 1, '{}')::profile_input FROM unnest(profile_keys) AS key
              WHERE key LIKE 'customer:%' OR key LIKE 'payouts:%'),
        ARRAY[true]);
END
$$;

ALTER FUNCTION read_group OWNER TO purser_poster;
ALTER FUNCTION read_followed OWNER TO purser_poster;
ALTER FUNCTION lock_member(uuid, text[]) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION read_group, read_followed, lock_member(uuid, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_followed TO purser_poster;
GRANT EXECUTE ON FUNCTION read_group, lock_member(uuid, text[]) TO purser_app;
