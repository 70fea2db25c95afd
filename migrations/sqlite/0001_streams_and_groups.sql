-- Streams, groups and hosts.

-- Which migrations the database has, and the oldest schema a program must know to work with it.
CREATE TABLE meta (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    schema         INTEGER NOT NULL,
    min_compatible INTEGER NOT NULL
);

CREATE TABLE streams (
    name              TEXT    PRIMARY KEY,
    partitions        INTEGER NOT NULL,
    payload_bytes_max INTEGER NOT NULL
) WITHOUT ROWID;

-- One counter a partition: dense offsets, given out under the write lock. The next offset is never derived from the
-- events, which may be gone. The largest event ever appended bounds what a read may bring into memory.
CREATE TABLE stream_partitions (
    id                    INTEGER PRIMARY KEY,
    stream                TEXT    NOT NULL REFERENCES streams (name),
    partition             INTEGER NOT NULL,
    first_offset          INTEGER NOT NULL DEFAULT 0,
    next_offset           INTEGER NOT NULL DEFAULT 0,
    event_bytes_largest   INTEGER NOT NULL DEFAULT 0,
    UNIQUE (stream, partition)
);

-- Times are milliseconds since the Unix epoch. Headers are a JSON array of pairs, NULL for none. No reference to the
-- partition: the counter was read in the same transaction, and a look-up for every event would tell nothing new.
CREATE TABLE events (
    partition_id INTEGER NOT NULL,
    "offset"     INTEGER NOT NULL,
    id           TEXT    NOT NULL,
    key          TEXT,
    kind         TEXT    NOT NULL,
    time         INTEGER NOT NULL,
    headers      TEXT,
    payload      BLOB    NOT NULL,
    PRIMARY KEY (partition_id, "offset")
) WITHOUT ROWID;

CREATE UNIQUE INDEX events_by_id ON events (partition_id, id);

CREATE TABLE groups (
    name    TEXT PRIMARY KEY,
    stream  TEXT NOT NULL REFERENCES streams (name),
    handler TEXT NOT NULL
) WITHOUT ROWID;

-- All rows of a group are written when it is created. The mark is what is known of the event at `committed`: clear, or
-- a next attempt, or stopped; and by which module version it failed. The sequence is that of the lease's last commit.
CREATE TABLE group_partitions (
    group_name   TEXT    NOT NULL REFERENCES groups (name),
    partition    INTEGER NOT NULL,
    partition_id INTEGER NOT NULL REFERENCES stream_partitions (id),
    committed    INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    committed_at INTEGER,
    owner        TEXT,
    epoch        INTEGER NOT NULL DEFAULT 0,
    sequence     INTEGER NOT NULL DEFAULT 0,
    paused       INTEGER NOT NULL DEFAULT 0,
    resumes      INTEGER NOT NULL DEFAULT 0,
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_attempt INTEGER,
    stopped      INTEGER NOT NULL DEFAULT 0,
    reason       TEXT,
    failed_by    TEXT,
    PRIMARY KEY (group_name, partition)
) WITHOUT ROWID;

CREATE TABLE state (
    group_name TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    value      BLOB    NOT NULL,
    PRIMARY KEY (group_name, partition, key)
) WITHOUT ROWID;

CREATE TABLE hosts (
    host           TEXT    PRIMARY KEY,
    registered_at  INTEGER NOT NULL,
    last_heartbeat INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE members (
    group_name    TEXT    NOT NULL REFERENCES groups (name),
    host          TEXT    NOT NULL REFERENCES hosts (host) ON DELETE CASCADE,
    registered_at INTEGER NOT NULL,
    PRIMARY KEY (group_name, host)
) WITHOUT ROWID;

CREATE INDEX members_by_host ON members (host);

-- What hosts report of their handlers; stays when the host is gone.
CREATE TABLE handlers (
    handler  TEXT    NOT NULL,
    host     TEXT    NOT NULL,
    digest   TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    state    TEXT    NOT NULL CHECK (state IN ('live', 'refused')),
    error    TEXT,
    calls    INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    PRIMARY KEY (handler, host)
) WITHOUT ROWID;
