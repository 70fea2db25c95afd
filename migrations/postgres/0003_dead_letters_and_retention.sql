-- Failures: what is known of them, events that are set aside, ids that are remembered, and how long streams keep events.
--
-- Hosts that know schema 2 only go on beside. Tables are changed in the order in which their commits lock them.

-- The mark is about the event at `failed_at`; at `committed` if that is NULL. `held` says why the partition paused by
-- itself ('breaker' or 'full') until `next_attempt`. `letters` counts the partition's dead letters; `requests` grows
-- whenever something is asked of them.
ALTER TABLE @.group_partitions
    ADD COLUMN failed_at       bigint,
    ADD COLUMN class           text,
    ADD COLUMN first_failed    timestamptz,
    ADD COLUMN last_failed     timestamptz,
    ADD COLUMN held            text,
    ADD COLUMN given_up_in_row bigint NOT NULL DEFAULT 0,
    ADD COLUMN skipped         bigint NOT NULL DEFAULT 0,
    ADD COLUMN letters         bigint NOT NULL DEFAULT 0,
    ADD COLUMN requests        bigint NOT NULL DEFAULT 0;

-- How many events failed in which way.
ALTER TABLE @.handlers ADD COLUMN by_class jsonb NOT NULL DEFAULT '{}';

-- Milliseconds; NULL for ever.
ALTER TABLE @.streams ADD COLUMN retention_ms bigint;

-- With the event itself: retention of the stream never waits for a dead letter. `parks`: later events of its key wait
-- behind it. `request`: what somebody asked of it and the owner has not done yet ('replay' or 'discard').
--
-- It refers to the row that whoever inserts holds already: that of the group would be locked in the wrong order.
CREATE TABLE @.dead_letters (
    group_name   text COLLATE "C" NOT NULL,
    partition    int         NOT NULL,
    "offset"     bigint      NOT NULL,
    id           text COLLATE "C" NOT NULL,
    key          text COLLATE "C",
    kind         text        NOT NULL,
    time         timestamptz NOT NULL,
    headers      bytea,
    payload      bytea       NOT NULL,
    class        text        NOT NULL,
    reason       text        NOT NULL,
    attempts     bigint      NOT NULL,
    first_failed timestamptz NOT NULL,
    last_failed  timestamptz NOT NULL,
    digest       text,
    parks        boolean     NOT NULL,
    request      text CHECK (request IN ('replay', 'discard')),
    edited       boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (group_name, partition, "offset"),
    FOREIGN KEY (group_name, partition) REFERENCES @.group_partitions (group_name, partition)
);

CREATE INDEX dead_letters_parked ON @.dead_letters (group_name, partition, key, "offset") WHERE parks;
CREATE INDEX dead_letters_requested ON @.dead_letters (group_name, partition, "offset") WHERE request IS NOT NULL;
CREATE INDEX dead_letters_by_id ON @.dead_letters (group_name, id);

-- Ids of events that a group must not handle again. No reference, as for state: the row of the partition is locked whenever
-- some are added, and a look-up for every id would tell nothing new.
CREATE TABLE @.remembered (
    group_name text COLLATE "C" NOT NULL,
    partition  int         NOT NULL,
    id         text COLLATE "C" NOT NULL,
    "offset"   bigint      NOT NULL,
    time       timestamptz NOT NULL,
    PRIMARY KEY (group_name, partition, id)
);

CREATE INDEX remembered_by_offset ON @.remembered (group_name, partition, "offset");
CREATE INDEX remembered_by_time ON @.remembered (group_name, time);

