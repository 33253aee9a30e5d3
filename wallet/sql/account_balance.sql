-- What an account's columns mean. A balance is a difference; a buffered account's columns are behind
-- its postings, and what is missing is the sum of those that its roll-up has not consumed.

CREATE OR REPLACE FUNCTION account_available(a account) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
    SELECT a.credit_limit_minor + CASE a.normal_side
        WHEN 'credit' THEN a.credits_posted - a.debits_posted - a.debits_pending
        ELSE a.debits_posted - a.credits_posted - a.credits_pending END
$$;

-- Debits and credits that are committed (or this transaction's own) and not yet in the columns.
-- In PL/pgSQL, which plans a statement once; SQL would plan it again each time, for longer than it runs.
CREATE OR REPLACE FUNCTION unrolled(a account, OUT debits_minor bigint, OUT credits_minor bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
BEGIN
    debits_minor := coalesce((
        SELECT sum(p.amount_minor) FROM posting p
        WHERE p.debit_account_id = a.account_id AND p.debit_buffered
          AND p.transaction_id >= pg_snapshot_xmin(a.rolled_up_to)
          AND NOT pg_visible_in_snapshot(p.transaction_id, a.rolled_up_to)), 0);
    credits_minor := coalesce((
        SELECT sum(p.amount_minor) FROM posting p
        WHERE p.credit_account_id = a.account_id AND p.credit_buffered
          AND p.transaction_id >= pg_snapshot_xmin(a.rolled_up_to)
          AND NOT pg_visible_in_snapshot(p.transaction_id, a.rolled_up_to)), 0);
END
$$;

-- The same as one amount, in the direction of the account's normal side; 0 for accounts without a buffer.
CREATE OR REPLACE FUNCTION unrolled_minor(a account) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE AS
$$
    SELECT CASE WHEN a.buffered THEN
        (SELECT CASE a.normal_side WHEN 'credit' THEN u.credits_minor - u.debits_minor
                                   ELSE u.debits_minor - u.credits_minor END
         FROM unrolled(a) u)
    ELSE 0 END
$$;
-- Whether the phase's principal may see an account: the rule of the table's policy, for functions that
-- run with more rights than their caller.
CREATE OR REPLACE FUNCTION account_seen(a account) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS
$$
    SELECT principal_sees(CASE a.owner_kind WHEN 'merchant' THEN a.owner_id END,
                          CASE a.owner_kind WHEN 'customer' THEN a.owner_id END)
$$;

GRANT EXECUTE ON FUNCTION account_available(account), unrolled(account), unrolled_minor(account),
    account_seen(account) TO purser_poster, purser_reader;
