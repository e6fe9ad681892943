-- Handing out work, and taking it back from those who died.

-- Bounded: what is over is left to the next call.
CREATE FUNCTION {f_stage}(p_now bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_place record;
BEGIN
    FOR v_place IN
        WITH due AS MATERIALIZED (
            SELECT seq FROM {jobs} WHERE {stageable} AND due <= p_now
            ORDER BY due LIMIT {sweep} FOR UPDATE SKIP LOCKED),
        staged AS (
            UPDATE {jobs} AS j SET state = '{available}' FROM due WHERE j.seq = due.seq
            RETURNING j.queue, j.lane)
        SELECT DISTINCT queue, lane FROM staged
    LOOP
        PERFORM {f_work}(v_place.queue, v_place.lane);
    END LOOP;
END $$;

CREATE FUNCTION {f_end_dead_leases}(p_now bigint, p_limit integer) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    v_ids text[] := ARRAY[]::text[];
    r record;
BEGIN
    FOR r IN
        WITH late AS MATERIALIZED (
            SELECT seq FROM {jobs} WHERE {running} AND lease_until <= p_now
            ORDER BY lease_until LIMIT p_limit FOR UPDATE SKIP LOCKED)
        UPDATE {jobs} AS j
        SET state = '{available}', crashes = j.crashes + 1, lease_until = NULL
        FROM late WHERE j.seq = late.seq
        RETURNING j.id, j.queue, j.lane
    LOOP
        v_ids := v_ids || r.id;
        PERFORM {f_work}(r.queue, r.lane);
    END LOOP;
    RETURN v_ids;
END $$;

CREATE FUNCTION {f_lapse}(p_now bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r {jobs};
BEGIN
    FOR r IN
        SELECT * FROM {jobs} WHERE {lapsable} AND expires_at <= p_now
        ORDER BY expires_at LIMIT {few} FOR UPDATE SKIP LOCKED
    LOOP
        r.state := '{cancelled}';
        PERFORM {f_end}(r, p_now, '{expired}');
    END LOOP;
END $$;

CREATE FUNCTION {f_expire}(p_limit integer, p_shift bigint, OUT ids text[], OUT news text)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
BEGIN
    PERFORM {f_begin}();
    ids := {f_end_dead_leases}(v_now, p_limit);
    PERFORM {f_stage}(v_now), {f_lapse}(v_now), {f_release}(v_now);
    news := {f_news}();
END $$;

-- Lease up to p_limit jobs of one queue and lane. Those that are to wait first (p_ahead) must
-- have an attempt to spare and no crash behind them, and only the first few are looked at.
CREATE FUNCTION {f_take}(p_queue text, p_lane text, p_limit integer, p_ahead boolean,
    p_until bigint, p_request text, p_worker text, p_now bigint)
RETURNS TABLE ({claimed_types}) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF p_ahead THEN
        RETURN QUERY
        WITH first AS MATERIALIZED (
            SELECT ctid AS place, attempt + 1 < max_attempts AND crashes = 0 AS may_wait
            FROM {jobs}
            WHERE {claimable} AND queue = p_queue AND lane = p_lane
              AND (expires_at IS NULL OR expires_at > p_now)
            ORDER BY priority DESC, due, seq LIMIT p_limit + {few}),
        picked AS MATERIALIZED (
            SELECT j.place FROM first CROSS JOIN LATERAL (
                SELECT h.ctid AS place FROM {jobs} AS h
                WHERE h.ctid = first.place AND h.state || '' = '{available}'
                FOR UPDATE SKIP LOCKED) AS j
            WHERE first.may_wait LIMIT p_limit)
        UPDATE {jobs} AS j SET
            state = '{running_state}', attempt = j.attempt + 1, delivery = j.delivery + 1,
            request_id = p_request, worker_id = p_worker, started_at = p_now,
            lease_until = p_until
        FROM picked WHERE j.ctid = picked.place RETURNING {claimed};
    ELSE
        RETURN QUERY
        WITH picked AS MATERIALIZED (
            SELECT ctid AS place FROM {jobs}
            WHERE {claimable} AND queue = p_queue AND lane = p_lane
              AND (expires_at IS NULL OR expires_at > p_now)
            ORDER BY priority DESC, due, seq LIMIT p_limit FOR UPDATE SKIP LOCKED)
        UPDATE {jobs} AS j SET
            state = '{running_state}', attempt = j.attempt + 1, delivery = j.delivery + 1,
            request_id = p_request, worker_id = p_worker, started_at = p_now,
            lease_until = p_until
        FROM picked WHERE j.ctid = picked.place RETURNING {claimed};
    END IF;
END $$;

-- The jobs, in no order, and a last row without id: now, next due, news.
CREATE FUNCTION {f_claim}(p_queues text[], p_others boolean, p_lanes text[], p_free integer[],
    p_ahead integer[], p_lease bigint, p_request text, p_worker text, p_shift bigint)
RETURNS TABLE ({claimed_types})
LANGUAGE plpgsql {settings} AS $$
#variable_conflict use_column
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_until bigint := v_now + p_lease;
    v_paused text[] := ARRAY(SELECT p.queue FROM {paused} AS p);
    v_queue text := NULL;
    v_last text := '';
    v_next bigint;
    v_count integer;
    v_named integer := 0;
BEGIN
    PERFORM {f_begin}();
    -- The same request may be here twice at one time, when its first reply was lost.
    PERFORM pg_advisory_xact_lock(hashtextextended(p_request, {salt_request}));
    RETURN QUERY
        UPDATE {jobs} AS j SET lease_until = greatest(j.lease_until, v_until)
        WHERE {running} AND j.request_id = p_request
        RETURNING {claimed};
    IF NOT FOUND THEN
        PERFORM {f_stage}(v_now), {f_end_dead_leases}(v_now, {sweep}), {f_lapse}(v_now),
            {f_release}(v_now);
        <<serving>>
        LOOP
            IF v_named < coalesce(cardinality(p_queues), 0) THEN
                v_named := v_named + 1;
                v_queue := p_queues[v_named];
                CONTINUE WHEN v_queue = ANY (v_paused);
            ELSE
                EXIT WHEN NOT p_others;
                SELECT j.queue INTO v_queue FROM {jobs} AS j
                WHERE {claimable} AND j.queue > v_last ORDER BY j.queue LIMIT 1;
                EXIT WHEN NOT FOUND;
                v_last := v_queue;
                CONTINUE WHEN v_queue = ANY (v_paused) OR v_queue = ANY (p_queues);
            END IF;
            FOR i IN 1 .. coalesce(cardinality(p_lanes), 0) LOOP
                IF p_free[i] > 0 THEN
                    RETURN QUERY SELECT * FROM {f_take}(v_queue, p_lanes[i], p_free[i],
                        false, v_until, p_request, p_worker, v_now);
                    GET DIAGNOSTICS v_count = ROW_COUNT;
                    p_free[i] := p_free[i] - v_count;
                END IF;
                IF p_free[i] <= 0 AND p_ahead[i] > 0 THEN
                    RETURN QUERY SELECT * FROM {f_take}(v_queue, p_lanes[i], p_ahead[i],
                        true, v_until, p_request, p_worker, v_now);
                    GET DIAGNOSTICS v_count = ROW_COUNT;
                    p_ahead[i] := p_ahead[i] - v_count;
                END IF;
            END LOOP;
            EXIT serving WHEN 0 >= ALL (p_free) AND 0 >= ALL (p_ahead);
        END LOOP;
    END IF;
    SELECT min(x.due) INTO v_next FROM unnest(p_queues) AS q(queue) CROSS JOIN LATERAL (
        SELECT j.due FROM {jobs} AS j WHERE {stageable} AND j.queue = q.queue
        ORDER BY j.due LIMIT 1) AS x
    WHERE q.queue <> ALL (v_paused);
    IF p_others THEN
        v_next := least(v_next, (
            SELECT j.due FROM {jobs} AS j WHERE {stageable} AND j.queue <> ALL (v_paused)
            ORDER BY j.due LIMIT 1));
    END IF;
    RETURN QUERY SELECT NULL::text, {f_news}(), 0, 0::bigint, 0, 0, 0, 0, 0, false, v_now,
        v_next, NULL::bigint, NULL::bytea;
END $$;

CREATE FUNCTION {f_extend}(p_ids text[], p_deliveries integer[], p_requests text[],
    p_progresses bytea[], p_lease bigint, p_shift bigint)
RETURNS TABLE (n bigint, cancel_requested boolean)
LANGUAGE plpgsql {settings} AS $$
#variable_conflict use_column
DECLARE
    v_until bigint := {f_now}(p_shift) + p_lease;
BEGIN
    RETURN QUERY
    -- Looked up by id and locked in that order; see the settle for how the state is asked.
    UPDATE {jobs} AS j SET
        lease_until = greatest(j.lease_until, v_until),
        progress = coalesce(c.progress, j.progress)
    FROM (
        SELECT * FROM unnest(p_ids, p_deliveries, p_requests, p_progresses)
            WITH ORDINALITY AS u(id, delivery, request, progress, n)
        ORDER BY u.id) AS c
    WHERE j.id = c.id AND j.state || '' = '{running_state}' AND j.delivery = c.delivery
      AND j.request_id = c.request
    RETURNING c.n, j.cancel_requested;
END $$;
