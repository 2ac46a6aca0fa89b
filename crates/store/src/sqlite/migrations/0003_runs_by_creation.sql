-- Lists go by when a run was made, which an id that is derived from a key does not say.
DROP INDEX runs_by_status;
DROP INDEX runs_by_parent;
CREATE INDEX runs_by_creation ON runs (created_at, id);
CREATE INDEX runs_by_status ON runs (workflow_id, status, created_at, id);
CREATE INDEX runs_by_parent ON runs (parent, status, created_at, id) WHERE parent IS NOT NULL;
