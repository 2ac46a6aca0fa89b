-- Who may write a shard, and how often it was written. Each commit writes its rows anew: the room that
-- pages keep free lets the old ones be taken away as the next commit passes by.
CREATE TABLE shards (
    id    int    PRIMARY KEY,
    epoch bigint NOT NULL,
    seq   bigint NOT NULL,
    -- The node that has it, if nodes share this store.
    owner bigint
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
INSERT INTO shards (id, epoch, seq) SELECT id, 0, 0 FROM generate_series(0, 4095) id;

-- Nodes that came and did not leave. Instants are microseconds since 1970 by this database's clock.
CREATE TABLE nodes (
    id         bigint  PRIMARY KEY,
    address    bytea   NOT NULL,
    version    bytea   NOT NULL,
    leaving    boolean NOT NULL,
    joined_at  bigint  NOT NULL,
    expires_at bigint  NOT NULL
) WITH (fillfactor = 10);

-- Days whose history has a partition, or had one that is gone. That of days that are gone, of those before
-- the first one, and of what has no day lies in `history_rest`.
CREATE TABLE periods (
    period int     PRIMARY KEY,
    gone   boolean NOT NULL
);
INSERT INTO periods VALUES (extract(epoch FROM now())::bigint / 86400, true);

-- Written once. A run's chunks lie in the partition of the day that its id says, so that few places are
-- looked at for them and the place in a history is unique; all others lie in `history_rest`.
CREATE TABLE history (
    period int    NOT NULL,
    entity bytea  NOT NULL,
    seq    bigint NOT NULL,
    chunk  bytea  NOT NULL,
    PRIMARY KEY (entity, seq, period)
) PARTITION BY RANGE (period);
CREATE TABLE history_rest PARTITION OF history FOR VALUES FROM (0) TO (1);

CREATE TABLE snapshots (
    entity bytea  PRIMARY KEY,
    seq    bigint NOT NULL,
    state  bytea  NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE pages (
    entity  bytea  NOT NULL,
    number  bigint NOT NULL,
    content bytea  NOT NULL,
    PRIMARY KEY (entity, number)
);

-- Entities that must be in memory at some time. `whole` is a key that is too long for an index, whose
-- start and hash then stand for it. Rows live as long as what they are about is awake.
CREATE TABLE wakes (
    entity  bytea  PRIMARY KEY,
    wake_at bigint NOT NULL,
    whole   bytea
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX wakes_by_time ON wakes (wake_at, entity);

-- Every workflow that has a version or a run.
CREATE TABLE workflows (
    id        int     PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    namespace bytea   NOT NULL,
    name      bytea   NOT NULL,
    active    bigint  NOT NULL DEFAULT 0,
    newest    bigint  NOT NULL DEFAULT 0,
    deployed  boolean NOT NULL DEFAULT false,
    UNIQUE (namespace, name)
) WITH (fillfactor = 70);

CREATE TABLE versions (
    workflow   int    NOT NULL,
    version    bigint NOT NULL,
    hash       bytea  NOT NULL,
    spec       bytea  NOT NULL,
    source     bytea  NOT NULL,
    bundle     bytea,
    created_at bigint NOT NULL,
    author     bytea  NOT NULL,
    PRIMARY KEY (workflow, version),
    UNIQUE (workflow, hash)
);

-- A run that ends moves to the other partition and changes no more: what is updated and vacuumed is only
-- as big as what goes on.
CREATE TABLE runs (
    id           bytea    NOT NULL,
    ended        boolean  NOT NULL,
    workflow     int      NOT NULL,
    status       int      NOT NULL,
    version      bigint   NOT NULL,
    created_at   bigint   NOT NULL,
    started_at   bigint,
    ended_at     bigint,
    good         bigint   NOT NULL,
    bad          bigint   NOT NULL,
    known        bigint   NOT NULL,
    scheduled_at bigint,
    parent       bytea,
    trigger      bytea    NOT NULL,
    trigger_name bytea,
    backfill     bytea,
    error        bytea,
    labels       bytea    NOT NULL,
    PRIMARY KEY (id, ended)
) PARTITION BY LIST (ended);
CREATE TABLE runs_live PARTITION OF runs FOR VALUES IN (false)
    WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
CREATE TABLE runs_ended PARTITION OF runs FOR VALUES IN (true);
CREATE INDEX runs_by_creation ON runs (created_at, id);
CREATE INDEX runs_by_status ON runs (workflow, status, created_at, id);
CREATE INDEX runs_by_parent ON runs (parent, status, created_at, id) WHERE parent IS NOT NULL;
CREATE INDEX runs_by_trigger ON runs (trigger, created_at, id);
CREATE INDEX runs_by_trigger_name ON runs (trigger_name, created_at, id) WHERE trigger_name IS NOT NULL;
CREATE INDEX runs_by_backfill ON runs (backfill, created_at, id) WHERE backfill IS NOT NULL;
CREATE INDEX runs_with_error ON runs (created_at, id) WHERE error IS NOT NULL;
CREATE INDEX runs_by_end ON runs_ended (workflow, ended_at, id) WHERE ended_at IS NOT NULL;

-- A row for each label of a run; of a long name or value only its start.
CREATE TABLE run_labels (
    id         bytea  NOT NULL,
    key        bytea  NOT NULL,
    value      bytea  NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (id, key)
);
CREATE INDEX run_labels_by_value ON run_labels (key, value, created_at, id);

-- Kept by each commit, so that nothing is counted. A count is the sum over slots: commits of different
-- lanes write different rows, and none of them waits for another.
CREATE TABLE run_counts (
    workflow int    NOT NULL,
    status   int    NOT NULL,
    slot     int    NOT NULL,
    runs     bigint NOT NULL,
    PRIMARY KEY (workflow, status, slot)
) WITH (fillfactor = 30, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- Messages on their way between shards, until they are taken.
CREATE TABLE mail (
    to_shard   int    NOT NULL,
    from_shard int    NOT NULL,
    number     bigint NOT NULL,
    entity     bytea  NOT NULL,
    message    bytea  NOT NULL,
    PRIMARY KEY (to_shard, from_shard, number)
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE documents (
    key   bytea PRIMARY KEY,
    body  bytea NOT NULL,
    whole bytea
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Which blobs an entity refers to, and since which place in its history; 0 for what does not go with
-- the history: snapshots of entities that forget theirs, pages. An empty entity stands for versions.
CREATE TABLE blob_refs (
    entity bytea  NOT NULL,
    hash   bytea  NOT NULL,
    seq    bigint NOT NULL,
    PRIMARY KEY (entity, hash, seq)
);
CREATE INDEX blob_refs_by_hash ON blob_refs (hash);

-- What stands in pages. It counts once the entity has forgotten the history that said it.
CREATE TABLE page_refs (
    entity bytea NOT NULL,
    hash   bytea NOT NULL,
    PRIMARY KEY (entity, hash)
);

-- Big things, by the hash of their content; a row is there only with all of its chunks. When each was last
-- put or touched, in microseconds since 1970 by this database's clock.
CREATE TABLE blobs (
    hash    bytea  PRIMARY KEY,
    size    bigint NOT NULL,
    used_at bigint NOT NULL
) WITH (fillfactor = 80);

-- Most are compressed already, or are read so seldom that the time is better spent elsewhere.
CREATE TABLE blob_chunks (
    hash    bytea NOT NULL,
    number  int   NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (hash, number)
);
ALTER TABLE blob_chunks ALTER content SET STORAGE EXTERNAL;

-- Blobs whose hashes stand in the content of another, which stay as long as it does.
CREATE TABLE blob_holds (
    hash bytea NOT NULL,
    held bytea NOT NULL,
    PRIMARY KEY (hash, held)
);
CREATE INDEX blob_holds_by_held ON blob_holds (held);

-- Logs of attempts; `id` stands for path and attempt. Of the bytes that its worker sent `came` are here, and
-- what is kept of them, with notes of what is not, lies before `length`.
CREATE TABLE logs (
    run        bytea  NOT NULL,
    id         bytea  NOT NULL,
    path       bytea  NOT NULL,
    attempt    bigint NOT NULL,
    -- The day on which it began, in whose partition its chunks lie.
    day        int    NOT NULL,
    came       bigint NOT NULL,
    length     bigint NOT NULL,
    changed_at bigint NOT NULL,
    PRIMARY KEY (run, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- Whole lines, from `start` on.
CREATE TABLE log_chunks (
    day     int    NOT NULL,
    run     bytea  NOT NULL,
    id      bytea  NOT NULL,
    start   bigint NOT NULL,
    content bytea  NOT NULL,
    PRIMARY KEY (run, id, start, day)
) PARTITION BY RANGE (day);

-- Functions are numbered: a node of another release calls those it knows.

-- Lets through who holds all the shards as they are, and advances them; anybody else writes nothing. In
-- order of shard, so that two who want the same ones do not wait for each other.
CREATE FUNCTION fence_1(in_ids int[], in_epochs bigint[], in_seqs bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    passed int[];
    stale  int;
BEGIN
    WITH moved AS (
        UPDATE shards s SET seq = s.seq + 1
        FROM (SELECT * FROM unnest(in_ids, in_epochs, in_seqs) AS u (id, epoch, seq) ORDER BY id) h
        WHERE s.id = h.id AND s.epoch = h.epoch AND s.seq = h.seq AND h.epoch > 0
        RETURNING s.id
    )
    SELECT array_agg(id) INTO passed FROM moved;
    IF coalesce(cardinality(passed), 0) < cardinality(in_ids) THEN
        SELECT min(id) INTO stale FROM unnest(in_ids) id WHERE passed IS NULL OR id <> ALL (passed);
        RAISE EXCEPTION 'shard % is not as it was held', stale USING ERRCODE = 'KP001', DETAIL = stale::text;
    END IF;
END $$;

-- Drops all that belongs to entities but the rows of runs.
CREATE FUNCTION drop_entities_1(in_entities bytea[], in_periods int[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM history_rest h USING unnest(in_entities) e WHERE h.entity = e;
    IF EXISTS (SELECT 1 FROM unnest(in_periods) p WHERE p > 0) THEN
        DELETE FROM history h USING unnest(in_entities, in_periods) AS d (entity, period)
            WHERE h.entity = d.entity AND h.period = d.period;
    END IF;
    DELETE FROM snapshots s USING unnest(in_entities) e WHERE s.entity = e;
    DELETE FROM pages p USING unnest(in_entities) e WHERE p.entity = e;
    DELETE FROM page_refs p USING unnest(in_entities) e WHERE p.entity = e;
    DELETE FROM wakes w USING unnest(in_entities) e WHERE w.entity = e;
    DELETE FROM blob_refs b USING unnest(in_entities) e WHERE b.entity = e;
END $$;

-- Drops the history of entities up to a place, and what they referred to there.
CREATE FUNCTION forget_1(in_entities bytea[], in_periods int[], in_seqs bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM history_rest h USING unnest(in_entities, in_seqs) AS f (entity, seq)
        WHERE h.entity = f.entity AND h.seq <= f.seq;
    IF EXISTS (SELECT 1 FROM unnest(in_periods) p WHERE p > 0) THEN
        DELETE FROM history h USING unnest(in_entities, in_periods, in_seqs) AS f (entity, period, seq)
            WHERE h.entity = f.entity AND h.period = f.period AND h.seq <= f.seq;
    END IF;
    DELETE FROM blob_refs b USING unnest(in_entities, in_seqs) AS f (entity, seq)
        WHERE b.entity = f.entity AND b.seq <= f.seq;
    INSERT INTO blob_refs (entity, hash, seq)
        SELECT p.entity, p.hash, 0 FROM unnest(in_entities) e JOIN page_refs p ON p.entity = e
        ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION documents_1(in_keys bytea[], in_bodies bytea[], in_wholes bytea[], in_gone bytea[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(in_keys) > 0 THEN
        INSERT INTO documents (key, body, whole) SELECT * FROM unnest(in_keys, in_bodies, in_wholes)
            ON CONFLICT (key) DO UPDATE SET body = excluded.body;
    END IF;
    IF cardinality(in_gone) > 0 THEN
        DELETE FROM documents d USING unnest(in_gone) g WHERE d.key = g;
    END IF;
END $$;

-- Writes rows of runs as they are now, and keeps counts and labels. Returns how many rows are dead among those of
-- runs that go on.
CREATE FUNCTION runs_1(
    in_slot int, in_ids bytea[], in_workflows int[], in_statuses int[], in_versions bigint[],
    in_created bigint[], in_started bigint[], in_ended bigint[], in_good bigint[], in_bad bigint[],
    in_known bigint[], in_scheduled bigint[], in_parents bytea[], in_triggers bytea[], in_names bytea[],
    in_backfills bytea[], in_errors bytea[], in_labels bytea[], in_label_ids bytea[], in_label_keys bytea[],
    in_label_values bytea[], in_label_created bigint[]
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    there         bigint;
    others        boolean;
    moved         bigint;
    was_workflows int[];
    was_statuses  int[];
BEGIN
    SELECT count(*), array_agg(r.workflow), array_agg(r.status), coalesce(bool_or((r.labels, r.created_at) IS DISTINCT FROM (n.labels, n.created_at)), false),
            count(*) FILTER (WHERE n.status <> r.status AND NOT r.ended)
        INTO there, was_workflows, was_statuses, others, moved
        FROM unnest(in_ids, in_labels, in_created, in_statuses) AS n (id, labels, created_at, status)
        JOIN runs r ON r.id = n.id;
    INSERT INTO run_counts AS c (workflow, status, slot, runs)
        SELECT workflow, status, in_slot, sum(change) FROM (
            SELECT workflow, status, 1 AS change FROM unnest(in_workflows, in_statuses) AS n (workflow, status)
            UNION ALL
            SELECT workflow, status, -1 FROM unnest(was_workflows, was_statuses) AS n (workflow, status)
        ) changes
        GROUP BY workflow, status HAVING sum(change) <> 0 ORDER BY workflow, status
        ON CONFLICT (workflow, status, slot) DO UPDATE SET runs = c.runs + excluded.runs;
    IF others THEN
        DELETE FROM run_labels l
            USING unnest(in_ids, in_labels, in_created) AS n (id, labels, created_at) JOIN runs r ON r.id = n.id
            WHERE l.id = n.id AND (r.labels, r.created_at) IS DISTINCT FROM (n.labels, n.created_at);
    END IF;
    IF there > 0 THEN
        UPDATE runs r SET
            ended = n.status >= 5, workflow = n.workflow, status = n.status, version = n.version,
            created_at = n.created_at, started_at = n.started_at, ended_at = n.ended_at, good = n.good,
            bad = n.bad, known = n.known, scheduled_at = n.scheduled_at, parent = n.parent,
            trigger = n.trigger, trigger_name = n.trigger_name, backfill = n.backfill, error = n.error, labels = n.labels
        FROM unnest(in_ids, in_workflows, in_statuses, in_versions, in_created, in_started, in_ended, in_good,
                in_bad, in_known, in_scheduled, in_parents, in_triggers, in_names, in_backfills, in_errors, in_labels)
            AS n (id, workflow, status, version, created_at, started_at, ended_at, good,
                bad, known, scheduled_at, parent, trigger, trigger_name, backfill, error, labels)
        WHERE r.id = n.id;
    END IF;
    IF there < cardinality(in_ids) THEN
        INSERT INTO runs (id, ended, workflow, status, version, created_at, started_at, ended_at, good, bad,
                known, scheduled_at, parent, trigger, trigger_name, backfill, error, labels)
            SELECT n.id, n.status >= 5, n.workflow, n.status, n.version, n.created_at, n.started_at, n.ended_at,
                n.good, n.bad, n.known, n.scheduled_at, n.parent, n.trigger, n.trigger_name, n.backfill, n.error, n.labels
            FROM unnest(in_ids, in_workflows, in_statuses, in_versions, in_created, in_started, in_ended, in_good,
                    in_bad, in_known, in_scheduled, in_parents, in_triggers, in_names, in_backfills, in_errors, in_labels)
                AS n (id, workflow, status, version, created_at, started_at, ended_at, good,
                    bad, known, scheduled_at, parent, trigger, trigger_name, backfill, error, labels)
            WHERE there = 0 OR NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = n.id);
    END IF;
    IF cardinality(in_label_ids) > 0 THEN
        INSERT INTO run_labels (id, key, value, created_at)
            SELECT * FROM unnest(in_label_ids, in_label_keys, in_label_values, in_label_created)
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN moved;
END $$;

CREATE FUNCTION add_version_1(
    in_workflow int, in_version bigint, in_hash bytea, in_spec bytea, in_source bytea, in_bundle bytea,
    in_created bigint, in_author bytea, in_refers bytea
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    next bigint;
BEGIN
    UPDATE workflows SET newest = newest + 1 WHERE id = in_workflow RETURNING newest INTO next;
    IF next IS DISTINCT FROM in_version
        OR EXISTS (SELECT 1 FROM versions v WHERE v.workflow = in_workflow AND v.hash = in_hash)
    THEN
        RAISE EXCEPTION 'version % is not the next one, or its content is registered', in_version
            USING ERRCODE = 'KP002';
    END IF;
    INSERT INTO versions (workflow, version, hash, spec, source, bundle, created_at, author)
        VALUES (in_workflow, in_version, in_hash, in_spec, in_source, in_bundle, in_created, in_author);
    INSERT INTO blob_refs (entity, hash, seq)
        SELECT '', substring(in_refers FROM place FOR 32), 0 FROM generate_series(1, length(in_refers), 32) place
        ON CONFLICT DO NOTHING;
END $$;

-- The number of a version with this content, which becomes the newest if there was none.
CREATE FUNCTION register_1(
    in_workflow int, in_hash bytea, in_spec bytea, in_source bytea, in_bundle bytea,
    in_created bigint, in_author bytea, in_refers bytea
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    SELECT newest + 1 INTO number FROM workflows WHERE id = in_workflow FOR UPDATE;
    IF EXISTS (SELECT 1 FROM versions v WHERE v.workflow = in_workflow AND v.hash = in_hash) THEN
        RETURN (SELECT v.version FROM versions v WHERE v.workflow = in_workflow AND v.hash = in_hash);
    END IF;
    PERFORM add_version_1(in_workflow, number, in_hash, in_spec, in_source, in_bundle, in_created, in_author, in_refers);
    UPDATE workflows SET active = number WHERE id = in_workflow AND NOT deployed;
    RETURN number;
END $$;

-- One commit: all of it or nothing. What is NULL has nothing to say. Returns how many rows are left to
-- be vacuumed where few are alive.
CREATE FUNCTION commit_1(
    in_shards int[], in_epochs bigint[], in_seqs bigint[],
    in_chunk_periods int[], in_chunk_entities bytea[], in_chunk_seqs bigint[], in_chunks bytea[],
    in_ref_entities bytea[], in_ref_hashes bytea[], in_ref_seqs bigint[],
    in_awake bytea[], in_wake_at bigint[], in_awake_wholes bytea[], in_asleep bytea[],
    in_page_entities bytea[], in_page_numbers bigint[], in_pages bytea[],
    in_page_ref_entities bytea[], in_page_ref_hashes bytea[],
    in_state_entities bytea[], in_state_seqs bigint[], in_states bytea[],
    in_forget_entities bytea[], in_forget_periods int[], in_forget_seqs bigint[],
    in_kept_entities bytea[], in_kept_hashes bytea[],
    in_drop_entities bytea[], in_drop_periods int[],
    in_slot int, in_run_ids bytea[], in_run_workflows int[], in_run_statuses int[], in_run_versions bigint[],
    in_run_created bigint[], in_run_started bigint[], in_run_ended bigint[], in_run_good bigint[],
    in_run_bad bigint[], in_run_known bigint[], in_run_scheduled bigint[], in_run_parents bytea[],
    in_run_triggers bytea[], in_run_names bytea[], in_run_backfills bytea[], in_run_errors bytea[], in_run_labels bytea[],
    in_label_ids bytea[], in_label_keys bytea[], in_label_values bytea[], in_label_created bigint[],
    in_doc_keys bytea[], in_doc_bodies bytea[], in_doc_wholes bytea[], in_doc_gone bytea[],
    in_version_workflows int[], in_version_numbers bigint[], in_version_hashes bytea[],
    in_version_specs bytea[], in_version_sources bytea[], in_version_bundles bytea[],
    in_version_created bigint[], in_version_authors bytea[], in_version_refers bytea[],
    in_active_workflows int[], in_active_versions bigint[],
    in_mail_to int[], in_mail_from int[], in_mail_numbers bigint[], in_mail_entities bytea[], in_mail bytea[],
    in_mark_to int[], in_mark_from int[], in_mark_numbers bigint[]
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    dead  bigint := 0;
    slept bigint;
BEGIN
    PERFORM fence_1(in_shards, in_epochs, in_seqs);
    IF in_chunks IS NOT NULL THEN
        INSERT INTO history (period, entity, seq, chunk)
            SELECT * FROM unnest(in_chunk_periods, in_chunk_entities, in_chunk_seqs, in_chunks);
    END IF;
    IF in_ref_entities IS NOT NULL THEN
        INSERT INTO blob_refs (entity, hash, seq)
            SELECT * FROM unnest(in_ref_entities, in_ref_hashes, in_ref_seqs) ON CONFLICT DO NOTHING;
    END IF;
    -- What is as it was is only read: a row that is written for nothing is a dead one more.
    IF in_awake IS NOT NULL THEN
        INSERT INTO wakes (entity, wake_at, whole)
            SELECT n.entity, n.wake_at, n.whole
            FROM unnest(in_awake, in_wake_at, in_awake_wholes) AS n (entity, wake_at, whole)
            LEFT JOIN wakes w ON w.entity = n.entity WHERE w.wake_at IS DISTINCT FROM n.wake_at
            ON CONFLICT (entity) DO UPDATE SET wake_at = excluded.wake_at;
    END IF;
    IF in_asleep IS NOT NULL THEN
        DELETE FROM wakes w USING unnest(in_asleep) e WHERE w.entity = e;
        GET DIAGNOSTICS slept = ROW_COUNT;
        dead := dead + slept;
    END IF;
    IF in_pages IS NOT NULL THEN
        INSERT INTO pages (entity, number, content) SELECT * FROM unnest(in_page_entities, in_page_numbers, in_pages);
    END IF;
    IF in_page_ref_entities IS NOT NULL THEN
        INSERT INTO page_refs (entity, hash) SELECT * FROM unnest(in_page_ref_entities, in_page_ref_hashes)
            ON CONFLICT DO NOTHING;
    END IF;
    IF in_states IS NOT NULL THEN
        INSERT INTO snapshots (entity, seq, state) SELECT * FROM unnest(in_state_entities, in_state_seqs, in_states)
            ON CONFLICT (entity) DO UPDATE SET seq = excluded.seq, state = excluded.state;
    END IF;
    IF in_forget_entities IS NOT NULL THEN
        PERFORM forget_1(in_forget_entities, in_forget_periods, in_forget_seqs);
    END IF;
    IF in_kept_entities IS NOT NULL THEN
        INSERT INTO blob_refs (entity, hash, seq)
            SELECT e, h, 0 FROM unnest(in_kept_entities, in_kept_hashes) AS k (e, h) ON CONFLICT DO NOTHING;
    END IF;
    IF in_drop_entities IS NOT NULL THEN
        PERFORM drop_entities_1(in_drop_entities, in_drop_periods);
    END IF;
    IF in_run_ids IS NOT NULL THEN
        dead := dead + runs_1(
            in_slot, in_run_ids, in_run_workflows, in_run_statuses, in_run_versions, in_run_created,
            in_run_started, in_run_ended, in_run_good, in_run_bad, in_run_known, in_run_scheduled,
            in_run_parents, in_run_triggers, in_run_names, in_run_backfills, in_run_errors, in_run_labels,
            in_label_ids, in_label_keys, in_label_values, in_label_created);
    END IF;
    IF in_doc_keys IS NOT NULL OR in_doc_gone IS NOT NULL THEN
        PERFORM documents_1(in_doc_keys, in_doc_bodies, in_doc_wholes, in_doc_gone);
    END IF;
    IF in_version_workflows IS NOT NULL THEN
        FOR place IN 1 .. cardinality(in_version_workflows) LOOP
            PERFORM add_version_1(
                in_version_workflows[place], in_version_numbers[place], in_version_hashes[place],
                in_version_specs[place], in_version_sources[place], in_version_bundles[place],
                in_version_created[place], in_version_authors[place], in_version_refers[place]);
        END LOOP;
    END IF;
    IF in_active_workflows IS NOT NULL THEN
        UPDATE workflows w SET active = a.version, deployed = true
            FROM unnest(in_active_workflows, in_active_versions) AS a (workflow, version) WHERE w.id = a.workflow;
    END IF;
    IF in_mail IS NOT NULL THEN
        INSERT INTO mail (to_shard, from_shard, number, entity, message)
            SELECT * FROM unnest(in_mail_to, in_mail_from, in_mail_numbers, in_mail_entities, in_mail);
    END IF;
    IF in_mark_to IS NOT NULL THEN
        DELETE FROM mail m USING unnest(in_mark_to, in_mark_from, in_mark_numbers) AS n (to_shard, from_shard, number)
            WHERE m.to_shard = n.to_shard AND m.from_shard = n.from_shard AND m.number <= n.number;
    END IF;
    RETURN dead;
END $$;

-- Drops ended runs with all that belongs to them; how many those were. It holds their shards meanwhile,
-- in order, so that no commit counts a run that goes.
CREATE FUNCTION delete_runs_1(
    in_shards int[], in_ids bytea[], in_entities bytea[], in_periods int[], in_slot int
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    going    bytea[];
    entities bytea[];
    periods  int[];
BEGIN
    PERFORM 1 FROM shards WHERE id = ANY (in_shards) ORDER BY id FOR UPDATE;
    SELECT array_agg(r.id), array_agg(n.entity), array_agg(n.period) INTO going, entities, periods
        FROM unnest(in_ids, in_entities, in_periods) AS n (id, entity, period)
        JOIN runs r ON r.id = n.id AND r.ended;
    IF going IS NULL THEN
        RETURN 0;
    END IF;
    INSERT INTO run_counts AS c (workflow, status, slot, runs)
        SELECT r.workflow, r.status, in_slot, -count(*) FROM unnest(going) AS g (id) JOIN runs r ON r.id = g.id
        GROUP BY r.workflow, r.status ORDER BY r.workflow, r.status
        ON CONFLICT (workflow, status, slot) DO UPDATE SET runs = c.runs + excluded.runs;
    DELETE FROM run_labels l USING unnest(going) AS g (id) WHERE l.id = g.id;
    DELETE FROM runs r USING unnest(going) AS g (id) WHERE r.id = g.id AND r.ended;
    PERFORM drop_entities_1(entities, periods);
    RETURN cardinality(going);
END $$;

-- Makes the partition of a day, beside commits that go on. False if that day's history lies in
-- `history_rest`.
CREATE FUNCTION make_period_1(in_period int) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    name text := 'history_p' || in_period;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext(current_schema() || '.history'));
    IF in_period <= (SELECT min(period) FROM periods) THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT 1 FROM periods WHERE period = in_period) THEN
        RETURN (SELECT NOT gone FROM periods WHERE period = in_period);
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE history INCLUDING ALL)', name);
    EXECUTE format('ALTER TABLE history ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
        name, in_period, in_period + 1);
    INSERT INTO periods VALUES (in_period, false);
    RETURN true;
END $$;

-- Drops the partition of a day after copying what is left in it forward, if that is at most so many
-- chunks and bytes. Returns how many chunks those were, NULL if it was not dropped.
CREATE FUNCTION drop_period_1(in_period int, in_chunks bigint, in_bytes bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    name text := 'history_p' || in_period;
    kept bigint;
    size bigint;
BEGIN
    -- Commits wait behind whoever waits for the table: rather another time.
    PERFORM set_config('lock_timeout', '300ms', true);
    PERFORM pg_advisory_xact_lock(hashtext(current_schema() || '.history'));
    IF NOT EXISTS (SELECT 1 FROM periods WHERE period = in_period AND NOT gone) THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT count(*), sum(octet_length(chunk)) FROM (SELECT chunk FROM %I LIMIT %s) c',
        name, in_chunks + 1) INTO kept, size;
    IF kept > in_chunks OR size > in_bytes THEN
        RETURN NULL;
    END IF;
    LOCK TABLE history IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('INSERT INTO history_rest (period, entity, seq, chunk) SELECT 0, entity, seq, chunk FROM %I', name);
    GET DIAGNOSTICS kept = ROW_COUNT;
    UPDATE periods SET gone = true WHERE period = in_period;
    EXECUTE format('DROP TABLE %I', name);
    RETURN kept;
END $$;

-- Begins to put a blob, or marks one that is there as put now; with it those that its content names. True
-- if its content is not there yet. Rows are locked in order of hash before anything is written, so that two
-- who name each other's blobs do not wait for each other.
CREATE FUNCTION put_blob_1(in_hash bytea, in_size bigint, in_held bytea[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    now_at bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
BEGIN
    PERFORM 1 FROM blobs WHERE hash = ANY (in_held || in_hash) ORDER BY hash FOR NO KEY UPDATE;
    UPDATE blobs SET used_at = now_at WHERE hash = ANY (in_held || in_hash);
    IF cardinality(in_held) > 0 THEN
        INSERT INTO blob_holds (hash, held)
            SELECT in_hash, b.hash FROM blobs b WHERE b.hash = ANY (in_held) AND b.hash <> in_hash
            ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO blobs (hash, size, used_at) VALUES (in_hash, in_size, now_at) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;

-- Puts a blob of one chunk.
CREATE FUNCTION put_small_blob_1(in_hash bytea, in_content bytea, in_held bytea[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF put_blob_1(in_hash, octet_length(in_content), in_held) THEN
        INSERT INTO blob_chunks (hash, number, content) VALUES (in_hash, 0, in_content);
    END IF;
END $$;

-- Removes those of the blobs that were not put or touched for so many microseconds, and that no other
-- holds; how many, and their bytes. One that somebody is about to mark stays.
CREATE FUNCTION drop_blobs_1(in_hashes bytea[], in_unused bigint, OUT dropped bigint, OUT bytes bigint)
LANGUAGE plpgsql AS $$
DECLARE
    before bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - in_unused;
    going  bytea[];
BEGIN
    SELECT array_agg(hash), count(*), coalesce(sum(size), 0) INTO going, dropped, bytes FROM (
        SELECT b.hash, b.size FROM blobs b WHERE b.hash = ANY (in_hashes) AND b.used_at < before
            AND NOT EXISTS (SELECT 1 FROM blob_holds h WHERE h.held = b.hash)
        ORDER BY b.hash FOR UPDATE SKIP LOCKED) found;
    DELETE FROM blob_holds WHERE hash = ANY (going);
    DELETE FROM blob_chunks WHERE hash = ANY (going);
    DELETE FROM blobs WHERE hash = ANY (going);
END $$;

-- Appends lines to logs, which come in order of run and id so that two who append do not wait for each other.
-- `in_offsets` is how many bytes of a log were sent before these: what came already is not written again, and
-- what never came is said. Of a log that grows beyond `in_kept` bytes the oldest chunks go.
CREATE FUNCTION append_logs_1(
    in_runs bytea[], in_ids bytea[], in_paths bytea[], in_attempts bigint[], in_offsets bigint[], in_texts bytea[],
    in_kept bigint
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    now_at bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    log    logs;
    lines  bytea;
    known  bigint;
    grown  bigint;
BEGIN
    FOR place IN 1 .. cardinality(in_runs) LOOP
        INSERT INTO logs AS l (run, id, path, attempt, day, came, length, changed_at)
            VALUES (in_runs[place], in_ids[place], in_paths[place], in_attempts[place], now_at / 86400000000, 0, 0, now_at)
            ON CONFLICT (run, id) DO UPDATE SET changed_at = excluded.changed_at
            RETURNING l.* INTO log;
        lines := in_texts[place];
        grown := in_offsets[place] + octet_length(lines);
        IF grown > log.came THEN
            known := greatest(log.came - in_offsets[place], 0);
            IF known > 0 AND get_byte(lines, known::int - 1) = 10 THEN
                lines := substring(lines FROM known::int + 1);
            END IF;
            IF in_offsets[place] > log.came THEN
                lines := convert_to(format(E'%s s %s bytes of this log were lost on their way here\n',
                    now_at, in_offsets[place] - log.came), 'UTF8') || lines;
            END IF;
            INSERT INTO log_chunks (day, run, id, start, content) VALUES (log.day, log.run, log.id, log.length, lines);
            UPDATE logs l SET came = grown, length = log.length + octet_length(lines)
                WHERE l.run = log.run AND l.id = log.id;
            -- Not with every line.
            IF (log.length + octet_length(lines)) / (in_kept / 16) > log.length / (in_kept / 16) THEN
                DELETE FROM log_chunks c WHERE c.day = log.day AND c.run = log.run AND c.id = log.id
                    AND c.start < log.length + octet_length(lines) - in_kept;
            END IF;
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION drop_logs_1(in_run bytea) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    began int;
BEGIN
    FOR began IN SELECT DISTINCT day FROM logs WHERE run = in_run LOOP
        DELETE FROM log_chunks c WHERE c.day = began AND c.run = in_run;
    END LOOP;
    DELETE FROM logs WHERE run = in_run;
END $$;

-- Makes the partition of a day, beside whoever appends.
CREATE FUNCTION make_log_day_1(in_day int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    name text := 'log_chunks_p' || in_day;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext(current_schema() || '.logs'));
    IF to_regclass(format('%I.%I', current_schema(), name)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE log_chunks INCLUDING ALL)', name);
    EXECUTE format('ALTER TABLE log_chunks ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', name, in_day, in_day + 1);
END $$;

-- Makes the partition of tomorrow, and drops one day before yesterday in which there is nothing any more. How
-- many that were.
CREATE FUNCTION tidy_logs_1() RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    today int := extract(epoch FROM clock_timestamp())::bigint / 86400;
    name  text;
    used  boolean;
BEGIN
    -- Whoever appends waits behind whoever waits for the table: rather another time.
    PERFORM set_config('lock_timeout', '300ms', true);
    PERFORM make_log_day_1(today);
    PERFORM make_log_day_1(today + 1);
    FOR name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'log_chunks'::regclass AND substring(c.relname FROM 'p([0-9]+)$')::int < today - 1
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', name) INTO used;
        IF NOT used THEN
            EXECUTE format('DROP TABLE %I', name);
            RETURN 1;
        END IF;
    END LOOP;
    RETURN 0;
END $$;
