-- What must be found before it is known who asks. Each function returns ids, or what one check needs
-- and nothing more; their owner is a role that may read just these columns.

CREATE OR REPLACE FUNCTION find_customer_id(address text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT customer_id FROM customer
    WHERE (phone = address OR email = address) AND status <> 'PENDING'
$$;

CREATE OR REPLACE FUNCTION find_operator_id(address text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$ SELECT operator_id FROM operator WHERE email = address AND status = 'ACTIVE' $$;

-- The key that must have made a signature; no row for one that is unknown, expired or revoked.
CREATE OR REPLACE FUNCTION find_merchant_key(key uuid)
RETURNS TABLE (merchant_id uuid, algorithm text, sealed_key bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT k.merchant_id, k.algorithm, k.sealed_key FROM merchant_key k
    WHERE k.key_id = key AND (k.expires_at IS NULL OR k.expires_at > purser_now())
$$;

-- Which of these logins are live, by their places in the arrays, counted from 1.
CREATE OR REPLACE FUNCTION live_logins(logins uuid[], kinds text[], ids uuid[]) RETURNS SETOF integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS
$$
    SELECT asked.n::integer
    FROM unnest(logins, kinds, ids) WITH ORDINALITY AS asked (login_id, kind, id, n)
    JOIN login l ON l.login_id = asked.login_id
    WHERE l.principal_kind = asked.kind AND l.principal_id = asked.id
      AND l.ended_at IS NULL AND l.expires_at > purser_now()
$$;

CREATE OR REPLACE FUNCTION find_refresh_login(digest text)
RETURNS TABLE (login_id uuid, principal text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT l.login_id, l.principal_kind || ':' || l.principal_id
    FROM refresh_token t JOIN login l USING (login_id) WHERE t.token_digest = digest
$$;

-- A payee by an address that the payer typed: the id and a part of the name.
CREATE OR REPLACE FUNCTION find_payee(address text)
RETURNS TABLE (customer_id uuid, display_name_masked text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT c.customer_id, masked_name(c.display_name) FROM customer c
    WHERE (c.phone = address OR c.email = address) AND c.status = 'ACTIVE'
$$;

-- A merchant's name is public: it stands on the receipts of its payers.
CREATE OR REPLACE FUNCTION merchant_names(ids uuid[])
RETURNS TABLE (merchant_id uuid, name text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$ SELECT m.merchant_id, m.name::text FROM merchant m WHERE m.merchant_id = ANY (ids) $$;

DO $$
DECLARE signature regprocedure;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'find_customer_id(text)', 'find_operator_id(text)', 'find_merchant_key(uuid)',
        'live_logins(uuid[],text[],uuid[])', 'find_refresh_login(text)', 'find_payee(text)',
        'merchant_names(uuid[])']::regprocedure[]
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO purser_lookup', signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO purser_app', signature);
    END LOOP;
END
$$;
