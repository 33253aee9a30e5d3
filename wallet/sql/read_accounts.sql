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
