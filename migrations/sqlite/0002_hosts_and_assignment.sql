-- Several hosts share a database: who is there, who is to hold which partition, who held it before.

-- Grows whenever a group's members or targets change.
ALTER TABLE groups ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

ALTER TABLE group_partitions ADD COLUMN target TEXT;
ALTER TABLE group_partitions ADD COLUMN previous TEXT;

-- Hosts of the schema before held one lock for the whole database, which nobody looks at any more.
UPDATE group_partitions SET owner = NULL, position = committed WHERE owner IS NOT NULL;
DROP TABLE members;
DROP TABLE hosts;

-- The incarnation that was given out last. A table of its own, for no registration may ever take it back.
CREATE TABLE incarnations (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
);

INSERT INTO incarnations (one, last) VALUES (1, 0);

-- Labels are a JSON object. An expelled host stays until somebody cleans up, so that it can be shown.
CREATE TABLE hosts (
    host           TEXT    PRIMARY KEY,
    incarnation    INTEGER NOT NULL,
    registered_at  INTEGER NOT NULL,
    last_heartbeat INTEGER NOT NULL,
    labels         TEXT    NOT NULL,
    expelled       INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Always of the host's present registration: another one begins with no members.
CREATE TABLE members (
    group_name         TEXT    NOT NULL REFERENCES groups (name),
    host               TEXT    NOT NULL REFERENCES hosts (host) ON DELETE CASCADE,
    registered_at      INTEGER NOT NULL,
    session_timeout_ms INTEGER NOT NULL,
    partitions_max     INTEGER NOT NULL,
    expelled           INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (group_name, host)
) WITHOUT ROWID;

CREATE INDEX members_by_host ON members (host);
