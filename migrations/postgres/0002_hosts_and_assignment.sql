-- Many hosts: registrations, who is to hold what, and whether a host's process is there.

-- Each registration has its own number.
CREATE SEQUENCE @.incarnations;

-- `server` is the incarnation of the server in which the host took its lock; NULL where locks do not hold.
ALTER TABLE @.hosts
    ADD COLUMN incarnation bigint  NOT NULL DEFAULT 0,
    ADD COLUMN labels      jsonb   NOT NULL DEFAULT '{}',
    ADD COLUMN lock_key    bigint  NOT NULL DEFAULT 0,
    ADD COLUMN server      text,
    ADD COLUMN expelled    boolean NOT NULL DEFAULT false;

ALTER TABLE @.members
    ADD COLUMN incarnation        bigint  NOT NULL DEFAULT 0,
    ADD COLUMN session_timeout_ms bigint  NOT NULL DEFAULT 30000,
    ADD COLUMN partitions_max     bigint  NOT NULL DEFAULT 0,
    ADD COLUMN expelled           boolean NOT NULL DEFAULT false;

-- Grows whenever members or targets change.
ALTER TABLE @.groups ADD COLUMN generation bigint NOT NULL DEFAULT 0;

ALTER TABLE @.group_partitions
    ADD COLUMN target   text COLLATE "C",
    ADD COLUMN previous text COLLATE "C";

-- One row in each incarnation of the server. A server that crashed empties unlogged tables before it serves again, also
-- when it is the same process that only had one of its backends killed; and with that every lock was lost.
CREATE UNLOGGED TABLE @.server_token (
    one   int  PRIMARY KEY CHECK (one = 1),
    token uuid NOT NULL,
    since timestamptz NOT NULL
);

-- Tests put another time in its place.
CREATE FUNCTION @.server_started() RETURNS timestamptz LANGUAGE sql STABLE AS
$$ SELECT date_trunc('milliseconds', pg_postmaster_start_time()) $$;

-- NULL until somebody has noticed the present incarnation.
CREATE FUNCTION @.server_incarnation() RETURNS text LANGUAGE sql STABLE AS
$$ SELECT pg_postmaster_start_time()::text || '/' || t.token FROM @.server_token t $$;

-- The key of a host's lock: advisory locks are the whole database's.
CREATE FUNCTION @.lock_key(host text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT ('x' || left(md5('@schema/' || host), 16))::bit(64)::bigint $$;

-- Hosts, and whether their locks are held: 'held', 'free' or 'unknown'. The locks are looked up in a hash: the planner
-- takes a handful of them for granted, and would join a thousand hosts with a thousand locks one by one.
CREATE VIEW @.hosts_seen AS
SELECT h.*, CASE
    WHEN h.lock_key IN (
        SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) THEN 'held'
    WHEN h.server = s.incarnation THEN 'free'
    ELSE 'unknown'
END AS lock
FROM @.hosts h
CROSS JOIN (SELECT @.server_incarnation() AS incarnation) s;

-- Who works for which group, for people.
CREATE VIEW @.consumers AS
SELECT m.group_name AS "group", m.host AS consumer, m.host, m.registered_at, h.last_heartbeat,
       m.session_timeout_ms * interval '1 millisecond' AS session_timeout,
       CASE WHEN m.expelled OR h.expelled OR h.lock = 'free' OR h.incarnation <> m.incarnation
                 OR @.now() > greatest(h.last_heartbeat, @.server_started(), t.since)
                              + m.session_timeout_ms * interval '1 millisecond'
            THEN 'stale' ELSE 'active' END AS status
FROM @.members m
JOIN @.hosts_seen h ON h.host = m.host
LEFT JOIN @.server_token t ON true;
