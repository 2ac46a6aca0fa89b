-- What lists of runs are searched by. A run that has no label, no named trigger and no error pays for
-- one more index alone.
ALTER TABLE runs ADD COLUMN scheduled_at INTEGER;
ALTER TABLE runs ADD COLUMN trigger_name TEXT;
CREATE INDEX runs_by_trigger ON runs (trigger, created_at, id);
CREATE INDEX runs_by_trigger_name ON runs (trigger_name, created_at, id) WHERE trigger_name IS NOT NULL;
CREATE INDEX runs_with_error ON runs (created_at, id) WHERE error IS NOT NULL;

-- A row for each label of a run; of a long value only its start.
CREATE TABLE run_labels (
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    id         BLOB    NOT NULL,
    PRIMARY KEY (key, value, created_at, id)
) STRICT, WITHOUT ROWID;
INSERT INTO run_labels (key, value, created_at, id)
    SELECT j.key, substr(j.value, 1, 64), r.created_at, r.id
    FROM runs r, json_each(CASE WHEN json_valid(r.labels) THEN r.labels ELSE '{}' END) j
    WHERE j.type = 'text';
