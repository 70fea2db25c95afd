-- Streams, groups and hosts. `@.` stands for the schema, `@schema` for its name as text.
--
-- Names sort by their bytes, as they do in the programs that read them.

-- Which migrations the database has, and the oldest schema a program must know to work with it.
CREATE TABLE @.meta (
    one            int    PRIMARY KEY CHECK (one = 1),
    schema         bigint NOT NULL,
    min_compatible bigint NOT NULL
);

-- The time that is written: milliseconds are all that is compared. Not that of the transaction's start, which an idle one
-- would hold still. Tests put another clock in its place.
CREATE FUNCTION @.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
$$ SELECT date_trunc('milliseconds', clock_timestamp()) $$;

CREATE TABLE @.streams (
    name              text COLLATE "C" PRIMARY KEY,
    partitions        int    NOT NULL,
    payload_bytes_max bigint NOT NULL
);

-- One counter a partition: dense offsets, given out under the row's lock, so that their order is that of the commits. The
-- next offset is never derived from the events, which may be gone. The largest event ever appended bounds what a read may
-- bring into memory. The rows change all the time: room beside them keeps the changes out of the indexes.
CREATE TABLE @.stream_partitions (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream              text COLLATE "C" NOT NULL REFERENCES @.streams (name),
    partition           int    NOT NULL,
    first_offset        bigint NOT NULL DEFAULT 0,
    next_offset         bigint NOT NULL DEFAULT 0,
    event_bytes_largest bigint NOT NULL DEFAULT 0,
    UNIQUE (stream, partition)
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);

-- Headers are a JSON array of pairs, NULL for none. No reference to the partition: its counter was moved in the same
-- transaction, and a look-up for every event would tell nothing new.
CREATE TABLE @.events (
    partition_id bigint      NOT NULL,
    "offset"     bigint      NOT NULL,
    id           text COLLATE "C" NOT NULL,
    key          text COLLATE "C",
    kind         text        NOT NULL,
    time         timestamptz NOT NULL,
    headers      bytea,
    payload      bytea       NOT NULL,
    PRIMARY KEY (partition_id, "offset")
);

CREATE UNIQUE INDEX events_by_id ON @.events (partition_id, id);

CREATE TABLE @.groups (
    name    text COLLATE "C" PRIMARY KEY,
    stream  text COLLATE "C" NOT NULL REFERENCES @.streams (name),
    handler text NOT NULL
) WITH (fillfactor = 50);

-- All rows of a group are written when it is created. The mark is what is known of the event at `committed`: clear, or
-- a next attempt, or stopped; and by which module version it failed. The sequence is that of the lease's last commit.
CREATE TABLE @.group_partitions (
    group_name   text COLLATE "C" NOT NULL REFERENCES @.groups (name),
    partition    int         NOT NULL,
    partition_id bigint      NOT NULL REFERENCES @.stream_partitions (id),
    committed    bigint      NOT NULL,
    position     bigint      NOT NULL,
    committed_at timestamptz,
    owner        text COLLATE "C",
    epoch        bigint      NOT NULL DEFAULT 0,
    sequence     bigint      NOT NULL DEFAULT 0,
    paused       boolean     NOT NULL DEFAULT false,
    resumes      bigint      NOT NULL DEFAULT 0,
    attempts     bigint      NOT NULL DEFAULT 0,
    next_attempt timestamptz,
    stopped      boolean     NOT NULL DEFAULT false,
    reason       text,
    failed_by    text,
    PRIMARY KEY (group_name, partition)
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);

CREATE TABLE @.state (
    group_name text COLLATE "C" NOT NULL,
    partition  int   NOT NULL,
    key        text COLLATE "C" NOT NULL,
    value      bytea NOT NULL,
    PRIMARY KEY (group_name, partition, key)
);

CREATE TABLE @.hosts (
    host           text COLLATE "C" PRIMARY KEY,
    registered_at  timestamptz NOT NULL,
    last_heartbeat timestamptz NOT NULL
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);

