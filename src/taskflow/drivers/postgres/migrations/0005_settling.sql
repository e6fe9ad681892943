-- Ends of attempts. A call holds each job at most once, and returns no verdicts when every change
-- was applied.

CREATE FUNCTION {f_settle}(p_ids text[], p_deliveries integer[], p_requests text[],
    p_events text[], p_states text[], p_asked text[], p_delays bigint[], p_results bytea[],
    p_errors bytea[], p_reasons text[], p_refunds integer[], p_interrupted integer[],
    p_parked integer[], p_shift bigint, OUT verdicts text[], OUT states text[], OUT news text)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_numbers bigint[];
    v_states text[];
    v_ended text[];
    v_places text[];
    v_fin record;
    v_id text;
BEGIN
    PERFORM {f_begin}();
    -- Locked in one order by everybody, and before the rest is read.
    PERFORM FROM (
        SELECT * FROM unnest(p_ids, p_deliveries) AS u(id, delivery) ORDER BY u.id) AS c
    CROSS JOIN LATERAL (
        SELECT FROM {jobs} AS h WHERE h.id = c.id AND h.delivery = c.delivery FOR UPDATE) AS j;
    WITH held AS MATERIALIZED (
        SELECT c.*, j.seq, CASE WHEN j.cancel_requested THEN c.asked ELSE c.plain END AS state
        FROM unnest(p_ids, p_deliveries, p_requests, p_events, p_states, p_asked, p_delays,
                p_results, p_errors, p_reasons, p_refunds, p_interrupted, p_parked)
            WITH ORDINALITY AS c(id, delivery, request, event, plain, asked, delay, result,
                error, reason, refund, interrupted, parked, n)
        CROSS JOIN LATERAL (
            SELECT h.seq, h.state, h.delivery, h.request_id, h.cancel_requested
            FROM {jobs} AS h WHERE h.id = c.id OFFSET 0) AS j
        WHERE j.state = '{running_state}' AND j.delivery = c.delivery
          AND j.request_id IS NOT DISTINCT FROM c.request),
    gone AS (
        DELETE FROM {jobs} AS j USING held AS h
        WHERE j.seq = h.seq AND h.state IN ({final})
        RETURNING j.*, h.state AS now_state, h.event, h.refund, h.interrupted, h.parked,
            h.result, h.error AS new_error,
            CASE h.state WHEN '{cancelled}' THEN '{cancelled}' ELSE h.reason END AS new_reason),
    finished AS (
        INSERT INTO {finished} SELECT {ended} FROM gone WHERE now_state <> '{failed}'),
    dead AS (
        INSERT INTO {dead} SELECT {ended} FROM gone WHERE now_state = '{failed}'),
    kept AS (
        INSERT INTO {results} (seq, result)
        SELECT g.seq, g.result FROM gone AS g
        WHERE g.result IS NOT NULL AND (g.result_ttl IS DISTINCT FROM 0
            OR {f_leads}(g.id))
        ON CONFLICT (seq) DO UPDATE SET result = excluded.result),
    moved AS (
        UPDATE {jobs} AS j SET
            state = h.state, reason = h.reason, lease_until = NULL,
            due = CASE WHEN h.state = '{available}' THEN j.due ELSE v_now + h.delay END,
            attempt = j.attempt - h.refund, interruptions = j.interruptions + h.interrupted,
            parks = j.parks + h.parked, error = coalesce(h.error, j.error),
            fin_delivery = h.delivery, fin_request = h.request, fin_event = h.event,
            fin_state = h.state
        FROM held AS h
        WHERE j.seq = h.seq AND h.state NOT IN ({final})
        RETURNING j.queue, j.lane)
    SELECT array_agg(h.n ORDER BY h.n), array_agg(h.state ORDER BY h.n),
           array_agg(h.id ORDER BY h.n) FILTER (WHERE h.state IN ({final})),
           (SELECT array_agg(DISTINCT lane || E'\x1f' || queue) FROM moved)
        INTO v_numbers, v_states, v_ended, v_places FROM held AS h;
    IF v_places IS NOT NULL THEN
        PERFORM {f_note}('w' || E'\x1f' || p.place) FROM unnest(v_places) AS p(place);
    END IF;
    IF v_ended IS NOT NULL THEN
        PERFORM {f_note}('f');
        FOR v_id IN
            SELECT e.id FROM unnest(v_ended) WITH ORDINALITY AS e(id, n) CROSS JOIN LATERAL (
                SELECT FROM {edges} WHERE from_id = e.id LIMIT 1) AS leads
            ORDER BY e.n
        LOOP
            PERFORM {f_sync}(v_id, v_now);
        END LOOP;
    END IF;
    IF cardinality(v_numbers) = cardinality(p_ids) THEN
        states := v_states;
    ELSE
        verdicts := array_fill('{applied}'::text, ARRAY[cardinality(p_ids)]);
        states := array_fill(NULL::text, ARRAY[cardinality(p_ids)]);
        FOR i IN 1 .. coalesce(cardinality(v_numbers), 0) LOOP
            states[v_numbers[i]] := v_states[i];
        END LOOP;
        FOR i IN 1 .. cardinality(p_ids) LOOP
            CONTINUE WHEN states[i] IS NOT NULL;
            SELECT fin_state INTO v_fin FROM {all_jobs}
            WHERE id = p_ids[i] AND fin_delivery = p_deliveries[i]
              AND fin_request = p_requests[i] AND fin_event = p_events[i];
            verdicts[i] := CASE WHEN FOUND THEN '{already}' ELSE '{lost}' END;
            states[i] := CASE WHEN FOUND THEN v_fin.fin_state END;
        END LOOP;
    END IF;
    news := {f_news}();
END $$;

-- The same, with jobs to enqueue in the step of the change whose number p_owners says.
CREATE FUNCTION {f_settle_and_follow}(p_ids text[], p_deliveries integer[], p_requests text[],
    p_events text[], p_states text[], p_asked text[], p_delays bigint[], p_results bytea[],
    p_errors bytea[], p_reasons text[], p_refunds integer[], p_interrupted integer[],
    p_parked integer[], p_shift bigint, p_owners integer[], {draft_parameters},
    OUT verdicts text[], OUT states text[], OUT news text)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint;
    v_base bigint := {f_base}();
    d {draft};
BEGIN
    -- Keys before rows, as an enqueue takes them.
    PERFORM {f_lock_key}(k) FROM (
        SELECT DISTINCT k FROM unnest(p_unique_key) AS k WHERE k IS NOT NULL ORDER BY k) AS keys;
    SELECT s.verdicts, s.states INTO verdicts, states
    FROM {f_settle}(p_ids, p_deliveries, p_requests, p_events, p_states, p_asked, p_delays,
        p_results, p_errors, p_reasons, p_refunds, p_interrupted, p_parked, p_shift) AS s;
    v_now := {f_now}(p_shift);
    FOR d IN SELECT * FROM {f_drafts}({draft_names_p}, v_base, v_now) LOOP
        IF verdicts IS NULL OR verdicts[p_owners[d.n]] = '{applied}' THEN
            PERFORM {f_accept}(d, v_now);
        END IF;
    END LOOP;
    news := {f_news}();
END $$;
