-- What people ask for.

CREATE FUNCTION {f_cancel}(p_ids text[], p_shift bigint, OUT verdicts text[], OUT news text)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_id text;
    r {jobs};
BEGIN
    PERFORM {f_begin}();
    PERFORM FROM {jobs} WHERE id = ANY (p_ids) ORDER BY id FOR UPDATE;
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
        SELECT DISTINCT unique_key AS k FROM {all_jobs}
        WHERE id = ANY (p_ids) AND unique_key IS NOT NULL ORDER BY 1) AS keys;
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

CREATE FUNCTION {f_prune}(p_limit integer, p_keep bigint, p_shift bigint) RETURNS integer
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_ids text[];
    v_more text[];
    v_seqs bigint[];
BEGIN
    WITH chosen AS MATERIALIZED (
        SELECT f.seq FROM {finished} AS f
        WHERE f.forget_at <= v_now AND f.finished_at <= v_now - p_keep AND NOT EXISTS (
            SELECT FROM {edges} AS e JOIN {jobs} AS j ON j.id = e.to_id WHERE e.from_id = f.id)
        ORDER BY f.forget_at LIMIT p_limit FOR UPDATE OF f SKIP LOCKED),
    gone AS (
        DELETE FROM {finished} AS f USING chosen WHERE f.seq = chosen.seq RETURNING f.id, f.seq)
    SELECT array_agg(id), array_agg(seq) INTO v_ids, v_seqs FROM gone;
    WITH chosen AS MATERIALIZED (
        SELECT f.seq FROM {dead} AS f
        WHERE f.forget_at <= v_now AND f.finished_at <= v_now - p_keep AND NOT EXISTS (
            SELECT FROM {edges} AS e JOIN {jobs} AS j ON j.id = e.to_id WHERE e.from_id = f.id)
        ORDER BY f.forget_at LIMIT p_limit - coalesce(cardinality(v_ids), 0)
        FOR UPDATE OF f SKIP LOCKED),
    gone AS (DELETE FROM {dead} AS f USING chosen WHERE f.seq = chosen.seq RETURNING f.id)
    SELECT array_agg(id) INTO v_more FROM gone;
    v_ids := coalesce(v_ids, ARRAY[]::text[]) || coalesce(v_more, ARRAY[]::text[]);
    DELETE FROM {results} WHERE seq = ANY (v_seqs);
    -- What its edges have become stays with the successors.
    UPDATE {edges} SET from_id = NULL WHERE from_id = ANY (v_ids);
    DELETE FROM {edges} WHERE to_id = ANY (v_ids);
    RETURN cardinality(v_ids);
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
        WHERE NOT EXISTS (SELECT FROM {jobs} AS j WHERE j.id = i.id));
    cancels := p_worker IS NOT NULL AND EXISTS (
        SELECT FROM {jobs} AS j
        WHERE j.cancel_requested AND {running} AND j.worker_id = p_worker
          AND j.id <> ALL (p_cancelling));
END $$;
