-- "KAPL": tells a database of Kapell from any other.
PRAGMA application_id = 1262571596;

-- The fence: who may write a shard, and how often it was written.
CREATE TABLE shards (
    id    INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    seq   INTEGER NOT NULL
) STRICT;

-- Chunks lie beside their entity, and runs beside the runs made with them: a commit of many new
-- runs writes few pages, and an entity is read in one sweep.
CREATE TABLE history (
    entity BLOB    NOT NULL,
    seq    INTEGER NOT NULL,
    chunk  BLOB    NOT NULL,
    PRIMARY KEY (entity, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshots (
    entity BLOB    NOT NULL PRIMARY KEY,
    seq    INTEGER NOT NULL,
    state  BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE pages (
    entity  BLOB    NOT NULL,
    number  INTEGER NOT NULL,
    content BLOB    NOT NULL,
    PRIMARY KEY (entity, number)
) STRICT, WITHOUT ROWID;

-- Entities that must be in memory at some time; no row for those that wait for a message alone.
CREATE TABLE wakes (
    entity  BLOB    NOT NULL PRIMARY KEY,
    wake_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX wakes_by_time ON wakes (wake_at, entity);

-- Every workflow that has a version or a run. `active` is its newest version, 0 for none.
CREATE TABLE workflows (
    id        INTEGER PRIMARY KEY,
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    active    INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, name)
) STRICT;

CREATE TABLE versions (
    workflow_id INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    hash        TEXT    NOT NULL,
    spec        TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    bundle      TEXT,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, version),
    UNIQUE (workflow_id, hash)
) STRICT;

CREATE TABLE runs (
    id          BLOB    NOT NULL PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    started_at  INTEGER,
    ended_at    INTEGER,
    parent      BLOB,
    trigger     TEXT    NOT NULL,
    good        INTEGER NOT NULL,
    bad         INTEGER NOT NULL,
    known       INTEGER NOT NULL,
    error       TEXT,
    labels      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- One index serves every list: a list over several workflows or statuses merges their ranges.
CREATE INDEX runs_by_status ON runs (workflow_id, status, id);
CREATE INDEX runs_by_parent ON runs (parent, status, id) WHERE parent IS NOT NULL;
CREATE INDEX runs_by_end ON runs (workflow_id, ended_at, id) WHERE status >= 5 AND ended_at IS NOT NULL;

-- Kept by each commit, so that nothing is counted.
CREATE TABLE run_counts (
    workflow_id INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    runs        INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, status)
) STRICT, WITHOUT ROWID;
