-- All that the members of a group need to decide, in one statement without locks. Nothing read here is
-- trusted by commit_group(). A member sees its own order, its own key and its own limit; of the others
-- only what a payment to them must know.
--
-- Plans are kept for a session's life, maybe from when the tables were empty: without sequential scans
-- they are right then and stay right. The same holds for commit_group().

CREATE OR REPLACE FUNCTION read_group(members jsonb)
RETURNS TABLE (document jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
    SELECT jsonb_build_object(
        'member', m.member,
        'now', purser_now(),
        'stored', (SELECT jsonb_build_object('input_hash', i.input_hash, 'result', i.result)
                   FROM idempotency i
                   WHERE i.idempotency_id = m.idempotency_id AND i.principal = m.principal),
        'merchant', (SELECT party FROM read_merchants(
            ARRAY[coalesce(o.merchant_id, m.merchant_id)]) AS party),
        'payer', CASE WHEN m.kind = 'customer' THEN (
            SELECT party FROM read_customers(ARRAY[m.id]) AS party) END,
        'payee', (SELECT party FROM read_customers(ARRAY[m.payee_customer_id]) AS party),
        'order', to_jsonb(o),
        'operations', coalesce((SELECT jsonb_agg(to_jsonb(p) ORDER BY p.created_at, p.operation_id)
                                FROM operation p WHERE p.order_id = o.order_id), '[]'),
        'refund_of_number', (SELECT to_jsonb(p) FROM operation p
                             WHERE p.merchant_id = o.merchant_id AND p.type = 'REFUND'
                               AND p.operation_number = m.refund_number),
        'attempts', coalesce((SELECT jsonb_agg(to_jsonb(a) ORDER BY a.created_at, a.attempt_id)
                              FROM attempt a WHERE a.order_id = o.order_id), '[]'),
        'challenge', (SELECT to_jsonb(c) FROM challenge c WHERE c.order_id = o.order_id
                      ORDER BY c.created_at DESC LIMIT 1),
        'profiles', coalesce((
            SELECT jsonb_agg(profile) FROM read_profiles(ARRAY(
                SELECT key FROM jsonb_array_elements_text(m.profile_keys) AS key
                WHERE key = m.principal OR key NOT LIKE 'customer:%')) AS profile), '[]'),
        'pending_minor', coalesce(books.pending_minor, 0),
        'available_minor', coalesce(books.available_minor, 0),
        'fees_minor', coalesce(books.fees_minor, 0),
        'passwordless_used_minor', coalesce((
            SELECT u.used_minor FROM passwordless_use u
            WHERE m.kind = 'customer' AND u.customer_id = m.id
              AND u.currency = m.passwordless_currency
              AND u.used_on = (purser_now() AT TIME ZONE 'UTC')::date), 0))
    FROM (
        SELECT r.*, split_part(r.principal, ':', 1) AS kind,
               nullif(split_part(r.principal, ':', 2), '')::uuid AS id
        FROM jsonb_to_recordset(members) AS r (
            member integer, principal text, idempotency_id uuid, order_id uuid, merchant_id uuid,
            merchant_order_no text, refund_number text, payee_customer_id uuid, profile_keys jsonb,
            passwordless_currency text)
    ) AS m
    LEFT JOIN LATERAL (
        SELECT p.* FROM payment_order p
        WHERE p.order_id = m.order_id
          AND (m.kind IN ('operator', 'system')
               OR m.kind = 'merchant' AND p.merchant_id = m.id
               OR m.kind = 'customer' AND m.id IN (p.payer_customer_id, p.payee_customer_id))
        UNION ALL
        -- Whoever opens an order must know that its number is taken.
        SELECT p.* FROM payment_order p
        WHERE m.order_id IS NULL
          AND p.merchant_id = m.merchant_id AND p.merchant_order_no = m.merchant_order_no
    ) AS o ON true
    LEFT JOIN LATERAL (
        SELECT max(available_minor) FILTER (WHERE kind = 'MERCHANT_PENDING') AS pending_minor,
               max(available_minor) FILTER (WHERE kind = 'MERCHANT_AVAILABLE') AS available_minor,
               max(available_minor) FILTER (WHERE kind = 'FEES') AS fees_minor
        FROM read_merchant_accounts(o.merchant_id, o.currency)
        WHERE m.order_id IS NOT NULL) AS books ON true
    ORDER BY m.member
$$;

-- Locks what a member that was overtaken three times will change, before it reads again: its order, then
-- its own risk profiles.
CREATE OR REPLACE FUNCTION lock_member(of_order_id uuid, profile_keys text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
BEGIN
    PERFORM FROM payment_order o WHERE o.order_id = of_order_id FOR NO KEY UPDATE;
    PERFORM FROM lock_profiles((
        SELECT coalesce(jsonb_agg(jsonb_build_object('key', key, 'version', 0)), '[]')
        FROM unnest(profile_keys) AS key
        WHERE key LIKE 'customer:%' OR key LIKE 'payouts:%'));
END
$$;

ALTER FUNCTION read_group(jsonb) OWNER TO purser_poster;
ALTER FUNCTION lock_member(uuid, text[]) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION read_group(jsonb), lock_member(uuid, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_group(jsonb), lock_member(uuid, text[]) TO purser_app;