CREATE TABLE @.members (
    group_name    text COLLATE "C" NOT NULL REFERENCES @.groups (name),
    host          text COLLATE "C" NOT NULL REFERENCES @.hosts (host) ON DELETE CASCADE,
    registered_at timestamptz NOT NULL,
    PRIMARY KEY (group_name, host)
);

CREATE INDEX members_by_host ON @.members (host);

-- What hosts report of their handlers; stays when the host is gone.
CREATE TABLE @.handlers (
    handler  text COLLATE "C" NOT NULL,
    host     text COLLATE "C" NOT NULL,
    digest   text        NOT NULL,
    since    timestamptz NOT NULL,
    state    text        NOT NULL CHECK (state IN ('live', 'refused')),
    error    text,
    calls    bigint      NOT NULL,
    failures bigint      NOT NULL,
    PRIMARY KEY (handler, host)
);

-- Where groups stand, for people.
CREATE VIEW @.group_status AS
SELECT g.name AS "group", g.stream, gp.partition, gp.owner, gp.epoch, gp.committed, p.next_offset AS head,
       p.next_offset - gp.committed AS lag, gp.committed_at
FROM @.groups g
JOIN @.group_partitions gp ON gp.group_name = g.name
JOIN @.stream_partitions p ON p.id = gp.partition_id
ORDER BY g.name, gp.partition;

-- When appenders last notified, in milliseconds. A sequence, since what is written to one is seen at once and costs no
-- row: a notification takes a lock on the whole database while its transaction commits, so appenders send one every few
-- milliseconds at most. The hint of a transaction that commits later is lost then, or one that is rolled back took it
-- along: whoever listens looks by himself for a while after each.
CREATE SEQUENCE @.notified;

CREATE FUNCTION @.wake() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
BEGIN
    -- A clock that was set back must not silence anybody.
    IF abs(ms - (SELECT last_value FROM @.notified)) >= 4 THEN
        PERFORM setval('@.notified', ms);
        PERFORM pg_notify('@schema', 'e');
    END IF;
END $$;

