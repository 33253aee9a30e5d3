-- Counters that outlive every process and every cache. Each call is one statement that counts before
-- it answers, so that parallel callers cannot take more than there is.

-- One more guess at a secret: how many are left after it, or NULL while locked. The lock begins with the
-- last guess of the series, whatever its outcome; a right guess clears the counter.
CREATE OR REPLACE FUNCTION take_guess(counter uuid, guesses_max integer, lock_seconds integer)
RETURNS integer
LANGUAGE sql SET search_path = pg_catalog, public AS
$$
    INSERT INTO limit_counter AS c (counter_id, taken_count, window_ends_at)
    VALUES (counter, 1, purser_now() + lock_seconds * interval '1 second')
    ON CONFLICT (counter_id) DO UPDATE
        SET taken_count = CASE WHEN c.taken_count >= guesses_max THEN 1 ELSE c.taken_count + 1 END,
            window_ends_at = purser_now() + lock_seconds * interval '1 second'
        WHERE c.taken_count < guesses_max OR c.window_ends_at <= purser_now()
    RETURNING guesses_max - c.taken_count
$$;

-- One more permit in a window that begins with the first: how many are left, or NULL when used up.
CREATE OR REPLACE FUNCTION take_permit(counter uuid, permits_max integer, window_seconds integer)
RETURNS integer
LANGUAGE sql SET search_path = pg_catalog, public AS
$$
    INSERT INTO limit_counter AS c (counter_id, taken_count, window_ends_at)
    VALUES (counter, 1, purser_now() + window_seconds * interval '1 second')
    ON CONFLICT (counter_id) DO UPDATE
        SET taken_count = CASE WHEN c.window_ends_at <= purser_now() THEN 1 ELSE c.taken_count + 1 END,
            window_ends_at = CASE WHEN c.window_ends_at <= purser_now()
                THEN purser_now() + window_seconds * interval '1 second' ELSE c.window_ends_at END
        WHERE c.taken_count < permits_max OR c.window_ends_at <= purser_now()
    RETURNING permits_max - c.taken_count
$$;

REVOKE ALL ON FUNCTION take_guess(uuid, integer, integer), take_permit(uuid, integer, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION take_guess(uuid, integer, integer), take_permit(uuid, integer, integer)
    TO purser_app;
