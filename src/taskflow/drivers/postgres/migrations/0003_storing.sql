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
            d.unique_states, NULL, NULL, d.spec)::{jobs},
        d.on_conflict, d.after
    FROM (
        SELECT *, coalesce(u.eta, p_now + u.delay) AS due
        FROM unnest({draft_arrays}) WITH ORDINALITY AS u({draft_names}, n)) AS d
$$;

CREATE FUNCTION {f_base}() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT nextval('{counter_text}'::regclass) * 1024
$$;

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
            ORDER BY seq FOR UPDATE
        LOOP
            holder := CASE WHEN verdict IS NULL THEN h.id ELSE holder END;
            verdict := CASE
                WHEN d.on_conflict = '{keep}' THEN '{held}'
                WHEN d.on_conflict = '{raise}' OR h.state = '{running_state}'
                     OR verdict = '{conflict}' THEN '{conflict}'
                ELSE '{accepted}' END;
        END LOOP;
        IF verdict <> '{accepted}' THEN RETURN; END IF;
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

-- Returns no verdicts when every job was accepted.
CREATE FUNCTION {f_enqueue}({draft_parameters}, p_plain boolean, p_shift bigint,
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
    PERFORM {f_begin}();
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
