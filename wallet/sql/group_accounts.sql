-- What the group functions ask of the books, so that no statement outside joins the ledger's tables.

-- A merchant's balances in one currency by kind of account, with what is not rolled up yet.
CREATE OR REPLACE FUNCTION read_merchant_accounts(of_merchant_id uuid, of_currency text)
RETURNS TABLE (kind text, available_minor bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
    SELECT r.kind, r.available_minor
    FROM read_accounts(ARRAY(
        SELECT a.account_id FROM account a
        WHERE a.owner_id = of_merchant_id AND a.owner_kind = 'merchant' AND a.currency = of_currency
          AND a.kind IN ('MERCHANT_PENDING', 'MERCHANT_AVAILABLE', 'FEES'))) AS r
$$;

-- Whose accounts each entry would debit, and whether only by resolving a hold that was made before.
CREATE OR REPLACE FUNCTION debited_owners(legs ledger_leg[], accounts ledger_account[])
RETURNS TABLE (ordinal integer, owner_kind text, owner_id uuid, resolves_hold boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS
$$
    SELECT leg.ordinal, coalesce(a.owner_kind, described.owner_kind),
           coalesce(a.owner_id, described.owner_id), leg.action IN ('POST_HOLD', 'VOID_HOLD')
    FROM (SELECT DISTINCT l.ordinal, l.action, l.hold_id, l.debit_account_id FROM unnest(legs) AS l) AS leg
    LEFT JOIN hold h ON h.hold_id = leg.hold_id AND leg.debit_account_id IS NULL
    LEFT JOIN account a ON a.account_id = coalesce(leg.debit_account_id, h.debit_account_id)
    LEFT JOIN LATERAL (
        SELECT each.owner_kind, each.owner_id FROM unnest(accounts) AS each
        WHERE a.account_id IS NULL AND each.account_id = leg.debit_account_id LIMIT 1
    ) AS described ON true
$$;

ALTER FUNCTION read_merchant_accounts(uuid, text) OWNER TO purser_poster;
ALTER FUNCTION debited_owners(ledger_leg[], ledger_account[]) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION
    read_merchant_accounts(uuid, text), debited_owners(ledger_leg[], ledger_account[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    read_merchant_accounts(uuid, text), debited_owners(ledger_leg[], ledger_account[]) TO purser_poster;

-- What the entries of some orders moved, summed by kind of entry: for the check that the orders' money is
-- their postings. Operators and the system alone.
CREATE OR REPLACE FUNCTION moved_by_order(order_ids uuid[])
RETURNS TABLE (order_id uuid, kind text, moved_minor bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
    SELECT e.order_id, e.kind, sum(p.amount_minor)::bigint
    FROM entry e JOIN posting p ON p.sequence = e.sequence
    WHERE e.order_id = ANY (order_ids) AND principal_sees(NULL)
    GROUP BY e.order_id, e.kind
$$;
ALTER FUNCTION moved_by_order(uuid[]) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION moved_by_order(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION moved_by_order(uuid[]) TO purser_app;
