-- The tables. Instants and durations are microseconds (bigint), as they cross the driver seam.
-- Jobs that have ended never stay in the hot table: its narrow partial indexes are what every
-- claim walks. The conditions of these indexes come from the law of jobs.

CREATE SEQUENCE {counter};

CREATE TABLE {jobs} (
    seq bigint NOT NULL,
    due bigint NOT NULL,
    enqueued_at bigint NOT NULL,
    lease_until bigint,
    started_at bigint,
    finished_at bigint,
    forget_at bigint,
    expires_at bigint,
    delay bigint NOT NULL,
    eta bigint,
    result_ttl bigint,
    failed_ttl bigint,
    priority integer NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    crashes integer NOT NULL,
    interruptions integer NOT NULL,
    parks integer NOT NULL,
    delivery integer NOT NULL,
    fin_delivery integer,
    cancel_requested boolean NOT NULL,
    state text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    lane text COLLATE "C" NOT NULL,
    request_id text COLLATE "C",
    worker_id text COLLATE "C",
    fin_request text COLLATE "C",
    fin_event text COLLATE "C",
    fin_state text COLLATE "C",
    reason text COLLATE "C" NOT NULL,
    tags text COLLATE "C",
    unique_key text COLLATE "C",
    unique_states text COLLATE "C",
    progress bytea,
    error bytea,
    result bytea,
    spec bytea NOT NULL
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.1
);

CREATE TABLE {finished} (LIKE {jobs} INCLUDING DEFAULTS);
CREATE TABLE {dead} (LIKE {jobs} INCLUDING DEFAULTS);

ALTER TABLE {jobs} ADD CONSTRAINT {ix_jobs_id} PRIMARY KEY (id);
ALTER TABLE {finished} ADD CONSTRAINT {ix_finished_id} PRIMARY KEY (id);
ALTER TABLE {dead} ADD CONSTRAINT {ix_dead_id} PRIMARY KEY (id);
CREATE UNIQUE INDEX {ix_jobs_seq} ON {jobs} (seq);
CREATE UNIQUE INDEX {ix_finished_seq} ON {finished} (seq);
CREATE UNIQUE INDEX {ix_dead_seq} ON {dead} (seq);

CREATE INDEX {ix_ready} ON {jobs} (queue, lane, priority DESC, due, seq) WHERE {claimable};
CREATE INDEX {ix_due} ON {jobs} (queue, due) WHERE {stageable};
CREATE INDEX {ix_stage} ON {jobs} (due) WHERE {stageable};
CREATE INDEX {ix_lease} ON {jobs} (lease_until) WHERE {running};
CREATE INDEX {ix_request} ON {jobs} (request_id) WHERE {running};
CREATE INDEX {ix_asked} ON {jobs} (worker_id) WHERE cancel_requested;
CREATE INDEX {ix_expiry} ON {jobs} (expires_at) WHERE expires_at IS NOT NULL AND {lapsable};
CREATE INDEX {ix_key} ON {jobs} (unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX {ix_finished_forget} ON {finished} (forget_at) WHERE forget_at IS NOT NULL;
CREATE INDEX {ix_dead_forget} ON {dead} (forget_at) WHERE forget_at IS NOT NULL;

CREATE VIEW {all_jobs} AS
    SELECT * FROM {jobs} UNION ALL SELECT * FROM {finished} UNION ALL SELECT * FROM {dead};

-- An edge is stored with its successor. from_id is NULL once the predecessor is forgotten.
CREATE TABLE {edges} (
    to_id text COLLATE "C" NOT NULL,
    n integer NOT NULL,
    to_seq bigint NOT NULL,
    from_id text COLLATE "C",
    asks text COLLATE "C" NOT NULL,
    fired boolean,
    PRIMARY KEY (to_id, n)
);
CREATE INDEX {ix_edges_from} ON {edges} (from_id, to_seq) WHERE from_id IS NOT NULL;

-- Jobs whose edges have yet to be told what became of them.
CREATE TABLE {releases} (n bigserial PRIMARY KEY, id text COLLATE "C" NOT NULL);

CREATE TABLE {paused} (queue text COLLATE "C" PRIMARY KEY);
