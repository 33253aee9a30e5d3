-- A page of an account's statement: one line per entry that moved it, with the net amount in the direction
-- of the account's normal side. `from_sequence` and `version` come from a cursor: the lines older (or
-- newer) than that entry, as the books were when the first page was read. So a page never shows what
-- was committed in between, and a balance carried from page to page stays exact.
--
-- The first page has neither; it is newest first, and each line also carries the balance of the whole
-- account at the same instant. One line more than `lines_max` tells that there is another page.
--
-- Of each side the first entries are read in the order of its index, and of these the first are the
-- page; so it costs the same however long the history is. The account is compared as a part of a pair,
-- because an equality would let the planner walk the whole journal backwards in search of a rare side.
-- Hashing is off because it would read all of the history.
CREATE OR REPLACE FUNCTION read_statement(
    of_account_id uuid, lines_max integer, from_sequence bigint, newer boolean, version text)
RETURNS TABLE (sequence bigint, amount_minor bigint, balance_minor bigint, ledger_version text, entry_id uuid,
               kind text, order_id uuid, operation_id uuid, description text, facts jsonb,
               recorded_at timestamptz, effective_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashagg = off SET enable_hashjoin = off
SET enable_mergejoin = off AS
$$
#variable_conflict use_column
DECLARE
    side integer;
    balance bigint;
    seen pg_snapshot := coalesce(version::pg_snapshot, pg_current_snapshot());
    sequences bigint[];
    reach bigint;
BEGIN
    SELECT CASE a.normal_side WHEN 'debit' THEN 1 ELSE -1 END,
           account_available(a) - a.credit_limit_minor + unrolled_minor(a)
               + CASE a.normal_side WHEN 'credit' THEN a.debits_pending ELSE a.credits_pending END
    INTO side, balance
    FROM account a WHERE a.account_id = of_account_id AND account_seen(a);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    from_sequence := coalesce(from_sequence, 9223372036854775807);

    IF newer THEN
        -- Whoever goes up in an old reading must not pass all that was booked since.
        reach := sequence_reach(of_account_id, seen);
        sequences := ARRAY(
            SELECT found.sequence FROM (
                (SELECT DISTINCT p.debit_account_id, p.sequence FROM posting p
                 WHERE (p.debit_account_id, p.sequence) > (of_account_id, from_sequence)
                   AND (p.debit_account_id, p.sequence) <= (of_account_id, reach)
                   AND pg_visible_in_snapshot(p.transaction_id, seen)
                 ORDER BY p.debit_account_id, p.sequence LIMIT lines_max + 1)
                UNION
                (SELECT DISTINCT p.credit_account_id, p.sequence FROM posting p
                 WHERE (p.credit_account_id, p.sequence) > (of_account_id, from_sequence)
                   AND (p.credit_account_id, p.sequence) <= (of_account_id, reach)
                   AND pg_visible_in_snapshot(p.transaction_id, seen)
                 ORDER BY p.credit_account_id, p.sequence LIMIT lines_max + 1)) AS found
            ORDER BY found.sequence LIMIT lines_max + 1);
    ELSE
        sequences := ARRAY(
            SELECT found.sequence FROM (
                (SELECT DISTINCT p.debit_account_id, p.sequence FROM posting p
                 WHERE (p.debit_account_id, p.sequence) < (of_account_id, from_sequence)
                   AND p.debit_account_id >= of_account_id
                   AND (version IS NULL OR pg_visible_in_snapshot(p.transaction_id, seen))
                 ORDER BY p.debit_account_id DESC, p.sequence DESC LIMIT lines_max + 1)
                UNION
                (SELECT DISTINCT p.credit_account_id, p.sequence FROM posting p
                 WHERE (p.credit_account_id, p.sequence) < (of_account_id, from_sequence)
                   AND p.credit_account_id >= of_account_id
                   AND (version IS NULL OR pg_visible_in_snapshot(p.transaction_id, seen))
                 ORDER BY p.credit_account_id DESC, p.sequence DESC LIMIT lines_max + 1)) AS found
            ORDER BY found.sequence DESC LIMIT lines_max + 1);
    END IF;

    RETURN QUERY
    SELECT line.sequence, moved.amount_minor, balance, seen::text, e.entry_id, e.kind::text, e.order_id,
           e.operation_id, e.description, e.facts, e.recorded_at, coalesce(e.effective_at, e.recorded_at)
    FROM unnest(sequences) WITH ORDINALITY AS line (sequence, place)
    JOIN entry e ON e.sequence = line.sequence
    CROSS JOIN LATERAL (
        SELECT sum(CASE of_account_id WHEN p.debit_account_id THEN side * p.amount_minor
                                      ELSE -side * p.amount_minor END)::bigint AS amount_minor
        FROM posting p
        WHERE p.sequence = line.sequence AND of_account_id IN (p.debit_account_id, p.credit_account_id)
    ) AS moved
    ORDER BY line.place;
END
$$;
ALTER FUNCTION read_statement(uuid, integer, bigint, boolean, text) OWNER TO purser_reader;
REVOKE ALL ON FUNCTION read_statement(uuid, integer, bigint, boolean, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_statement(uuid, integer, bigint, boolean, text) TO purser_app;
