-- Freezes or thaws an account, or changes its credit limit; NULL leaves a term as it is. Locks the account's
-- row. Returns APPLIED, NOT_FOUND, or INSUFFICIENT_AVAILABLE for a limit below what is already used. A
-- second call changes nothing more.
CREATE OR REPLACE FUNCTION set_account_terms_as(
    principal text, of_account_id uuid, freeze_debits boolean, freeze_credits boolean, limit_minor bigint)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
DECLARE
    a account;
BEGIN
    PERFORM require_poster(principal);
    SELECT * INTO a FROM account WHERE account_id = of_account_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'NOT_FOUND';
    END IF;
    IF a.has_floor AND limit_minor < a.credit_limit_minor
       AND account_available(a) + unrolled_minor(a) - a.credit_limit_minor + limit_minor < 0 THEN
        RETURN 'INSUFFICIENT_AVAILABLE';
    END IF;
    UPDATE account
    SET frozen = coalesce(freeze_debits, frozen), credits_frozen = coalesce(freeze_credits, credits_frozen),
        credit_limit_minor = coalesce(limit_minor, credit_limit_minor), account_version = account_version + 1
    WHERE account_id = of_account_id;
    RETURN 'APPLIED';
END
$$;
ALTER FUNCTION set_account_terms_as(text, uuid, boolean, boolean, bigint) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION set_account_terms_as(text, uuid, boolean, boolean, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION set_account_terms_as(text, uuid, boolean, boolean, bigint) TO purser_app;
