-- Accepting jobs.

CREATE TYPE {draft} AS (n integer, job {jobs}, on_conflict text, after text);

-- The arrays of a call as rows that are not stored yet; each takes its place by p_base.
CREATE FUNCTION {f_drafts}({draft_parameters}, p_base bigint, p_now bigint)
RETURNS SETOF {draft} LANGUAGE sql IMMUTABLE AS $$
    SELECT d.n::integer,
        ROW(p_base + d.n, d.due, p_now, NULL, NULL, NULL, NULL, p_now + d.expires_in, d.delay,
            d.eta, d.result_ttl, d.failed_ttl, d.priority, 0, d.max_attempts, 0, 0, 0, 0, NULL,
            false, CASE WHEN d.due > p_now THEN '{scheduled}' ELSE '{available}' END, d.id,
            d.kind, d.queue, d.lane, NULL, NULL, NULL, NULL, NULL, '', d.tags, d.unique_key,
            d.unique_states, NULL, NULL, NULL, d.spec)::{jobs},
        d.on_conflict, d.after
    FROM (
        SELECT *, coalesce(u.eta, p_now + u.delay) AS due
        FROM unnest({draft_arrays}) WITH ORDINALITY AS u({draft_names}, n)) AS d
$$;

CREATE FUNCTION {f_base}() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT nextval('{counter_text}'::regclass) * 1024
$$;

