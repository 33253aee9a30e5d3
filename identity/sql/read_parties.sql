-- The parties of a group of payments, for `read_group`. What is returned here reaches nobody as it is.

CREATE OR REPLACE FUNCTION read_merchants(ids uuid[]) RETURNS TABLE (merchant_id uuid, party json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT m.merchant_id, json_build_object(
        'merchant_id', m.merchant_id, 'status', m.status, 'name', m.name,
        'fee_rate_millionths', m.fee_rate_millionths, 'currencies', m.currencies,
        'payment_limit_minor', m.payment_limit_minor)
    FROM merchant m WHERE m.merchant_id = ANY (ids)
$$;

CREATE OR REPLACE FUNCTION read_customers(ids uuid[]) RETURNS TABLE (customer_id uuid, status text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT c.customer_id, c.status FROM customer c
    WHERE c.customer_id = ANY (ids) AND c.status <> 'PENDING'
$$;

ALTER FUNCTION read_merchants(uuid[]) OWNER TO purser_poster;
ALTER FUNCTION read_customers(uuid[]) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION read_merchants(uuid[]), read_customers(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_merchants(uuid[]), read_customers(uuid[]) TO purser_poster;