-- Moves the positions of commits that pass their fences, and stores the state and the remembered ids that go with them, in
-- the order given: ascending by group and partition, which none names twice. `looks` are not to be stored at all. Tells of
-- those that were not stored what they found, for the caller to say why; if `all_or_nothing` it raises PLT02 instead.
--
-- What follows `positions` up to the state may be empty where no commit has anything to say: nothing was given up or
-- skipped, no mark is kept as it is, every mark is clear.
CREATE FUNCTION @.store_commits(
    relaxed boolean, all_or_nothing boolean,
    looks boolean[], groups text[], partitions int[], hosts text[], epochs bigint[], sequences bigint[],
    froms bigint[], tos bigint[], positions bigint[],
    given_ups bigint[], skips bigint[], keeps boolean[],
    tries bigint[], nexts timestamptz[], stops boolean[], reasons text[], failed_bys text[],
    failed_ats bigint[], classes text[], firsts timestamptz[], lasts timestamptz[], helds text[],
    state_of int[], state_keys text[], state_values bytea[],
    id_of int[], id_offsets bigint[], ids_remembered text[]
) RETURNS TABLE (n int, owner text, epoch bigint, sequence bigint, committed bigint, head bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moved_at timestamptz := @.now();
    left_out int[] := '{}';
    counts boolean := cardinality(given_ups) > 0;
    given_up_now bigint := 0;
    skipped_now bigint := 0;
    marks boolean := cardinality(tries) > 0;
    was_marked boolean;
    c record;
BEGIN
    IF relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    FOR c IN SELECT * FROM unnest(looks, groups, partitions, hosts, epochs, sequences, froms, tos, positions) WITH ORDINALITY
        AS c (look, group_name, partition, host, epoch, sequence, from_offset, to_offset, position, n)
    LOOP
        IF NOT c.look THEN
            IF counts THEN
                given_up_now := given_ups[c.n];
                skipped_now := skips[c.n];
            END IF;
            UPDATE @.group_partitions g
            SET committed = c.to_offset, position = c.position, sequence = c.sequence,
                given_up_in_row = given_up_now, skipped = g.skipped + skipped_now,
                committed_at = CASE WHEN g.committed = c.to_offset THEN g.committed_at ELSE moved_at END
            WHERE g.group_name = c.group_name AND g.partition = c.partition AND g.owner = c.host AND g.epoch = c.epoch
              AND g.committed = c.from_offset AND g.sequence < c.sequence
              AND c.to_offset <= (SELECT p.next_offset FROM @.stream_partitions p WHERE p.id = g.partition_id)
            RETURNING g.next_attempt IS NOT NULL OR g.stopped OR g.failed_by IS NOT NULL INTO was_marked;
            IF FOUND THEN
                -- Once more only where there is a mark, before or after: there rarely is.
                IF (was_marked OR marks) AND keeps[c.n] IS NOT TRUE THEN
                    UPDATE @.group_partitions g
                    SET attempts = coalesce(tries[c.n], 0), next_attempt = nexts[c.n],
                        stopped = coalesce(stops[c.n], false), reason = reasons[c.n], failed_by = failed_bys[c.n],
                        failed_at = failed_ats[c.n], class = classes[c.n], first_failed = firsts[c.n],
                        last_failed = lasts[c.n], held = helds[c.n]
                    WHERE g.group_name = c.group_name AND g.partition = c.partition;
                END IF;
                CONTINUE;
            END IF;
        END IF;
        IF all_or_nothing THEN
            RAISE EXCEPTION 'a commit did not pass its fence' USING ERRCODE = 'PLT02';
        END IF;
        left_out := left_out || c.n::int;
        RETURN QUERY
            SELECT c.n::int, g.owner, g.epoch, g.sequence, g.committed, p.next_offset
            FROM @.group_partitions g JOIN @.stream_partitions p ON p.id = g.partition_id
            WHERE g.group_name = c.group_name AND g.partition = c.partition;
        IF NOT FOUND THEN
            RETURN QUERY SELECT c.n::int, NULL::text, 0::bigint, 0::bigint, 0::bigint, 0::bigint;
        END IF;
    END LOOP;
    IF cardinality(state_of) > 0 THEN
        INSERT INTO @.state AS s (group_name, partition, key, value)
        SELECT groups[w.of], partitions[w.of], w.key, w.value
        FROM unnest(state_of, state_keys, state_values) AS w (of, key, value)
        WHERE w.value IS NOT NULL AND w.of <> ALL (left_out)
        ON CONFLICT (group_name, partition, key) DO UPDATE SET value = excluded.value;
        FOR c IN SELECT groups[w.of] AS group_name, partitions[w.of] AS partition, w.key
            FROM unnest(state_of, state_keys, state_values) AS w (of, key, value)
            WHERE w.value IS NULL AND w.of <> ALL (left_out)
        LOOP
            DELETE FROM @.state s WHERE s.group_name = c.group_name AND s.partition = c.partition AND s.key = c.key;
        END LOOP;
    END IF;
    IF cardinality(id_of) > 0 THEN
        INSERT INTO @.remembered (group_name, partition, id, "offset", time)
        SELECT groups[r.of], partitions[r.of], r.id, r."offset", moved_at
        FROM unnest(id_of, id_offsets, ids_remembered) AS r (of, "offset", id)
        WHERE r.of <> ALL (left_out)
        ON CONFLICT DO NOTHING;
    END IF;
END $$;

-- Commits that emit, if every one of them passes its fence.
CREATE FUNCTION @.store_commits_and_append(
    relaxed boolean, all_or_nothing boolean,
    looks boolean[], groups text[], partitions int[], hosts text[], epochs bigint[], sequences bigint[],
    froms bigint[], tos bigint[], positions bigint[],
    given_ups bigint[], skips bigint[], keeps boolean[],
    tries bigint[], nexts timestamptz[], stops boolean[], reasons text[], failed_bys text[],
    failed_ats bigint[], classes text[], firsts timestamptz[], lasts timestamptz[], helds text[],
    state_of int[], state_keys text[], state_values bytea[],
    id_of int[], id_offsets bigint[], ids_remembered text[],
    streams text[], limits bigint[],
    ids bigint[], counts bigint[], largest bigint[], at int[], rank int[],
    event_ids text[], keys text[], kinds text[], headers bytea[], payloads bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM @.store_commits(relaxed, all_or_nothing, looks, groups, partitions, hosts, epochs, sequences, froms, tos,
        positions, given_ups, skips, keeps, tries, nexts, stops, reasons, failed_bys, failed_ats, classes, firsts,
        lasts, helds, state_of, state_keys, state_values, id_of, id_offsets, ids_remembered);
    PERFORM @.append_checked(streams, limits, ids, counts, largest, at, rank, event_ids, keys, kinds, headers, payloads);
END $$;

-- For hosts that know schema 2 only, which commit through this: their marks must not mix with what they know nothing of.
CREATE OR REPLACE FUNCTION @.commit_positions(
    relaxed boolean, all_or_nothing boolean,
    looks boolean[], groups text[], partitions int[], hosts text[], epochs bigint[], sequences bigint[],
    froms bigint[], tos bigint[], positions bigint[], attempts bigint[], nexts timestamptz[], stops boolean[],
    reasons text[], failed_bys text[], state_of int[], state_keys text[], state_values bytea[]
) RETURNS TABLE (n int, owner text, epoch bigint, sequence bigint, committed bigint, head bigint) LANGUAGE sql AS $$
    SELECT * FROM @.store_commits(relaxed, all_or_nothing, looks, groups, partitions, hosts, epochs, sequences, froms, tos,
        positions, NULL, NULL, NULL, attempts, nexts, stops, reasons, failed_bys, NULL, NULL, NULL, NULL, NULL,
        state_of, state_keys, state_values, NULL, NULL, NULL)
$$;