-- The partition of a key: the first 8 bytes of its MD5 as an unsigned big-endian number, modulo the partitions. Taken in
-- two halves, for there are no unsigned numbers here.
CREATE FUNCTION @.partition_of(routing text, partitions int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (((('x' || substr(md5(routing), 1, 8))::bit(32)::bigint & 4294967295) % partitions
             * (4294967296 % partitions)
             + (('x' || substr(md5(routing), 9, 8))::bit(32)::bigint & 4294967295)) % partitions)::int
$$;

-- Appends events that were checked, in their order within each partition.
--
-- `ids` are the partitions' rows, ascending, with how many events each gets and the largest of them in bytes; `at` says for
-- each event which of these it goes to (from 1) and `rank` which one of them it is (from 0). Answers with the first offset
-- of each partition, and if there are duplicates with the offset of each event and whether it was there already.
-- `streams` are those whose limits the caller checked against, with what it took them to be.
CREATE FUNCTION @.append_checked(
    streams text[], limits bigint[],
    ids bigint[], counts bigint[], largest bigint[], at int[], rank int[],
    event_ids text[], keys text[], kinds text[], headers bytea[], payloads bytea[],
    OUT firsts bigint[], OUT offsets bigint[], OUT duplicates boolean[]
) LANGUAGE plpgsql AS $$
DECLARE
    next bigint;
    appended_at timestamptz;
BEGIN
    IF EXISTS (SELECT FROM unnest(streams, limits) AS l (stream, payload_bytes_max)
               WHERE l.payload_bytes_max IS DISTINCT FROM
                   (SELECT s.payload_bytes_max FROM @.streams s WHERE s.name = l.stream)) THEN
        RAISE EXCEPTION 'a stream''s payload_max was changed meanwhile; try again' USING ERRCODE = 'PLT01';
    END IF;
    -- The unique index finds duplicates for nothing; only when it has found one are they looked for.
    BEGIN
        FOR i IN 1 .. cardinality(ids) LOOP
            UPDATE @.stream_partitions p
            SET next_offset = p.next_offset + counts[i], event_bytes_largest = greatest(p.event_bytes_largest, largest[i])
            WHERE p.id = ids[i] RETURNING p.next_offset - counts[i] INTO STRICT next;
            firsts[i] := next;
        END LOOP;
        appended_at := @.now();
        INSERT INTO @.events (partition_id, "offset", id, key, kind, time, headers, payload)
        SELECT ids[e.at], firsts[e.at] + e.rank, e.id, e.key, e.kind, appended_at, e.headers, e.payload
        FROM unnest(at, rank, event_ids, keys, kinds, headers, payloads)
            AS e (at, rank, id, key, kind, headers, payload);
        PERFORM @.wake();
        RETURN;
    EXCEPTION WHEN unique_violation THEN
        -- The counters are as they were, and nobody's.
        firsts := NULL;
    END;

    FOR i IN 1 .. cardinality(ids) LOOP
        SELECT p.next_offset FROM @.stream_partitions p WHERE p.id = ids[i] FOR NO KEY UPDATE INTO STRICT next;
        firsts[i] := next;
    END LOOP;
    appended_at := @.now();
    WITH wanted AS (
        SELECT e.n, e.at, e.id, e.key, e.kind, e.headers, e.payload,
            (SELECT known."offset" FROM @.events known WHERE known.partition_id = ids[e.at] AND known.id = e.id) AS known,
            row_number() OVER (PARTITION BY e.at, e.id ORDER BY e.n) = 1 AS is_first
        FROM unnest(at, event_ids, keys, kinds, headers, payloads) WITH ORDINALITY
            AS e (at, id, key, kind, headers, payload, n)
    ), fresh AS (
        SELECT w.*, firsts[w.at] + row_number() OVER (PARTITION BY w.at ORDER BY w.n) - 1 AS "offset"
        FROM wanted w WHERE w.known IS NULL AND w.is_first
    ), inserted AS (
        INSERT INTO @.events (partition_id, "offset", id, key, kind, time, headers, payload)
        SELECT ids[f.at], f."offset", f.id, f.key, f.kind, appended_at, f.headers, f.payload FROM fresh f
    ), moved AS (
        UPDATE @.stream_partitions p
        SET next_offset = p.next_offset + c.count, event_bytes_largest = greatest(p.event_bytes_largest, c.largest)
        FROM (SELECT f.at, count(*) AS count, max(largest[f.at]) AS largest FROM fresh f GROUP BY f.at) c
        WHERE p.id = ids[c.at]
    )
    SELECT array_agg(coalesce(w.known, f."offset") ORDER BY w.n), array_agg(f.n IS DISTINCT FROM w.n ORDER BY w.n)
    INTO offsets, duplicates
    FROM wanted w LEFT JOIN fresh f ON f.at = w.at AND f.id = w.id;
    IF false = ANY (duplicates) THEN
        PERFORM @.wake();
    END IF;
END $$;

-- The bytes of an event's payload; refuses what is no event, and what no store can keep, in the words that the host uses.
-- `n` counts the events of a batch from 0.
CREATE FUNCTION @.payload_of(n bigint, event jsonb, payload_bytes_max bigint) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    event_is text;
    field text;
    type text;
    bytes bigint;
    payload bytea;
BEGIN
    IF jsonb_typeof(event) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'event % of the batch is a JSON %; expected an object such as {"key": "k1", "payload": {}}',
            n, jsonb_typeof(event) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    event_is := format('event %s of the batch (id %s)', n, coalesce(left((event -> 'id')::text, 100), 'not given'));
    -- What `pelton tail` prints of an event's place is passed over, so that its lines can be appended again.
    SELECT f INTO field FROM jsonb_object_keys(event) f
    WHERE f <> ALL ('{stream,id,key,kind,headers,payload,payload_base64,partition,offset,time}') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%: unknown field "%"; expected id, key, kind, headers, payload or payload_base64', event_is, field
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH field IN ARRAY ARRAY['id', 'key', 'kind', 'payload_base64'] LOOP
        type := jsonb_typeof(event -> field);
        IF type NOT IN ('string', 'null') THEN
            RAISE EXCEPTION '%: % is a JSON %; expected a string', event_is, field, type
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        bytes := octet_length(event ->> field);
        IF bytes > 1024 AND field <> 'payload_base64' THEN
            RAISE EXCEPTION '%: % has % bytes; expected at most 1024', event_is, field, bytes
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    IF event ->> 'id' = '' THEN
        RAISE EXCEPTION '%: id is empty; expected 1 to 1024 bytes', event_is USING ERRCODE = 'invalid_parameter_value';
    END IF;

    type := jsonb_typeof(event -> 'headers');
    IF type NOT IN ('object', 'null') THEN
        RAISE EXCEPTION '%: headers is a JSON %; expected an object of names and strings', event_is, type
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF type = 'object' THEN
        SELECT h.key, jsonb_typeof(h.value) INTO field, type FROM jsonb_each(event -> 'headers') h
        WHERE jsonb_typeof(h.value) <> 'string' LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION '%: header "%" is a JSON %; expected a string', event_is, field, type
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        bytes := (SELECT sum(octet_length(h.key) + octet_length(h.value)) FROM jsonb_each_text(event -> 'headers') h);
        IF bytes > 65536 THEN
            RAISE EXCEPTION '%: headers has % bytes; expected at most 65536', event_is, bytes
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;

    IF event ? 'payload' AND event ->> 'payload_base64' IS NOT NULL THEN
        RAISE EXCEPTION '%: both payload and payload_base64 are given; expected one of them', event_is
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF event ? 'payload' THEN
        payload := convert_to((event -> 'payload')::text, 'UTF8');
    ELSIF event ->> 'payload_base64' IS NOT NULL THEN
        BEGIN
            payload := decode(event ->> 'payload_base64', 'base64');
        EXCEPTION WHEN invalid_parameter_value THEN
            RAISE EXCEPTION '%: payload_base64 is not base64: %', event_is, SQLERRM
                USING ERRCODE = 'invalid_parameter_value';
        END;
    ELSE
        RAISE EXCEPTION '%: payload is missing; expected payload (JSON) or payload_base64', event_is
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    bytes := octet_length(payload);
    IF bytes > payload_bytes_max THEN
        RAISE EXCEPTION '%: payload has % bytes, over the stream''s payload_max of %; send less, or raise payload_max',
            event_is, bytes, payload_bytes_max USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN payload;
END $$;

-- Appends in the caller's own transaction. Each event is an object: payload (any JSON) or payload_base64, and if wanted id,
-- key, kind and headers ({name: value}). An id that its partition holds already is reported and not appended again.
--
-- The counters stay locked until the transaction ends: append last.
CREATE FUNCTION @.append(to_stream text, events jsonb)
RETURNS TABLE (stream text, partition int, "offset" bigint, id text, duplicate boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_stream record;
    batch record;
    place record;
    done record;
BEGIN
    SELECT s.partitions, s.payload_bytes_max INTO found_stream FROM @.streams s WHERE s.name = to_stream;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'stream "%" does not exist; known streams: %', to_stream,
            coalesce((SELECT string_agg(format('"%s"', s.name), ', ')
                      FROM (SELECT name FROM @.streams ORDER BY name LIMIT 20) s), 'none yet')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF jsonb_typeof(events) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'events is a JSON %; expected an array of events', coalesce(jsonb_typeof(events), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF jsonb_array_length(events) = 0 THEN
        RETURN;
    END IF;

    WITH given AS MATERIALIZED (
        SELECT e.n, e.value AS event, @.payload_of(e.n - 1, e.value, found_stream.payload_bytes_max) AS payload
        FROM jsonb_array_elements(events) WITH ORDINALITY AS e (value, n)
    ), named AS MATERIALIZED (
        SELECT g.n, coalesce(g.event ->> 'id', gen_random_uuid()::text) AS id, g.event ->> 'key' AS key,
            coalesce(g.event ->> 'kind', '') AS kind, g.payload, h.headers, coalesce(h.bytes, 0) AS header_bytes
        FROM given g CROSS JOIN LATERAL (
            SELECT convert_to(jsonb_agg(jsonb_build_array(h.key, h.value))::text, 'UTF8') AS headers,
                sum(octet_length(h.key) + octet_length(h.value)) AS bytes
            FROM jsonb_each_text(nullif(g.event -> 'headers', 'null')) h
        ) h
    ), placed AS (
        SELECT c.*, @.partition_of(coalesce(c.key, c.id), found_stream.partitions) AS partition,
            octet_length(c.id) + coalesce(octet_length(c.key), 0) + octet_length(c.kind) + c.header_bytes
                + octet_length(c.payload) AS bytes
        FROM named c
    ), ranked AS (
        SELECT p.*, dense_rank() OVER (ORDER BY p.partition) AS at,
            row_number() OVER (PARTITION BY p.partition ORDER BY p.n) - 1 AS rank
        FROM placed p
    )
    SELECT array_agg(r.at::int ORDER BY r.n) AS at, array_agg(r.rank::int ORDER BY r.n) AS rank,
        array_agg(r.id ORDER BY r.n) AS ids, array_agg(r.key ORDER BY r.n) AS keys,
        array_agg(r.kind ORDER BY r.n) AS kinds, array_agg(r.headers ORDER BY r.n) AS headers,
        array_agg(r.payload ORDER BY r.n) AS payloads, array_agg(r.partition ORDER BY r.n) AS partitions,
        array_agg(r.bytes::bigint ORDER BY r.n) AS bytes
    INTO batch FROM ranked r;

    SELECT array_agg(sp.id ORDER BY c.at) AS ids, array_agg(c.count ORDER BY c.at) AS counts,
        array_agg(c.largest ORDER BY c.at) AS largest
    INTO place
    FROM (SELECT b.at, b.partition, count(*) AS count, max(b.bytes) AS largest
          FROM unnest(batch.at, batch.partitions, batch.bytes) AS b (at, partition, bytes)
          GROUP BY b.at, b.partition) c
    JOIN @.stream_partitions sp ON sp.stream = to_stream AND sp.partition = c.partition;

    SELECT * INTO done FROM @.append_checked(NULL, NULL, place.ids, place.counts, place.largest, batch.at, batch.rank,
        batch.ids, batch.keys, batch.kinds, batch.headers, batch.payloads);
    RETURN QUERY
        SELECT to_stream, b.partition, coalesce(done.offsets[b.n], done.firsts[b.at] + b.rank), b.id,
            coalesce(done.duplicates[b.n], false)
        FROM unnest(batch.partitions, batch.at, batch.rank, batch.ids) WITH ORDINALITY AS b (partition, at, rank, id, n)
        ORDER BY b.n;
END $$;

-- The same for several streams: each event names its own.
CREATE FUNCTION @.append(events jsonb)
RETURNS TABLE (stream text, partition int, "offset" bigint, id text, duplicate boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    unnamed bigint;
BEGIN
    IF jsonb_typeof(events) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'events is a JSON %; expected an array of events', coalesce(jsonb_typeof(events), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT e.n - 1 INTO unnamed FROM jsonb_array_elements(events) WITH ORDINALITY AS e (value, n)
    WHERE jsonb_typeof(e.value -> 'stream') IS DISTINCT FROM 'string' ORDER BY e.n LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'event % of the batch names no stream; expected "stream": "NAME", or append(stream, events)', unnamed
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Counters are locked in the order of their rows, as by everybody; the answers come in the order given.
    RETURN QUERY
        WITH by_stream AS MATERIALIZED (
            SELECT e.value ->> 'stream' AS name, jsonb_agg(e.value ORDER BY e.n) AS events, array_agg(e.n ORDER BY e.n) AS ns
            FROM jsonb_array_elements(events) WITH ORDINALITY AS e (value, n) GROUP BY 1
        ), sorted AS MATERIALIZED (
            SELECT b.* FROM by_stream b
            ORDER BY (SELECT min(sp.id) FROM @.stream_partitions sp WHERE sp.stream = b.name), b.name COLLATE "C"
        ), appended AS MATERIALIZED (
            SELECT s.ns[a.ordinality] AS n, a.*
            FROM sorted s CROSS JOIN LATERAL @.append(s.name, s.events) WITH ORDINALITY AS a
        )
        SELECT a.stream, a.partition, a."offset", a.id, a.duplicate FROM appended a ORDER BY a.n;
END $$;

-- Moves the positions of commits that pass their fences, and stores the state that goes with them, in the order given:
-- ascending by group and partition, which none names twice. `looks` are not to be stored at all. Tells of those that were
-- not stored what they found, for the caller to say why; if `all_or_nothing` it raises PLT02 instead.
CREATE FUNCTION @.commit_positions(
    relaxed boolean, all_or_nothing boolean,
    looks boolean[], groups text[], partitions int[], hosts text[], epochs bigint[], sequences bigint[],
    froms bigint[], tos bigint[], positions bigint[], attempts bigint[], nexts timestamptz[], stops boolean[],
    reasons text[], failed_bys text[], state_of int[], state_keys text[], state_values bytea[]
) RETURNS TABLE (n int, owner text, epoch bigint, sequence bigint, committed bigint, head bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moved_at timestamptz := @.now();
    left_out int[] := '{}';
    c record;
BEGIN
    IF relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    FOR c IN SELECT * FROM unnest(looks, groups, partitions, hosts, epochs, sequences, froms, tos, positions, attempts,
                                  nexts, stops, reasons, failed_bys) WITH ORDINALITY
        AS c (look, group_name, partition, host, epoch, sequence, from_offset, to_offset, position, attempts,
              next_attempt, stopped, reason, failed_by, n)
    LOOP
        IF NOT c.look THEN
            UPDATE @.group_partitions g
            SET committed = c.to_offset, position = c.position, attempts = c.attempts, next_attempt = c.next_attempt,
                stopped = c.stopped, reason = c.reason, sequence = c.sequence, failed_by = c.failed_by,
                committed_at = CASE WHEN g.committed = c.to_offset THEN g.committed_at ELSE moved_at END
            WHERE g.group_name = c.group_name AND g.partition = c.partition AND g.owner = c.host AND g.epoch = c.epoch
              AND g.committed = c.from_offset AND g.sequence < c.sequence
              AND c.to_offset <= (SELECT p.next_offset FROM @.stream_partitions p WHERE p.id = g.partition_id);
            CONTINUE WHEN FOUND;
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
END $$;

-- Commits that emit, if every one of them passes its fence.
CREATE FUNCTION @.commit_and_append(
    relaxed boolean, all_or_nothing boolean,
    looks boolean[], groups text[], partitions int[], hosts text[], epochs bigint[], sequences bigint[],
    froms bigint[], tos bigint[], positions bigint[], attempts bigint[], nexts timestamptz[], stops boolean[],
    reasons text[], failed_bys text[], state_of int[], state_keys text[], state_values bytea[],
    streams text[], limits bigint[],
    ids bigint[], counts bigint[], largest bigint[], at int[], rank int[],
    event_ids text[], keys text[], kinds text[], headers bytea[], payloads bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM @.commit_positions(relaxed, all_or_nothing, looks, groups, partitions, hosts, epochs, sequences, froms, tos,
        positions, attempts, nexts, stops, reasons, failed_bys, state_of, state_keys, state_values);
    PERFORM @.append_checked(streams, limits, ids, counts, largest, at, rank, event_ids, keys, kinds, headers, payloads);
END $$;
