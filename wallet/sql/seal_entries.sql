-- The chain: each block's hash covers the block before it and the canonical content of its entries, so
-- that no sealed entry, posting or hold can be changed, dropped, swapped or slipped in unnoticed.

-- The hash of a block over these entries, as they are stored now.
CREATE OR REPLACE FUNCTION block_hash(previous_hash bytea, sequences bigint[]) RETURNS bytea
LANGUAGE sql STABLE AS
$$
    SELECT sha256(previous_hash || convert_to(string_agg(
        format('%s|%s|%s', s.sequence, encode(sha256(convert_to(s.content, 'UTF8')), 'hex'), s.added),
        E'\n' ORDER BY s.sequence), 'UTF8'))
    FROM stored_content(sequences) AS s
$$;

-- Seals about `entries_max` of the oldest entries that are not sealed yet as one block, and returns how
-- many; 0 when there are none, or when another sealer is at work. It reads the journal as a follower, so
-- an entry whose transaction ended late is in a later block and never in none.
CREATE OR REPLACE FUNCTION seal_entries(entries_max integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off AS
$$
DECLARE
    was pg_snapshot;
    step record;
    last_number bigint;
    last_hash bytea;
BEGIN
    SELECT f.consumed INTO was FROM follower f WHERE f.name = 'seal' FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT * INTO step FROM unfollowed(was, entries_max);
    IF step.entries_count = 0 THEN
        RETURN 0;
    END IF;
    SELECT b.block_number, b.block_hash INTO last_number, last_hash
    FROM sealed_block b ORDER BY b.block_number DESC LIMIT 1;
    last_hash := coalesce(last_hash, decode(repeat('00', 32), 'hex'));

    INSERT INTO sealed_block (block_number, entries_count, previous_hash, block_hash, entry_sequences)
    VALUES (coalesce(last_number, 0) + 1, step.entries_count, last_hash,
            block_hash(last_hash, step.sequences), step.sequences);
    UPDATE follower SET consumed = step.consumed, advanced_at = purser_now() WHERE name = 'seal';
    RETURN step.entries_count;
END
$$;
ALTER FUNCTION seal_entries(integer) OWNER TO purser_sealer;
REVOKE ALL ON FUNCTION block_hash(bytea, bigint[]), seal_entries(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION block_hash(bytea, bigint[]) TO purser_sealer, purser_reader;
GRANT EXECUTE ON FUNCTION seal_entries(integer) TO purser_app;
