-- What people ask for.

CREATE FUNCTION {f_cancel}(p_ids text[], p_shift bigint, OUT verdicts text[], OUT news text)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_id text;
    r {jobs};
BEGIN
    PERFORM {f_begin}();
    PERFORM {f_lock}(i.id) FROM (SELECT u.id FROM unnest(p_ids) AS u(id) ORDER BY u.id) AS i;
    FOREACH v_id IN ARRAY p_ids LOOP
        r := {f_lock}(v_id);
        IF r.id IS NULL THEN
            verdicts := verdicts || '{unknown}'::text;
        ELSIF r.state IN ({final}) THEN
            verdicts := verdicts || '{is_final}'::text;
        ELSIF r.state = '{running_state}' THEN
            UPDATE {jobs} SET cancel_requested = true WHERE seq = r.seq;
            PERFORM {f_note}('c' || E'\x1f' || r.worker_id);
            verdicts := verdicts || '{requested}'::text;
        ELSE
            r.state := '{cancelled}';
            PERFORM {f_end}(r, v_now, '{cancelled}');
            verdicts := verdicts || '{cancelled}'::text;
        END IF;
    END LOOP;
    news := {f_news}();
END $$;

CREATE FUNCTION {f_replay}(p_ids text[], p_shift bigint, OUT verdicts text[], OUT news text)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_id text;
    r {jobs};
BEGIN
    PERFORM {f_begin}();
    PERFORM {f_lock_key}(k) FROM (
        SELECT DISTINCT j.unique_key AS k FROM unnest(p_ids) AS i(id) CROSS JOIN LATERAL (
            SELECT unique_key FROM {all_jobs} WHERE id = i.id OFFSET 0) AS j
        WHERE j.unique_key IS NOT NULL ORDER BY 1) AS keys;
    FOREACH v_id IN ARRAY p_ids LOOP
        r := {f_lock}(v_id);
        IF r.id IS NULL THEN
            verdicts := verdicts || '{unknown}'::text;
        ELSIF r.state NOT IN ({replayable}) THEN
            verdicts := verdicts || '{refused}'::text;
        ELSIF r.unique_key IS NOT NULL AND {f_is_held}(r.unique_key) THEN
            verdicts := verdicts || '{replay_conflict}'::text;
        ELSE
            r.state := '{available}';
            r.attempt := 0;
            r.crashes := 0;
            r.interruptions := 0;
            r.parks := 0;
            r.cancel_requested := false;
            r.reason := '';
            r.expires_at := NULL;
            r.due := v_now;
            PERFORM {f_take_back}(r);
            PERFORM {f_work}(r.queue, r.lane);
            PERFORM {f_sync}(r.id, v_now);
            verdicts := verdicts || '{replayed}'::text;
        END IF;
    END LOOP;
    news := {f_news}();
END $$;

-- Up to p_limit jobs of the queue that are not younger than p_before.
CREATE FUNCTION {f_purge}(p_queue text, p_before bigint, p_limit integer, p_shift bigint,
    OUT count integer, OUT before bigint, OUT news text)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_ids text[];
    v_id text;
    v_grave text;
BEGIN
    PERFORM {f_begin}();
    before := coalesce(p_before, v_now);
    WITH chosen AS MATERIALIZED (
        SELECT seq FROM {jobs}
        WHERE queue = p_queue AND state <> '{running_state}' AND enqueued_at <= before
        ORDER BY seq LIMIT p_limit FOR UPDATE),
    gone AS (DELETE FROM {jobs} AS j USING chosen WHERE j.seq = chosen.seq RETURNING j.seq, j.id)
    SELECT array_agg(id ORDER BY seq) INTO v_ids FROM gone;
    count := coalesce(cardinality(v_ids), 0);
    IF count > 0 THEN
        PERFORM {f_note}('f');
        DELETE FROM {edges} WHERE to_id = ANY (v_ids);
        FOR v_id IN
            SELECT DISTINCT from_id FROM {edges} WHERE from_id = ANY (v_ids)
        LOOP
            -- A later job with this id is another one.
            v_grave := E'\x1e' || nextval('{counter_text}'::regclass);
            UPDATE {edges} SET from_id = v_grave WHERE from_id = v_id;
            PERFORM {f_sync}(v_grave, v_now);
        END LOOP;
    END IF;
    news := {f_news}();
