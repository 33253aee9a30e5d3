-- Balances as of now, with what the roll-up has not reached yet. `ledger_version` names the instant: the
-- snapshot of the reading. Asked for that version later, the ledger gives the same answer. An account that
-- nobody has opened yet has no row here; its balance is 0.
--
-- Under the caller's own rights: the group functions see all accounts, the application its principal's.
CREATE OR REPLACE FUNCTION read_accounts(account_ids uuid[])
RETURNS TABLE (account_id uuid, owner_kind text, owner_id uuid, kind text, currency text,
               posted_minor bigint, pending_minor bigint, available_minor bigint, credit_limit_minor bigint,
               frozen boolean, credits_frozen boolean, account_version bigint, ledger_version text)
LANGUAGE sql STABLE SET enable_seqscan = off AS
$$
    SELECT a.account_id, a.owner_kind, a.owner_id, a.kind, a.currency,
           account_available(a) - a.credit_limit_minor + pending.minor + fresh.minor, pending.minor,
           account_available(a) + fresh.minor, a.credit_limit_minor,
           a.frozen, a.credits_frozen, a.account_version, pg_current_snapshot()::text
    FROM account a
    CROSS JOIN LATERAL (SELECT CASE a.normal_side
        WHEN 'credit' THEN a.debits_pending ELSE a.credits_pending END) AS pending (minor)
    CROSS JOIN LATERAL (SELECT unrolled_minor(a)) AS fresh (minor)
    WHERE a.account_id = ANY (account_ids)
$$;
GRANT EXECUTE ON FUNCTION read_accounts(uuid[]) TO purser_poster, purser_reader;

-- The same for the application: only accounts that the phase's principal may see.
CREATE OR REPLACE FUNCTION balances(account_ids uuid[])
RETURNS TABLE (account_id uuid, owner_kind text, owner_id uuid, kind text, currency text,
               posted_minor bigint, pending_minor bigint, available_minor bigint, credit_limit_minor bigint,
               frozen boolean, credits_frozen boolean, account_version bigint, ledger_version text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT r.* FROM read_accounts(ARRAY(
        SELECT a.account_id FROM account a
        WHERE a.account_id = ANY (account_ids) AND account_seen(a))) AS r
$$;
ALTER FUNCTION balances(uuid[]) OWNER TO purser_reader;
REVOKE ALL ON FUNCTION read_accounts(uuid[]), balances(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION balances(uuid[]) TO purser_app;

-- A merchant's money by the bucket it is in, each the balance of the ledger accounts of that name.
-- What is held for refunds has left its bucket already. Unsettled money is never available.
CREATE OR REPLACE FUNCTION merchant_balance(of_merchant_id uuid)
RETURNS TABLE (currency text, available_minor bigint, pending_settlement_minor bigint, frozen_minor bigint,
               reserved_payout_minor bigint, in_transit_minor bigint, debt_minor bigint,
               as_of timestamptz, ledger_version text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public SET enable_seqscan = off AS
$$
    SELECT r.currency,
           coalesce(sum(r.available_minor) FILTER (WHERE r.kind = 'MERCHANT_AVAILABLE'), 0)::bigint,
           coalesce(sum(r.available_minor) FILTER (WHERE r.kind = 'MERCHANT_PENDING'), 0)::bigint,
           coalesce(sum(r.posted_minor) FILTER (WHERE r.kind IN ('DISPUTES', 'MERCHANT_FROZEN')), 0)::bigint,
           coalesce(sum(reserved.minor), 0)::bigint,
           coalesce(sum(r.posted_minor) FILTER (WHERE r.kind = 'PAYOUTS_IN_FLIGHT'), 0)::bigint,
           coalesce(sum(r.posted_minor) FILTER (WHERE r.kind = 'MERCHANT_DEBT'), 0)::bigint,
           purser_now(), pg_current_snapshot()::text
    FROM read_accounts(ARRAY(
        SELECT a.account_id FROM account a
        WHERE a.owner_id = of_merchant_id AND a.owner_kind = 'merchant' AND account_seen(a))) AS r
    LEFT JOIN LATERAL (
        SELECT sum(h.amount_minor) FROM hold h JOIN account c ON c.account_id = h.credit_account_id
        WHERE r.kind = 'MERCHANT_AVAILABLE' AND h.debit_account_id = r.account_id AND h.state = 'PENDING'
          AND c.kind = 'PAYOUTS_IN_FLIGHT') AS reserved (minor) ON true
    GROUP BY r.currency
    ORDER BY r.currency
$$;
ALTER FUNCTION merchant_balance(uuid) OWNER TO purser_reader;
REVOKE ALL ON FUNCTION merchant_balance(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION merchant_balance(uuid) TO purser_app;
