-- Failures: what is known of them, events that are set aside, ids that are remembered, and how long streams keep events.

-- Milliseconds; NULL for ever.
ALTER TABLE streams ADD COLUMN retention_ms INTEGER;

-- The mark is about the event at `failed_at`; at `committed` if that is NULL. `held` says why the partition paused by
-- itself ('breaker' or 'full') until `next_attempt`. `letters` counts the partition's dead letters; `requests` grows
-- whenever something is asked of them.
ALTER TABLE group_partitions ADD COLUMN failed_at INTEGER;
ALTER TABLE group_partitions ADD COLUMN class TEXT;
ALTER TABLE group_partitions ADD COLUMN first_failed INTEGER;
ALTER TABLE group_partitions ADD COLUMN last_failed INTEGER;
ALTER TABLE group_partitions ADD COLUMN held TEXT;
ALTER TABLE group_partitions ADD COLUMN given_up_in_row INTEGER NOT NULL DEFAULT 0;
ALTER TABLE group_partitions ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE group_partitions ADD COLUMN letters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE group_partitions ADD COLUMN requests INTEGER NOT NULL DEFAULT 0;

-- With the event itself: retention of the stream never waits for a dead letter. `parks`: later events of its key wait
-- behind it. `request`: what somebody asked of it and the owner has not done yet ('replay' or 'discard'). The payload
-- comes last: what stands behind a large value is found only through all of its pages.
CREATE TABLE dead_letters (
    group_name   TEXT    NOT NULL REFERENCES groups (name),
    partition    INTEGER NOT NULL,
    "offset"     INTEGER NOT NULL,
    id           TEXT    NOT NULL,
    key          TEXT,
    kind         TEXT    NOT NULL,
    time         INTEGER NOT NULL,
    headers      TEXT,
    class        TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    attempts     INTEGER NOT NULL,
    first_failed INTEGER NOT NULL,
    last_failed  INTEGER NOT NULL,
    digest       TEXT,
    parks        INTEGER NOT NULL,
    request      TEXT CHECK (request IN ('replay', 'discard')),
    edited       INTEGER NOT NULL DEFAULT 0,
    payload      BLOB    NOT NULL,
    PRIMARY KEY (group_name, partition, "offset")
);

CREATE INDEX dead_letters_parked ON dead_letters (group_name, partition, key, "offset") WHERE parks;
CREATE INDEX dead_letters_requested ON dead_letters (group_name, partition, "offset") WHERE request IS NOT NULL;
CREATE INDEX dead_letters_by_id ON dead_letters (group_name, id);

-- Ids of events that a group must not handle again.
CREATE TABLE remembered (
    group_name TEXT    NOT NULL REFERENCES groups (name),
    partition  INTEGER NOT NULL,
    id         TEXT    NOT NULL,
    "offset"   INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition, id)
) WITHOUT ROWID;

CREATE INDEX remembered_by_offset ON remembered (group_name, partition, "offset");
CREATE INDEX remembered_by_time ON remembered (group_name, time);

-- How many events failed in which way, as a JSON object.
ALTER TABLE handlers ADD COLUMN by_class TEXT NOT NULL DEFAULT '{}';
