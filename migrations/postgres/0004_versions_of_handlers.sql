-- Versions of handlers: which one answers, their modules, and which one handled what.
--
-- Hosts that know schema 2 or 3 only go on beside: they run what their own files hold and record nothing, so that what they
-- handle counts for the version that was on record last. Tables are changed in the order in which registrations lock them.

-- Which version of the group's handler handled a partition from one offset to another. `number` counts up in a partition;
-- only the last of them may be open (`until_offset` is NULL). Whoever writes one holds the partition's row. They go with
-- it, whichever host deletes the group.
CREATE TABLE @.handled_ranges (
    group_name   text COLLATE "C" NOT NULL,
    partition    int         NOT NULL,
    number       bigint      NOT NULL,
    from_offset  bigint      NOT NULL,
    until_offset bigint,
    handler      text COLLATE "C" NOT NULL,
    digest       text        NOT NULL,
    host         text COLLATE "C" NOT NULL,
    since        timestamptz NOT NULL,
    PRIMARY KEY (group_name, partition, number),
    FOREIGN KEY (group_name, partition) REFERENCES @.group_partitions (group_name, partition) ON DELETE CASCADE
);

CREATE INDEX handled_ranges_by_handler ON @.handled_ranges (handler, since);

-- The version on record for what comes next in a partition. Volatile, since then it looks anew whenever it is called: a
-- statement that had to wait for the partition's row sees here what was committed until it got it.
CREATE FUNCTION @.handled_by(of_group text, of_partition int) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN r.until_offset IS NULL THEN r.digest END FROM @.handled_ranges r
    WHERE r.group_name = of_group AND r.partition = of_partition ORDER BY r.number DESC LIMIT 1
$$;

-- The version that a host tries in some partitions; and what a handler uses there, as counters by their names.
ALTER TABLE @.handlers
    ADD COLUMN trial text,
    ADD COLUMN usage jsonb NOT NULL DEFAULT '{}';

-- Which version of a handler answers. A change is taken only over the revision it was made from. `trial`: a version that
-- is tried in the first `trial_partitions` of each group until `trial_until`.
CREATE TABLE @.rollouts (
    handler          text COLLATE "C" PRIMARY KEY,
    revision         bigint  NOT NULL,
    live             text,
    trial            text,
    trial_since      timestamptz,
    trial_until      timestamptz,
    trial_partitions bigint,
    pinned           boolean NOT NULL
);

-- What is known of them, in the order in which they were proposed; all of a handler are written at once. `kept`: the module
-- stays, since the version answers or may be gone back to.
CREATE TABLE @.handler_versions (
    handler     text COLLATE "C" NOT NULL REFERENCES @.rollouts (handler),
    ordinal     int         NOT NULL,
    digest      text COLLATE "C" NOT NULL,
    bytes       bigint      NOT NULL,
    host        text        NOT NULL,
    proposed_at timestamptz NOT NULL,
    live_at     timestamptz,
    fate        text        NOT NULL,
    reason      text,
    kept        boolean     NOT NULL,
    PRIMARY KEY (handler, ordinal)
);

-- Several handlers may have the same module: it goes when none of them keeps it.
CREATE INDEX handler_versions_kept ON @.handler_versions (digest) WHERE kept;

-- Written and removed by one transaction at a time, under an advisory lock: neither of two that change their handlers at
-- the same moment would see what the other one keeps.
CREATE TABLE @.modules (
    digest text COLLATE "C" PRIMARY KEY,
    bytes  bytea NOT NULL
);

-- Not compressed by the server: the few megabytes it would save are not worth the time, while others wait for the lock.
ALTER TABLE @.modules ALTER COLUMN bytes SET STORAGE EXTERNAL;