-- Lock those that hold the key, unless one of them runs: then none is left locked, for this
-- transaction may be a caller's own and stay open for long, and the lease must be renewed.
CREATE FUNCTION {f_hold_idle}(p_key text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_state text;
BEGIN
    FOR v_state IN
        SELECT state FROM {jobs}
        WHERE unique_key = p_key AND state = ANY (string_to_array(unique_states, ','))
        ORDER BY seq FOR UPDATE
    LOOP
        IF v_state = '{running_state}' THEN RAISE EXCEPTION USING ERRCODE = 'TF001'; END IF;
    END LOOP;
    RETURN true;
EXCEPTION
    WHEN SQLSTATE 'TF001' THEN RETURN false;
END $$;

-- One job by the book: known ids, predecessors, its unique key.
CREATE FUNCTION {f_accept}(d {draft}, p_now bigint, OUT verdict text, OUT holder text)
LANGUAGE plpgsql AS $$
DECLARE
    r {jobs} := d.job;
    v_edges text[] := string_to_array(d.after, E'\x1e');
    v_spec bytea;
    h {jobs};
BEGIN
    holder := r.id;
    IF r.unique_key IS NOT NULL THEN
        PERFORM {f_lock_key}(r.unique_key);
    END IF;
    SELECT spec INTO v_spec FROM {all_jobs} WHERE id = r.id;
    IF FOUND THEN
        verdict := CASE WHEN v_spec = r.spec THEN '{duplicate}' ELSE '{conflict}' END;
        RETURN;
    END IF;
    IF EXISTS (
        SELECT FROM unnest(v_edges) AS e
        WHERE {f_hold_state}(split_part(e, E'\x1f', 1)) IS NULL)
    THEN
        verdict := '{orphan}';
        RETURN;
    END IF;
    IF r.unique_key IS NOT NULL THEN
        FOR h IN
            SELECT * FROM {jobs}
            WHERE unique_key = r.unique_key AND state = ANY (string_to_array(unique_states, ','))
            ORDER BY seq
        LOOP
            holder := CASE WHEN verdict IS NULL THEN h.id ELSE holder END;
            verdict := CASE
                WHEN d.on_conflict = '{keep}' THEN '{held}'
                WHEN d.on_conflict = '{raise}' OR h.state = '{running_state}'
                     OR verdict = '{conflict}' THEN '{conflict}'
                ELSE '{accepted}' END;
        END LOOP;
        IF verdict IS NOT NULL THEN
            IF verdict = '{accepted}' AND NOT {f_hold_idle}(r.unique_key) THEN
                verdict := '{conflict}';
            END IF;
            IF verdict <> '{accepted}' THEN RETURN; END IF;
        END IF;
        FOR h IN
            SELECT * FROM {jobs}
            WHERE unique_key = r.unique_key AND state = ANY (string_to_array(unique_states, ','))
            ORDER BY seq
        LOOP
            h.state := '{cancelled}';
            PERFORM {f_end}(h, p_now, '{replaced}');
        END LOOP;
    END IF;
    verdict := '{accepted}';
    holder := r.id;
    INSERT INTO {edges} (to_id, n, to_seq, from_id, asks, fired)
        SELECT r.id, e.n, r.seq, split_part(e.edge, E'\x1f', 1), split_part(e.edge, E'\x1f', 2),
            {f_fires}(split_part(e.edge, E'\x1f', 2),
                      {f_hold_state}(split_part(e.edge, E'\x1f', 1)))
        FROM unnest(v_edges) WITH ORDINALITY AS e(edge, n);
    IF EXISTS (SELECT FROM {edges} WHERE to_id = r.id AND fired IS NOT TRUE) THEN
        r.state := '{waiting}';
    END IF;
    INSERT INTO {jobs} SELECT r.* ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND OR EXISTS (SELECT FROM {finished} WHERE id = r.id)
        OR EXISTS (SELECT FROM {dead} WHERE id = r.id)
    THEN
        -- Somebody stored this very id meanwhile: have the whole call begun again.
        RAISE serialization_failure USING MESSAGE = 'two callers store one id';
    END IF;
    IF r.state <> '{waiting}' THEN
        PERFORM {f_work}(r.queue, r.lane);
    ELSE
        PERFORM {f_weigh}(r.id, p_now);
    END IF;
END $$;

-- Returns no verdicts when every job was accepted. Gives up a lock after p_patience.
CREATE FUNCTION {f_enqueue}({draft_parameters}, p_plain boolean, p_shift bigint, p_patience text,
    OUT verdicts text[], OUT holders text[], OUT news text)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_base bigint := {f_base}();
    v_stored text[];
    v_id text;
    v_accepted record;
    d {draft};
BEGIN
    PERFORM {f_begin}(), set_config('lock_timeout', p_patience, true);
    IF p_plain THEN
        WITH stored AS (
            INSERT INTO {jobs}
            SELECT (x.job).* FROM {f_drafts}({draft_names_p}, v_base, v_now) AS x
            ORDER BY (x.job).id
            ON CONFLICT (id) DO NOTHING RETURNING id)
        SELECT array_agg(id) INTO v_stored FROM stored;
        -- Looked up after the insert: a job that ended meanwhile is found in the one or the other.
        PERFORM FROM unnest(v_stored) AS s(id) CROSS JOIN LATERAL (
            SELECT FROM {finished} AS f WHERE f.id = s.id
            UNION ALL SELECT FROM {dead} AS f WHERE f.id = s.id OFFSET 0) AS known;
        IF NOT FOUND AND cardinality(v_stored) = cardinality(p_id) THEN
            news := '';
            RETURN;
        END IF;
        FOREACH v_id IN ARRAY coalesce(v_stored, ARRAY[]::text[]) LOOP
            DELETE FROM {jobs} WHERE id = v_id;
        END LOOP;
    END IF;
    FOR d IN SELECT * FROM {f_drafts}({draft_names_p}, v_base, v_now) LOOP
        v_accepted := {f_accept}(d, v_now);
        verdicts := verdicts || v_accepted.verdict;
        holders := holders || v_accepted.holder;
    END LOOP;
    news := {f_news}();
END $$;

-- A snapshot that was taken long ago does not show jobs that ended since: only a unique index
-- does, by a serialization failure. p_ids were stored just now.
CREATE FUNCTION {f_reveal}(p_ids text[]) RETURNS void LANGUAGE plpgsql {settings} AS $$
DECLARE
    r {jobs};
BEGIN
    FOR r IN
        SELECT j.* FROM unnest(p_ids) AS i(id) CROSS JOIN LATERAL (
            SELECT * FROM {jobs} AS h WHERE h.id = i.id OFFSET 0) AS j
    LOOP
        INSERT INTO {finished} SELECT r.* ON CONFLICT (id) DO NOTHING;
        INSERT INTO {dead} SELECT r.* ON CONFLICT (id) DO NOTHING;
        DELETE FROM {finished} WHERE seq = r.seq;
        DELETE FROM {dead} WHERE seq = r.seq;
    END LOOP;
END $$;

-- The same within a caller's own transaction, whose commit sends the news (p_work, to begin with)
-- to p_channel.
CREATE FUNCTION {f_enqueue_on}({draft_parameters}, p_plain boolean, p_shift bigint,
    p_channel text, p_work text, OUT verdicts text[], OUT holders text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_patience text := current_setting('lock_timeout');
    v_is_frozen boolean := current_setting('transaction_isolation') NOT LIKE 'read %';
    v_news text;
BEGIN
    IF v_is_frozen AND num_nonnulls(VARIADIC p_unique_key) > 0 THEN
        RAISE feature_not_supported USING MESSAGE = 'a transaction that is '
            || current_setting('transaction_isolation') || ' does not see who holds a unique key: '
            'use READ COMMITTED, or give the job an id of its own instead of the key';
    END IF;
    SELECT e.verdicts, e.holders, e.news INTO verdicts, holders, v_news
    FROM {f_enqueue}({draft_names_p}, p_plain, p_shift,
        CASE v_patience WHEN '0' THEN '10s' ELSE v_patience END) AS e;
    IF v_is_frozen THEN
        PERFORM {f_reveal}(ARRAY(
            SELECT i.id FROM unnest(p_id, verdicts) AS i(id, verdict)
            WHERE coalesce(i.verdict, '{accepted}') = '{accepted}'));
    END IF;
    IF verdicts IS NULL OR '{accepted}' = ANY (verdicts) THEN
        -- The same news twice in one transaction are one notification, if they read the same.
        v_news := array_to_string(ARRAY(
            SELECT DISTINCT i.item FROM unnest(string_to_array(p_work || v_news, E'\x1e')) AS i(item)
            WHERE i.item <> '' ORDER BY i.item), E'\x1e');
        PERFORM pg_notify(p_channel,
            CASE WHEN octet_length(v_news) > {longest} THEN '{anything}' ELSE v_news END)
        WHERE p_channel IS NOT NULL;
    END IF;
END $$;
