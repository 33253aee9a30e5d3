-- The rules, one entry after another: which are booked, which are there already, which are refused and
-- why. It writes nothing. post_entries() calls it with the locks held, and only where something could be
-- refused at all.
--
-- `account_ids` are all accounts that the legs touch, ascending, and `floors` what each has available;
-- empty for accounts that cannot run dry. An entry sees the ones before it, is judged by where it leaves
-- each account (not by its steps on the way), and changes nothing when it is refused.
CREATE OR REPLACE FUNCTION judge_entries(
    entries ledger_entry[], legs ledger_leg[], account_ids uuid[], floors bigint[], judged_at timestamptz)
RETURNS ledger_verdict[]
LANGUAGE plpgsql AS
$$
DECLARE
    verdicts ledger_verdict[] := '{}';
    available bigint[] := floors;
    made uuid[] := '{}';            -- holds that this call makes or resolves
    resolved uuid[] := '{}';
    available_after bigint[];       -- the same, if the entry at hand is booked
    made_after uuid[];
    resolved_after uuid[];
    frozen boolean[];
    credits_frozen boolean[];
    debit_normal boolean[];
    entry ledger_entry;
    leg ledger_leg;
    refused_code text;
    refused_at integer;             -- the refusing account's place in account_ids
    stored_hash bytea;
    earlier integer;
    first_leg integer := 1;
    last_leg integer;
    debit_at integer;
    credit_at integer;
    hold_left bigint := 0;
    hold_state text;
BEGIN
    SELECT array_agg(a.frozen ORDER BY a.account_id), array_agg(a.credits_frozen ORDER BY a.account_id),
           array_agg(a.normal_side = 'debit' ORDER BY a.account_id)
    INTO frozen, credits_frozen, debit_normal
    FROM account a WHERE a.account_id = ANY (account_ids);

    FOREACH entry IN ARRAY entries LOOP
        last_leg := first_leg;
        WHILE last_leg < cardinality(legs) AND legs[last_leg + 1].ordinal = entry.ordinal LOOP
            last_leg := last_leg + 1;
        END LOOP;

        -- The same id, stored before or booked a moment ago by an entry of this call.
        SELECT e.content_hash INTO stored_hash FROM entry e WHERE e.entry_id = entry.entry_id;
        earlier := entry.previous;
        WHILE stored_hash IS NULL AND earlier IS NOT NULL LOOP
            IF verdicts[earlier].outcome = 'POSTED' THEN
                stored_hash := entries[earlier].content_hash;
            END IF;
            earlier := entries[earlier].previous;
        END LOOP;
        IF stored_hash IS NOT NULL THEN
            verdicts := verdicts || CASE WHEN stored_hash = entry.content_hash
                THEN ROW('STORED', NULL, NULL, NULL)::ledger_verdict
                ELSE ROW('REFUSED', 'ENTRY_CONFLICT', NULL, NULL)::ledger_verdict END;
            first_leg := last_leg + 1;
            CONTINUE;
        END IF;

        available_after := available;
        made_after := made;
        resolved_after := resolved;
        refused_code := NULL;
        refused_at := NULL;

        FOR place IN first_leg .. last_leg LOOP
            leg := legs[place];
            debit_at := width_bucket(leg.debit_account_id, account_ids);
            credit_at := width_bucket(leg.credit_account_id, account_ids);

            -- A frozen account gives nothing away. What it has on hold may still be let go.
            IF leg.action IN ('POST', 'HOLD', 'POST_HOLD') AND frozen[debit_at] THEN
                refused_code := 'ACCOUNT_FROZEN';
                refused_at := debit_at;
            ELSIF leg.action IN ('POST', 'POST_HOLD') AND credits_frozen[credit_at] THEN
                refused_code := 'ACCOUNT_FROZEN';
                refused_at := credit_at;
            END IF;
            EXIT WHEN refused_code IS NOT NULL;

            -- A hold is resolved once. Its first leg asks whether that may be, and lets go of all it held.
            IF leg.action NOT IN ('POST', 'HOLD') AND leg.held_minor IS NULL THEN
                refused_code := 'HOLD_NOT_PENDING';
            ELSIF leg.action NOT IN ('POST', 'HOLD') AND leg.held_minor <> 0 THEN
                SELECT h.state INTO hold_state FROM hold h WHERE h.hold_id = leg.hold_id;
                IF leg.hold_id = ANY (resolved_after)
                   OR coalesce(hold_state <> 'PENDING', NOT leg.hold_id = ANY (made_after)) THEN
                    refused_code := 'HOLD_NOT_PENDING';
                ELSIF leg.action = 'POST_HOLD' AND leg.expires_at <= judged_at THEN
                    refused_code := 'HOLD_EXPIRED';
                ELSIF leg.action = 'EXPIRE_HOLD' AND coalesce(leg.expires_at > judged_at, true) THEN
                    refused_code := 'INVALID_ARGUMENT';
                END IF;
                hold_left := -leg.held_minor;
                resolved_after := resolved_after || leg.hold_id;
            END IF;
            IF leg.action = 'POST_HOLD' THEN
                hold_left := hold_left - leg.amount_minor;
                IF hold_left < 0 THEN
                    refused_code := coalesce(refused_code, 'HOLD_EXCEEDED');
                END IF;
            ELSIF leg.action = 'HOLD' THEN
                made_after := made_after || leg.hold_id;
            END IF;
            IF refused_code IS NOT NULL THEN
                refused_at := debit_at;
                EXIT;
            END IF;

            -- NULL, the available amount of an account that cannot run dry, stays NULL.
            IF leg.action IN ('POST', 'POST_HOLD') THEN
                available_after[credit_at] := available_after[credit_at]
                    + CASE WHEN debit_normal[credit_at] THEN -leg.amount_minor ELSE leg.amount_minor END;
                available_after[debit_at] := available_after[debit_at]
                    - CASE WHEN debit_normal[debit_at] THEN -leg.amount_minor ELSE leg.amount_minor END;
            END IF;
            IF NOT debit_normal[debit_at] THEN
                available_after[debit_at] := available_after[debit_at] - leg.held_minor;
            END IF;
        END LOOP;

        -- A credit is welcome even where it does not reach the floor; a drain must stay above it.
        FOR place IN first_leg .. last_leg LOOP
            EXIT WHEN refused_code IS NOT NULL;
            FOREACH debit_at IN ARRAY ARRAY[
                width_bucket(legs[place].debit_account_id, account_ids),
                width_bucket(legs[place].credit_account_id, account_ids)]
            LOOP
                IF available_after[debit_at] < least(0, available[debit_at]) THEN
                    refused_code := 'INSUFFICIENT_AVAILABLE';
                    refused_at := debit_at;
                    EXIT;
                END IF;
            END LOOP;
        END LOOP;

        IF refused_code IS NULL THEN
            verdicts := verdicts || ROW('POSTED', NULL, NULL, NULL)::ledger_verdict;
            available := available_after;
            made := made_after;
            resolved := resolved_after;
        ELSE
            verdicts := verdicts || ROW('REFUSED', refused_code, account_ids[refused_at],
                                        available[refused_at])::ledger_verdict;
        END IF;
        first_leg := last_leg + 1;
    END LOOP;
    RETURN verdicts;
END
$$;
REVOKE ALL ON FUNCTION judge_entries(ledger_entry[], ledger_leg[], uuid[], bigint[], timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION judge_entries(ledger_entry[], ledger_leg[], uuid[], bigint[], timestamptz)
    TO purser_poster;
