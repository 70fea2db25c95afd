-- Versions of handlers: which one answers, their modules, and which one handled what.
--
-- A program that knows schema 3 only may work beside: it runs what its own files hold and records nothing, so that what it
-- handles counts for the version that was on record last.

-- Which version of a handler answers. A change is taken only over the revision it was made from. `trial`: a version that
-- is tried in the first `trial_partitions` of each group until `trial_until`.
CREATE TABLE rollouts (
    handler          TEXT    PRIMARY KEY,
    revision         INTEGER NOT NULL,
    live             TEXT,
    trial            TEXT,
    trial_since      INTEGER,
    trial_until      INTEGER,
    trial_partitions INTEGER,
    pinned           INTEGER NOT NULL
) WITHOUT ROWID;

-- What is known of them, in the order in which they were proposed; all of a handler are written at once. `kept`: the module
-- stays, since the version answers or may be gone back to.
CREATE TABLE handler_versions (
    handler     TEXT    NOT NULL REFERENCES rollouts (handler),
    ordinal     INTEGER NOT NULL,
    digest      TEXT    NOT NULL,
    bytes       INTEGER NOT NULL,
    host        TEXT    NOT NULL,
    proposed_at INTEGER NOT NULL,
    live_at     INTEGER,
    fate        TEXT    NOT NULL,
    reason      TEXT,
    kept        INTEGER NOT NULL,
    PRIMARY KEY (handler, ordinal)
) WITHOUT ROWID;

-- Several handlers may have the same module: it goes when none of them keeps it.
CREATE INDEX handler_versions_kept ON handler_versions (digest) WHERE kept;

-- With a rowid: rows of megabytes have no place in the tree that is searched. The bytes come last: what stands behind a
-- large value is found only through all of its pages.
CREATE TABLE modules (
    digest TEXT PRIMARY KEY,
    bytes  BLOB NOT NULL
);

-- Which version of the group's handler handled a partition from one offset to another. `number` counts up in a partition; only
-- the last of them may be open (`until_offset` is NULL). They go with the group, whichever program deletes it.
CREATE TABLE handled_ranges (
    group_name   TEXT    NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
    partition    INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    from_offset  INTEGER NOT NULL,
    until_offset INTEGER,
    handler      TEXT    NOT NULL,
    digest       TEXT    NOT NULL,
    host         TEXT    NOT NULL,
    since        INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition, number)
) WITHOUT ROWID;

CREATE INDEX handled_ranges_by_handler ON handled_ranges (handler, since);

-- The version that a host tries in some partitions; and what a handler uses there, as a JSON object of counters.
ALTER TABLE handlers ADD COLUMN trial TEXT;
ALTER TABLE handlers ADD COLUMN usage TEXT NOT NULL DEFAULT '{}';
