-- Where an operation, or a number that a channel names, belongs: ids only, for callers whose principal is
-- not known before they have it.

CREATE OR REPLACE FUNCTION place_of_operation(wanted uuid)
RETURNS TABLE (order_id uuid, merchant_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$ SELECT o.order_id, o.merchant_id FROM operation o WHERE o.operation_id = wanted $$;

CREATE OR REPLACE FUNCTION place_of_request(of_channel text, number text)
RETURNS TABLE (order_id uuid, merchant_id uuid, operation_id uuid, attempt_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    SELECT a.order_id, a.merchant_id, a.operation_id, a.attempt_id FROM attempt a
    WHERE a.channel = of_channel AND a.channel_request_number = number
$$;

ALTER FUNCTION place_of_operation(uuid) OWNER TO purser_poster;
ALTER FUNCTION place_of_request(text, text) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION place_of_operation(uuid), place_of_request(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION place_of_operation(uuid), place_of_request(text, text) TO purser_app;
