-- Messages on their way between shards, until they are taken.
CREATE TABLE mail (
    to_shard INTEGER NOT NULL,
    from_shard INTEGER NOT NULL,
    number INTEGER NOT NULL,
    entity BLOB NOT NULL,
    message BLOB NOT NULL,
    PRIMARY KEY (to_shard, from_shard, number)
) STRICT, WITHOUT ROWID;
