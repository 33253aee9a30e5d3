-- Writes the outbox rows of a commit. A row that is there already is left as it is, so that events
-- whose ids are derived from an operation are written once.
CREATE OR REPLACE FUNCTION write_outbox(rows jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    INSERT INTO outbox (event_id, topic, resource_kind, resource_id, resource_version, merchant_id,
                        customer_ids, payload, job, due_at)
    SELECT r.event_id, r.topic, r.resource_kind, r.resource_id, r.resource_version, r.merchant_id,
           coalesce(r.customer_ids, '[]'), coalesce(r.payload, '{}'), r.job,
           CASE WHEN r.job IS NOT NULL
                THEN purser_now() + coalesce(r.delay_seconds, 0) * interval '1 second' END
    FROM jsonb_to_recordset(rows) AS r (
        event_id uuid, topic text, resource_kind text, resource_id uuid, resource_version bigint,
        merchant_id uuid, customer_ids jsonb, payload jsonb, job text, delay_seconds double precision)
    ON CONFLICT (event_id) DO NOTHING
$$;
ALTER FUNCTION write_outbox(jsonb) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION write_outbox(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_outbox(jsonb) TO purser_app, purser_poster;
