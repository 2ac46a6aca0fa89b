-- The newest version is no longer always the active one: once a workflow is deployed, only activating
-- moves `active`; 0 is none.
ALTER TABLE workflows ADD COLUMN newest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflows ADD COLUMN deployed INTEGER NOT NULL DEFAULT 0;
UPDATE workflows SET newest = active;

-- What lists show of entities that are no runs, by the key of the entity, and whatever else is kept as a
-- named document. The first byte of a key says which.
CREATE TABLE documents (
    key  BLOB NOT NULL PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
