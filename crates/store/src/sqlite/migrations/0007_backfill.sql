-- The backfill that made a run. Nearly all runs are of none, and pay nothing for it.
ALTER TABLE runs ADD COLUMN backfill TEXT;
CREATE INDEX runs_by_backfill ON runs (backfill, created_at, id) WHERE backfill IS NOT NULL;
