-- Settlement: all that a merchant has pending becomes available, as one entry whose amount is decided under
-- the locks. What the merchant owes us is taken first. A refund that runs at the same time either comes
-- before, and is not settled, or after, and finds nothing pending.
--
-- Each of `entries` is {"entry_id", "kind", "merchant_id", "currency", "description", "facts",
-- "pending_account_id", "available_account_id", "debt_account_id", "accounts"}; one for each pending account.
-- Outcomes: POSTED, STORED (a second call with the same id moves nothing and tells what the first one
-- moved), EMPTY (nothing was pending), REFUSED with its code.
CREATE OR REPLACE FUNCTION settle_pending_as(principal text, entries jsonb)
RETURNS TABLE (entry_id uuid, outcome text, code text, settled_minor bigint, offset_minor bigint,
               sequence bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off AS
$$
#variable_conflict use_column
DECLARE
    account_ids uuid[];
    decided jsonb;
BEGIN
    PERFORM require_poster(principal);
    SELECT array_agg(DISTINCT id.account_id ORDER BY id.account_id) INTO account_ids
    FROM jsonb_to_recordset(entries) AS e (pending_account_id uuid, available_account_id uuid,
                                           debt_account_id uuid)
    CROSS JOIN LATERAL (VALUES (e.pending_account_id), (e.available_account_id), (e.debt_account_id))
        AS id (account_id);
    PERFORM open_accounts(described_accounts(entries), account_ids);
    -- All of them now and in ascending id, so that post_entries() finds them locked by this transaction.
    PERFORM FROM account a WHERE a.account_id = ANY (account_ids) ORDER BY a.account_id FOR NO KEY UPDATE;
    PERFORM roll_up_accounts(account_ids);

    SELECT jsonb_agg(e.document || jsonb_build_object('settled_minor', due.settled_minor,
               'offset_minor', due.offset_minor, 'stored', stored.sequence IS NOT NULL, 'actions',
               jsonb_path_query_array(jsonb_build_array(
                   jsonb_build_object('do', 'POST', 'debit_account_id', e.pending_account_id,
                       'credit_account_id', e.debt_account_id, 'amount_minor', due.offset_minor,
                       'currency', e.currency),
                   jsonb_build_object('do', 'POST', 'debit_account_id', e.pending_account_id,
                       'credit_account_id', e.available_account_id,
                       'amount_minor', due.settled_minor - due.offset_minor, 'currency', e.currency)),
                   '$[*] ? (@.amount_minor > 0)')))
    INTO decided
    FROM (SELECT document, r.* FROM jsonb_array_elements(entries) AS document,
          jsonb_to_record(document) AS r (entry_id uuid, pending_account_id uuid, available_account_id uuid,
                                          debt_account_id uuid, currency text)) AS e
    LEFT JOIN entry stored ON stored.entry_id = e.entry_id
    JOIN account pending ON pending.account_id = e.pending_account_id
    JOIN account debt ON debt.account_id = e.debt_account_id
    CROSS JOIN LATERAL (SELECT greatest(account_available(pending) + unrolled_minor(pending), 0),
                               greatest(account_available(debt), 0)) AS has (pending_minor, debt_minor)
    CROSS JOIN LATERAL (SELECT
        coalesce((SELECT sum(p.amount_minor) FROM posting p WHERE p.sequence = stored.sequence)::bigint,
                 has.pending_minor),
        coalesce((SELECT sum(p.amount_minor) FROM posting p
                  WHERE p.sequence = stored.sequence AND p.credit_account_id = e.debt_account_id)::bigint,
                 CASE WHEN stored.sequence IS NULL THEN least(has.pending_minor, has.debt_minor) ELSE 0 END)
    ) AS due (settled_minor, offset_minor);

    RETURN QUERY
    SELECT d.entry_id,
           CASE WHEN d.stored THEN 'STORED' WHEN d.settled_minor = 0 THEN 'EMPTY' ELSE p.outcome END,
           p.code, CASE WHEN p.code IS NULL THEN d.settled_minor ELSE 0 END,
           CASE WHEN p.code IS NULL THEN d.offset_minor ELSE 0 END,
           coalesce(p.sequence, (SELECT s.sequence FROM entry s WHERE s.entry_id = d.entry_id))
    FROM jsonb_to_recordset(decided) AS d (entry_id uuid, stored boolean, settled_minor bigint,
                                           offset_minor bigint)
    LEFT JOIN post_entries(coalesce(jsonb_path_query_array(
        decided, '$[*] ? (@.stored == false && @.settled_minor > 0)'), '[]')) AS p ON p.entry_id = d.entry_id;
END
$$;
ALTER FUNCTION settle_pending_as(text, jsonb) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION settle_pending_as(text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION settle_pending_as(text, jsonb) TO purser_app;
