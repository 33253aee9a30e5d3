-- Snapshots for followers: those who read rows behind their writers, and keep what they have consumed.

-- A snapshot in which `own` has not happened. A transaction's own id is missing from the list of those
-- in progress in its own snapshots, although it may still write more.
CREATE OR REPLACE FUNCTION snapshot_without(snapshot pg_snapshot, own xid8) RETURNS pg_snapshot
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
    SELECT CASE WHEN own IS NULL OR NOT pg_visible_in_snapshot(own, snapshot) THEN snapshot
    ELSE (SELECT format('%s:%s:%s', least(pg_snapshot_xmin(snapshot), own), pg_snapshot_xmax(snapshot),
                        string_agg(running::text, ',' ORDER BY running))::pg_snapshot
          FROM (SELECT pg_snapshot_xip(snapshot) UNION SELECT own) AS unfinished (running))
    END
$$;

-- A snapshot that has seen nothing from `limit_id` on: what a follower consumes in one bite.
CREATE OR REPLACE FUNCTION snapshot_before(snapshot pg_snapshot, limit_id xid8) RETURNS pg_snapshot
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
    SELECT CASE WHEN limit_id IS NULL OR limit_id >= pg_snapshot_xmax(snapshot) THEN snapshot
    ELSE (SELECT format('%s:%s:%s', least(pg_snapshot_xmin(snapshot), limit_id), limit_id,
                        string_agg(running::text, ',' ORDER BY running))::pg_snapshot
          FROM pg_snapshot_xip(snapshot) AS running WHERE running < limit_id)
    END
$$;

REVOKE ALL ON FUNCTION snapshot_without(pg_snapshot, xid8), snapshot_before(pg_snapshot, xid8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION snapshot_without(pg_snapshot, xid8), snapshot_before(pg_snapshot, xid8)
    TO purser_poster, purser_sealer, purser_reader;
