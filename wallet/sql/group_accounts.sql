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

-- Whose accounts an entry would debit, and whether only by resolving a hold that was made before.
CREATE OR REPLACE FUNCTION debited_owners(entry jsonb)
RETURNS TABLE (owner_kind text, owner_id uuid, resolves_hold boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
    SELECT coalesce(a.owner_kind, described.owner_kind), coalesce(a.owner_id, described.owner_id),
           action."do" IN ('POST_HOLD', 'VOID_HOLD')
    FROM jsonb_to_recordset(entry -> 'actions') AS action ("do" text, debit_account_id uuid, hold_id uuid)
    LEFT JOIN hold h ON h.hold_id = action.hold_id AND action.debit_account_id IS NULL
    LEFT JOIN account a ON a.account_id = coalesce(action.debit_account_id, h.debit_account_id)
    LEFT JOIN jsonb_to_recordset(entry -> 'accounts') AS described (
        account_id uuid, owner_kind text, owner_id uuid)
        ON described.account_id = action.debit_account_id
$$;

ALTER FUNCTION read_merchant_accounts(uuid, text) OWNER TO purser_poster;
ALTER FUNCTION debited_owners(jsonb) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION read_merchant_accounts(uuid, text), debited_owners(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_merchant_accounts(uuid, text), debited_owners(jsonb) TO purser_poster;

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
