-- The one function that writes the books. It takes journal entries in their order of arrival, each all or
-- nothing, and returns for each whether it was booked (POSTED), was there already (STORED), or is
-- REFUSED and why. An expected refusal never raises.
--
-- Locks: the accounts that this call must check or write in place, in ascending id, in one statement,
-- before anything is numbered. Those are all accounts without a buffer, the buffered ones with a floor that
-- are drained here, and those with a hold made or resolved here. A buffered account that is only
-- credited is not locked and not written: its postings say so (`credit_buffered`), and the roll-up adds
-- them to its columns later. A buffered account that is locked is rolled up first, and what this call
-- moves on it is written in place.
--
-- A second call with the same entry finds it stored and writes nothing. One call belongs in one
-- transaction: two would take the locks of the second out of order.
CREATE OR REPLACE FUNCTION post_entries(
    entries ledger_entry[], legs ledger_leg[], accounts ledger_account[])
RETURNS TABLE (entry_id uuid, outcome text, code text, account_id uuid, available_minor bigint,
               sequence bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off
SET plan_cache_mode = force_generic_plan AS
-- A session plans each statement once, maybe while the tables are still empty. With look-ups by index in
-- nested loops as the only choice, the plans are right then and stay right. Sets in memory are never
-- joined: a place in the sorted array of account ids is found by width_bucket(), a binary search. The
-- functions below are planned under these settings too.
$$
#variable_conflict use_column
DECLARE
    parsed ledger_entry[];
    contents text[];            -- the canonical text of each entry's legs
    resolves_holds boolean;
    makes_holds boolean;
    repeats_ids boolean;
    unknown_action boolean;
    account_ids uuid[];         -- all that are touched, ascending
    drains bigint[];            -- the most that each could lose here
    in_place boolean[];         -- which are locked and written here; the others are buffered
    missing boolean;
    mixed boolean;
    frozen_found boolean;
    lock_ids uuid[];
    floors bigint[];            -- what each of the locked has available, where it can run dry
    must_roll_up boolean;
    judged boolean;
    verdicts ledger_verdict[];
    accepted boolean[];
    sequences bigint[];
    recorded timestamptz;
    accepted_count integer;
    written_count integer;
BEGIN
    IF coalesce(cardinality(entries), 0) = 0 THEN
        RETURN;
    END IF;

    SELECT array_agg(leg.content ORDER BY leg.ordinal), bool_or(leg.resolves), bool_or(leg.makes),
           bool_or(leg.unknown)
    INTO contents, resolves_holds, makes_holds, unknown_action
    FROM (
        SELECT l.ordinal, bool_or(l.action NOT IN ('POST', 'HOLD')) AS resolves,
               bool_or(l.action = 'HOLD') AS makes,
               bool_or(coalesce(l.action NOT IN ('POST', 'HOLD', 'POST_HOLD', 'VOID_HOLD', 'EXPIRE_HOLD'), true))
                   AS unknown,
               string_agg(leg_content(l.action, l.hold_id, l.debit_account_id, l.credit_account_id,
                                      l.amount_minor, l.currency, l.expires_at), '|' ORDER BY l.line) AS content
        FROM unnest(legs) AS l GROUP BY l.ordinal
    ) AS leg;
    IF coalesce(cardinality(contents), 0) <> cardinality(entries) OR coalesce(unknown_action, true) THEN
        RAISE EXCEPTION 'an entry without an action, or with an unknown one'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT array_agg(ROW(
               e.ordinal, e.entry_id, e.kind, e.effective_at, e.order_id, e.operation_id, e.merchant_id,
               e.description, e.facts, sha256(convert_to(entry_content(
                   e.entry_id, e.kind, e.effective_at, e.order_id, e.operation_id, e.merchant_id,
                   contents[e.ordinal], e.facts, e.description), 'UTF8')), e.previous)::ledger_entry
               ORDER BY e.ordinal),
           bool_or(e.previous IS NOT NULL)
    INTO parsed, repeats_ids
    FROM (SELECT each.ordinal, each.entry_id, each.kind, each.effective_at, each.order_id, each.operation_id,
                 each.merchant_id, each.description, each.facts,
                 lag(each.ordinal) OVER (PARTITION BY each.entry_id ORDER BY each.ordinal) AS previous
          FROM unnest(entries) AS each) AS e;
    IF resolves_holds THEN
        legs := with_holds(legs);
    END IF;

    -- Which accounts, which of them are written in place, and what could each lose? Missing ones are opened
    -- first, in ascending id, before any lock is taken: a lock on a missing row would lock nothing.
    LOOP
        SELECT array_agg(t.account_id ORDER BY t.account_id),
               array_agg(t.drain ORDER BY t.account_id),
               array_agg(t.in_place ORDER BY t.account_id),
               array_agg(t.account_id ORDER BY t.account_id) FILTER (WHERE t.in_place),
               bool_or(t.missing), bool_or(t.frozen), bool_or(t.mixed)
        INTO account_ids, drains, in_place, lock_ids, missing, frozen_found, mixed
        FROM (
            SELECT touched.account_id, drained.drain, a.frozen OR a.credits_frozen AS frozen,
                   NOT a.buffered OR touched.held OR a.has_floor AND drained.drain > 0 AS in_place,
                   a.account_id IS NULL AS missing,
                   touched.currency <> a.currency OR touched.last_currency <> a.currency AS mixed
            FROM (SELECT side.account_id, sum(side.debit_minor)::bigint AS debits_minor,
                         sum(side.credit_minor)::bigint AS credits_minor, bool_or(side.held) AS held,
                         min(leg.currency) AS currency, max(leg.currency) AS last_currency
                  FROM unnest(legs) AS leg
                  CROSS JOIN LATERAL (VALUES
                      (leg.debit_account_id, leg.amount_minor, 0, leg.action <> 'POST'),
                      (leg.credit_account_id, 0, leg.amount_minor, false)
                  ) AS side (account_id, debit_minor, credit_minor, held)
                  WHERE side.account_id IS NOT NULL
                  GROUP BY side.account_id) AS touched
            LEFT JOIN account a ON a.account_id = touched.account_id
            CROSS JOIN LATERAL (SELECT CASE a.normal_side
                WHEN 'credit' THEN touched.debits_minor ELSE touched.credits_minor END) AS drained (drain)
        ) AS t;
        EXIT WHEN NOT coalesce(missing, false);
        PERFORM open_accounts(accounts, account_ids);
    END LOOP;
    IF coalesce(mixed, false) THEN
        RAISE EXCEPTION 'a posting in another currency than its account'
            USING ERRCODE = 'foreign_key_violation';
    END IF;

    SELECT array_agg(CASE WHEN a.has_floor THEN account_available(a) END ORDER BY a.account_id),
           coalesce(bool_or(a.buffered), false),
           coalesce(bool_or(a.frozen OR a.credits_frozen), false) OR coalesce(frozen_found, false)
    INTO floors, must_roll_up, frozen_found
    FROM (SELECT * FROM account WHERE account_id = ANY (lock_ids)
          ORDER BY account_id FOR NO KEY UPDATE) AS a;
    IF must_roll_up THEN
        PERFORM roll_up_accounts(lock_ids);
        -- What this transaction itself posted earlier is not rolled up, but counts.
        SELECT array_agg(CASE WHEN a.has_floor THEN account_available(a) + unrolled_minor(a) END
                         ORDER BY a.account_id)
        INTO floors FROM account a WHERE a.account_id = ANY (lock_ids);
    END IF;

    -- A transaction is numbered before its entries are, even where it has locked nothing: who asks for the
    -- entries of later transactions looks only above a mark (see `sequence_floor()`).
    PERFORM pg_current_xact_id();

    -- Where every account could lose all that is asked of it, there is nothing to judge.
    recorded := purser_now();
    SELECT coalesce(frozen_found OR resolves_holds OR repeats_ids
                    OR bool_or(t.available < drains[width_bucket(t.account_id, account_ids)]), false)
    INTO judged FROM unnest(lock_ids, floors) AS t (account_id, available);
    IF judged THEN
        verdicts := judge_entries(
            parsed, legs, account_ids,
            ARRAY(SELECT CASE WHEN in_place[place] THEN floors[width_bucket(account_ids[place], lock_ids)] END
                  FROM generate_subscripts(account_ids, 1) AS place ORDER BY place),
            recorded);
    ELSE
        verdicts := array_fill(ROW('POSTED', NULL, NULL, NULL)::ledger_verdict,
                               ARRAY[cardinality(parsed)]);
    END IF;
    SELECT array_agg(v.outcome = 'POSTED' ORDER BY v.ordinal),
           array_agg(nextval('entry_sequence') ORDER BY v.ordinal),
           count(*) FILTER (WHERE v.outcome = 'POSTED')
    INTO accepted, sequences, accepted_count
    FROM unnest(verdicts) WITH ORDINALITY AS v (outcome, code, account_id, available_minor, ordinal);

    -- In ascending id, so that two calls with the same entries wait for each other in one direction.
    INSERT INTO entry (entry_id, sequence, kind, recorded_at, effective_at, order_id, operation_id,
                       merchant_id, description, facts, content_hash)
    SELECT e.entry_id, sequences[e.ordinal], e.kind, recorded, e.effective_at, e.order_id, e.operation_id,
           e.merchant_id, e.description, e.facts, e.content_hash
    FROM unnest(parsed) AS e
    WHERE accepted[e.ordinal]
    ORDER BY e.entry_id
    ON CONFLICT (entry_id) DO NOTHING;
    GET DIAGNOSTICS written_count = ROW_COUNT;
    IF written_count < accepted_count THEN
        verdicts := with_stored(parsed, verdicts, sequences);
        -- Whoever booked the same content at the same time held none of the locks of this call, so what it
        -- moved is only what buffers take, and the judgement that counted on it still holds. It does not
        -- where the same id has two contents.
        IF judged AND EXISTS (
            SELECT FROM unnest(verdicts) WITH ORDINALITY
                AS v (outcome, code, account_id, available_minor, ordinal)
            WHERE accepted[v.ordinal] AND v.outcome = 'REFUSED') THEN
            RAISE EXCEPTION 'an entry id of this call was used for other content at the same time'
                USING ERRCODE = 'serialization_failure';
        END IF;
        accepted := ARRAY(SELECT v.outcome = 'POSTED' FROM unnest(verdicts) WITH ORDINALITY
                          AS v (outcome, code, account_id, available_minor, ordinal) ORDER BY v.ordinal);
    END IF;

    INSERT INTO posting (sequence, line, debit_account_id, credit_account_id, amount_minor, currency,
                         debit_buffered, credit_buffered, hold_id, recorded_at)
    SELECT sequences[leg.ordinal], leg.line, leg.debit_account_id, leg.credit_account_id, leg.amount_minor,
           leg.currency, NOT in_place[width_bucket(leg.debit_account_id, account_ids)],
           NOT in_place[width_bucket(leg.credit_account_id, account_ids)], leg.hold_id, recorded
    FROM unnest(legs) AS leg
    WHERE leg.action IN ('POST', 'POST_HOLD') AND accepted[leg.ordinal];

    IF makes_holds THEN
        INSERT INTO hold (hold_id, sequence, line, debit_account_id, credit_account_id, amount_minor,
                          currency, expires_at)
        SELECT leg.hold_id, sequences[leg.ordinal], leg.line, leg.debit_account_id, leg.credit_account_id,
               leg.amount_minor, leg.currency, leg.expires_at
        FROM unnest(legs) AS leg
        WHERE leg.action = 'HOLD' AND accepted[leg.ordinal];
    END IF;
    IF resolves_holds THEN
        PERFORM resolve_holds(legs, accepted, sequences, recorded);
    END IF;

    UPDATE account a
    SET debits_posted = a.debits_posted + change.debits_minor,
        credits_posted = a.credits_posted + change.credits_minor,
        debits_pending = a.debits_pending + change.held_minor,
        account_version = a.account_version + 1
    FROM (SELECT side.account_id, sum(side.debit_minor)::bigint AS debits_minor,
                 sum(side.credit_minor)::bigint AS credits_minor,
                 sum(side.held_minor)::bigint AS held_minor
          FROM unnest(legs) AS leg
          CROSS JOIN LATERAL (VALUES
              (leg.debit_account_id, CASE leg.action WHEN 'POST' THEN leg.amount_minor
                                     WHEN 'POST_HOLD' THEN leg.amount_minor ELSE 0 END, 0, leg.held_minor),
              (CASE WHEN leg.action IN ('POST', 'POST_HOLD') THEN leg.credit_account_id END,
               0, leg.amount_minor, 0)
          ) AS side (account_id, debit_minor, credit_minor, held_minor)
          WHERE accepted[leg.ordinal] AND in_place[width_bucket(side.account_id, account_ids)]
          GROUP BY side.account_id) AS change
    WHERE a.account_id = change.account_id;

    RETURN QUERY
    SELECT answer.entry_id, answer.outcome, answer.code, answer.account_id, answer.available_minor,
           CASE answer.outcome
               WHEN 'POSTED' THEN sequences[answer.ordinal]
               WHEN 'STORED' THEN (SELECT s.sequence FROM entry s WHERE s.entry_id = answer.entry_id) END
    FROM ROWS FROM (unnest(parsed), unnest(verdicts)) AS answer (
        ordinal, entry_id, kind, effective_at, order_id, operation_id, merchant_id, description, facts,
        content_hash, previous, outcome, code, account_id, available_minor)
    ORDER BY answer.ordinal;
END
$$;
ALTER FUNCTION post_entries(ledger_entry[], ledger_leg[], ledger_account[]) OWNER TO purser_poster;

-- The accounts that entries in JSON describe.
CREATE OR REPLACE FUNCTION described_accounts(entries jsonb) RETURNS ledger_account[]
LANGUAGE sql STABLE AS
$$
    SELECT array_agg(ROW(a.account_id, a.owner_kind, a.owner_id, a.kind, a.currency)::ledger_account)
    FROM jsonb_to_recordset(entries) AS e (accounts jsonb)
    CROSS JOIN jsonb_to_recordset(e.accounts) AS a (
        account_id uuid, owner_kind text, owner_id uuid, kind text, currency text)
$$;

-- The same from a JSON array, for callers in SQL.
CREATE OR REPLACE FUNCTION post_entries(entries jsonb)
RETURNS TABLE (entry_id uuid, outcome text, code text, account_id uuid, available_minor bigint,
               sequence bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT posted.*
    FROM post_entries(
        ARRAY(
            SELECT ROW(e.ordinal, e.entry_id, e.kind, e.effective_at, e.order_id, e.operation_id,
                       e.merchant_id, coalesce(e.description, ''), coalesce(e.facts, '{}'),
                       NULL, NULL)::ledger_entry
            FROM ROWS FROM (jsonb_to_recordset(entries) AS (
                     entry_id uuid, kind text, effective_at timestamptz, order_id uuid, operation_id uuid,
                     merchant_id uuid, description text, facts jsonb))
                 WITH ORDINALITY AS e (entry_id, kind, effective_at, order_id, operation_id, merchant_id,
                                       description, facts, ordinal)
            ORDER BY e.ordinal),
        ARRAY(
            SELECT ROW(e.ordinal, row_number() OVER (PARTITION BY e.ordinal ORDER BY a.place, c.place),
                       coalesce(c.place, 1), a.action, a.debit_account_id,
                       coalesce(c.credit_account_id, a.credit_account_id),
                       coalesce(c.amount_minor, a.amount_minor), a.currency, a.hold_id, a.expires_at,
                       CASE a.action WHEN 'HOLD' THEN a.amount_minor ELSE 0 END)::ledger_leg
            FROM jsonb_array_elements(entries) WITH ORDINALITY AS e (document, ordinal)
            CROSS JOIN LATERAL ROWS FROM (jsonb_to_recordset(e.document -> 'actions') AS (
                     "do" text, hold_id uuid, debit_account_id uuid, credit_account_id uuid,
                     amount_minor bigint, currency text, expires_at timestamptz, credits jsonb))
                 WITH ORDINALITY AS a (action, hold_id, debit_account_id, credit_account_id, amount_minor,
                                       currency, expires_at, credits, place)
            LEFT JOIN ROWS FROM (jsonb_to_recordset(a.credits) AS (
                     credit_account_id uuid, amount_minor bigint))
                 WITH ORDINALITY AS c (credit_account_id, amount_minor, place) ON true
            ORDER BY e.ordinal, a.place, c.place),
        described_accounts(entries)) AS posted
$$;
ALTER FUNCTION post_entries(jsonb) OWNER TO purser_poster;

-- Opens the accounts that a call names and that do not exist yet, with the properties of their kind.
-- Raises where a missing account is not described, or described as of no known kind.
CREATE OR REPLACE FUNCTION open_accounts(accounts ledger_account[], account_ids uuid[]) RETURNS void
LANGUAGE plpgsql AS
$$
BEGIN
    INSERT INTO account (account_id, owner_kind, owner_id, kind, currency, normal_side, has_floor, buffered,
                         rolled_up_to)
    SELECT DISTINCT ON (described.account_id) described.*, k.normal_side, k.has_floor, k.buffered,
           CASE WHEN k.buffered THEN '3:3:'::pg_snapshot END
    FROM unnest(accounts) AS described
    JOIN chart() AS k ON k.kind = described.kind
    WHERE described.account_id = ANY (account_ids)
    ORDER BY described.account_id
    ON CONFLICT DO NOTHING;
    IF (SELECT count(*) FROM account a WHERE a.account_id = ANY (account_ids)) < cardinality(account_ids) THEN
        RAISE EXCEPTION 'a posting to an account that neither exists nor is described'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
END
$$;

-- Completes the legs that resolve a hold by what the hold says: whom it debits, in which currency, until
-- when. All of this never changes, so it is read before the locks. The hold may be one that an earlier
-- leg of the same call makes. An unknown hold leaves its leg without an account.
CREATE OR REPLACE FUNCTION with_holds(legs ledger_leg[]) RETURNS ledger_leg[]
LANGUAGE sql STABLE AS
$$
    SELECT array_agg(ROW(
               leg.ordinal, leg.line, leg.part, leg.action,
               coalesce(leg.debit_account_id, h.debit_account_id, m.debit_account_id),
               leg.credit_account_id, leg.amount_minor, coalesce(leg.currency, h.currency, m.currency),
               leg.hold_id, coalesce(leg.expires_at, h.expires_at, m.expires_at),
               CASE WHEN leg.action IN ('POST', 'HOLD') THEN leg.held_minor
                    WHEN leg.part = 1 THEN -coalesce(h.amount_minor, m.amount_minor)
                    ELSE 0 END)::ledger_leg
           ORDER BY leg.ordinal, leg.line)
    FROM unnest(legs) AS leg
    LEFT JOIN hold h ON h.hold_id = leg.hold_id AND leg.action NOT IN ('POST', 'HOLD')
    LEFT JOIN LATERAL (
        SELECT made.* FROM unnest(legs) AS made
        WHERE h.hold_id IS NULL AND leg.action NOT IN ('POST', 'HOLD')
          AND made.action = 'HOLD' AND made.hold_id = leg.hold_id
        LIMIT 1) AS m ON true
$$;

-- Each accepted resolution finds its hold pending, or the locks have failed and nothing may be kept.
CREATE OR REPLACE FUNCTION resolve_holds(
    legs ledger_leg[], accepted boolean[], sequences bigint[], recorded timestamptz) RETURNS void
LANGUAGE plpgsql AS
$$
DECLARE
    hold_ids uuid[] := ARRAY(SELECT DISTINCT leg.hold_id FROM unnest(legs) AS leg
                             WHERE leg.action NOT IN ('POST', 'HOLD') AND accepted[leg.ordinal]);
    resolved_count bigint;
BEGIN

    UPDATE hold h
    SET state = CASE resolution.action WHEN 'POST_HOLD' THEN 'POSTED'
                                       WHEN 'VOID_HOLD' THEN 'VOIDED' ELSE 'EXPIRED' END,
        posted_minor = coalesce(resolution.posted_minor, 0), resolved_sequence = resolution.sequence,
        resolved_line = resolution.line, resolved_at = recorded,
        resolved_transaction_id = pg_current_xact_id()
    FROM (SELECT leg.hold_id, leg.action, sequences[leg.ordinal] AS sequence, min(leg.line) AS line,
                 sum(leg.amount_minor) AS posted_minor
          FROM unnest(legs) AS leg
          WHERE leg.action NOT IN ('POST', 'HOLD') AND accepted[leg.ordinal]
          GROUP BY leg.hold_id, leg.action, leg.ordinal) AS resolution
    WHERE h.hold_id = ANY (hold_ids) AND h.hold_id = resolution.hold_id AND h.state = 'PENDING';
    GET DIAGNOSTICS resolved_count = ROW_COUNT;
    IF resolved_count <> cardinality(hold_ids) THEN
        RAISE EXCEPTION 'a hold was resolved twice' USING ERRCODE = 'internal_error';
    END IF;
END
$$;

-- What another transaction stored under the same id in the meantime decides about the entries that this
-- call could not write.
CREATE OR REPLACE FUNCTION with_stored(
    entries ledger_entry[], verdicts ledger_verdict[], sequences bigint[]) RETURNS ledger_verdict[]
LANGUAGE sql VOLATILE AS
$$
    SELECT array_agg(CASE
               WHEN verdicts[e.ordinal].outcome <> 'POSTED' OR stored.sequence = sequences[e.ordinal]
                   THEN verdicts[e.ordinal]
               WHEN stored.content_hash = e.content_hash
                   THEN ROW('STORED', NULL, NULL, NULL)::ledger_verdict
               ELSE ROW('REFUSED', 'ENTRY_CONFLICT', NULL, NULL)::ledger_verdict END
           ORDER BY e.ordinal)
    FROM unnest(entries) AS e
    LEFT JOIN entry stored ON stored.entry_id = e.entry_id
$$;

-- Operators and the system alone post by themselves; everybody else goes through the group function's
-- checks. A phase that has a principal cannot borrow another one's.
CREATE OR REPLACE FUNCTION require_poster(principal text) RETURNS void
LANGUAGE plpgsql STABLE AS
$$
BEGIN
    IF coalesce(split_part(principal, ':', 1) NOT IN ('operator', 'system'), true)
       OR coalesce(nullif(current_setting('purser.principal', true), ''), principal) <> principal THEN
        RAISE EXCEPTION 'only operators and the system post by themselves'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

-- For jobs outside a group.
CREATE OR REPLACE FUNCTION post_entries_as(
    principal text, entries ledger_entry[], legs ledger_leg[], accounts ledger_account[])
RETURNS TABLE (entry_id uuid, outcome text, code text, account_id uuid, available_minor bigint,
               sequence bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
BEGIN
    PERFORM require_poster(principal);
    RETURN QUERY SELECT * FROM post_entries(entries, legs, accounts);
END
$$;
ALTER FUNCTION post_entries_as(text, ledger_entry[], ledger_leg[], ledger_account[])
    OWNER TO purser_poster;

REVOKE ALL ON FUNCTION post_entries(ledger_entry[], ledger_leg[], ledger_account[]), post_entries(jsonb),
    described_accounts(jsonb), require_poster(text),
    post_entries_as(text, ledger_entry[], ledger_leg[], ledger_account[]),
    open_accounts(ledger_account[], uuid[]), with_holds(ledger_leg[]),
    resolve_holds(ledger_leg[], boolean[], bigint[], timestamptz),
    with_stored(ledger_entry[], ledger_verdict[], bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION require_poster(text), open_accounts(ledger_account[], uuid[]),
    described_accounts(jsonb), with_holds(ledger_leg[]),
    resolve_holds(ledger_leg[], boolean[], bigint[], timestamptz),
    with_stored(ledger_entry[], ledger_verdict[], bigint[]) TO purser_poster;
GRANT EXECUTE ON FUNCTION post_entries_as(text, ledger_entry[], ledger_leg[], ledger_account[])
    TO purser_app;
