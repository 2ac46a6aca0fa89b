-- Which blobs an entity refers to, written by the commit that makes it refer to them and dropped with
-- the entity; an empty entity stands for versions, which stay. By hash it says whether anything
-- refers to a blob.
CREATE TABLE blob_refs (
    entity BLOB NOT NULL,
    hash   BLOB NOT NULL,
    PRIMARY KEY (entity, hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_refs_by_hash ON blob_refs (hash);
