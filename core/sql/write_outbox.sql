-- Writes the outbox rows of a commit. A row that is there already is left as it is, so that events
-- whose ids are derived from an operation are written once. Events of members that are not `alive` are
-- left out; a public event gets `public_job` where its merchant is among the subscribers.
CREATE OR REPLACE FUNCTION write_outbox(
    events outbox_input[], alive boolean[] DEFAULT NULL, subscribers uuid[] DEFAULT '{}',
    public_job text DEFAULT NULL) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS
$$
    INSERT INTO outbox (event_id, topic, resource_kind, resource_id, resource_version, merchant_id,
                        customer_ids, payload, job, due_at)
    SELECT e.event_id, e.topic, e.resource_kind, e.resource_id, e.resource_version, e.merchant_id,
           e.customer_ids, e.payload, e.job,
           CASE WHEN e.job IS NOT NULL THEN purser_now() + e.delay_seconds * interval '1 second' END
    FROM (SELECT each.event_id, each.topic, each.resource_kind, each.resource_id, each.resource_version,
                 each.merchant_id, each.customer_ids, each.payload, each.delay_seconds,
                 CASE WHEN each.public AND each.merchant_id = ANY (subscribers) THEN public_job
                      ELSE each.job END AS job
          FROM unnest(events) AS each
          WHERE alive IS NULL OR alive[each.member]) AS e
    ON CONFLICT (event_id) DO NOTHING
$$;
ALTER FUNCTION write_outbox(outbox_input[], boolean[], uuid[], text) OWNER TO purser_poster;
REVOKE ALL ON FUNCTION write_outbox(outbox_input[], boolean[], uuid[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_outbox(outbox_input[], boolean[], uuid[], text)
    TO purser_app, purser_poster;