END $$;

CREATE FUNCTION {f_is_awaited}(p_id text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    e record;
BEGIN
    FOR e IN SELECT to_id FROM {edges} WHERE from_id = p_id LOOP
        IF EXISTS (SELECT FROM {jobs} WHERE id = e.to_id) THEN RETURN true; END IF;
    END LOOP;
    RETURN false;
END $$;

CREATE FUNCTION {f_forget}(p_id text, p_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {finished} WHERE seq = p_seq;
    DELETE FROM {dead} WHERE seq = p_seq;
    -- What its edges have become stays with the successors.
    UPDATE {edges} SET from_id = NULL WHERE from_id = p_id;
    DELETE FROM {edges} WHERE to_id = p_id;
END $$;

CREATE FUNCTION {f_prune}(p_limit integer, p_keep bigint, p_shift bigint) RETURNS integer
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_count integer := 0;
    r record;
BEGIN
    FOR r IN
        SELECT id, seq FROM {finished}
        WHERE forget_at <= v_now AND finished_at <= v_now - p_keep AND NOT {f_is_awaited}(id)
        ORDER BY forget_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM {f_forget}(r.id, r.seq);
        v_count := v_count + 1;
    END LOOP;
    FOR r IN
        SELECT id, seq FROM {dead}
        WHERE forget_at <= v_now AND finished_at <= v_now - p_keep AND NOT {f_is_awaited}(id)
        ORDER BY forget_at LIMIT p_limit - v_count FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM {f_forget}(r.id, r.seq);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;

CREATE FUNCTION {f_fetch}(p_ids text[])
RETURNS TABLE ({record_types}, result bytea, id text) LANGUAGE plpgsql {settings} AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT {record}, j.result, j.id
    FROM unnest(p_ids) AS i(id) CROSS JOIN LATERAL (
        SELECT * FROM {all_jobs} AS a WHERE a.id = i.id OFFSET 0) AS j;
END $$;

-- What a wait is about, as it is now.
CREATE FUNCTION {f_glance}(p_queues text[], p_others boolean, p_lanes text[], p_ids text[],
    p_worker text, p_cancelling text[], p_shift bigint,
    OUT work boolean, OUT finals text[], OUT cancels boolean)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_paused text[] := ARRAY(SELECT p.queue FROM {paused} AS p);
    v_queue text := '';
BEGIN
    work := EXISTS (
        SELECT FROM unnest(p_queues) AS q(queue)
        WHERE q.queue <> ALL (v_paused) AND (
            EXISTS (SELECT FROM {jobs} AS j
                WHERE {claimable} AND j.queue = q.queue AND j.lane = ANY (p_lanes))
            OR EXISTS (SELECT FROM {jobs} AS j
                WHERE {stageable} AND j.queue = q.queue AND j.due <= v_now
                  AND j.lane = ANY (p_lanes))));
    WHILE p_others AND NOT work LOOP
        SELECT j.queue INTO v_queue FROM {jobs} AS j
        WHERE {claimable} AND j.queue > v_queue ORDER BY j.queue LIMIT 1;
        EXIT WHEN NOT FOUND;
        work := v_queue <> ALL (v_paused) AND EXISTS (
            SELECT FROM {jobs} AS j
            WHERE {claimable} AND j.queue = v_queue AND j.lane = ANY (p_lanes));
    END LOOP;
    IF p_others AND NOT work THEN
        work := EXISTS (
            SELECT FROM {jobs} AS j
            WHERE {stageable} AND j.due <= v_now AND j.queue <> ALL (v_paused)
              AND j.lane = ANY (p_lanes));
    END IF;
    finals := ARRAY(
        SELECT i.id FROM unnest(p_ids) AS i(id)
        WHERE (SELECT j.seq FROM {jobs} AS j WHERE j.id = i.id) IS NULL);
    cancels := p_worker IS NOT NULL AND EXISTS (
        SELECT FROM {jobs} AS j
        WHERE j.cancel_requested AND {running} AND j.worker_id = p_worker
          AND j.id <> ALL (p_cancelling));
END $$;
