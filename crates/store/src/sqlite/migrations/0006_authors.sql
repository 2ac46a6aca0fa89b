-- Who registered a version; nobody said it of those that were there before.
ALTER TABLE versions ADD COLUMN author TEXT NOT NULL DEFAULT '';
