-- Ends of attempts. A call holds each job at most once. What many changes have in common, most often
-- all but the id, comes once: a change names its way by number. There are no verdicts and no states
-- when every change was applied and nobody's cancellation was asked for.

-- Rows are looked up by id and locked in the order of ids, by everybody. What is asked of their
-- state (written so that no index of it fits) is asked of the row found: else the planner, with
-- statistics of a moment when nothing ran, walks all that runs now for each of them.

CREATE FUNCTION {f_settle}({change_parameters}, p_shift bigint,
    OUT verdicts text[], OUT states text[], OUT news text)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_now bigint := {f_now}(p_shift);
    v_numbers bigint[];
    v_states text[];
    v_asked boolean;
    v_ended text[];
    v_moved bigint[];
    v_moved_states text[];
    v_places text[];
    v_fin record;
    v_id text;
BEGIN
    PERFORM {f_begin}();
    -- Most changes end their job, whatever else was asked: these need no look first.
    WITH gone AS (
        DELETE FROM {jobs} AS j USING (
            SELECT * FROM unnest({change_arrays})
                WITH ORDINALITY AS u({change_names}, n) WHERE w_ends[u.way] ORDER BY u.id) AS c
        WHERE j.id = c.id AND j.state || '' = '{running_state}' AND j.delivery = c.delivery
          AND j.request_id = w_request[c.way]
        RETURNING j.*, c.n, c.way,
            CASE WHEN j.cancel_requested THEN w_asked[c.way] ELSE w_plain[c.way] END AS now_state,
            CASE WHEN j.result_ttl IS DISTINCT FROM 0 OR {f_leads}(j.id) THEN c.result END
                AS new_result),
    finished AS (
        INSERT INTO {finished} SELECT {ended} FROM gone WHERE now_state <> '{failed}'),
    dead AS (
        INSERT INTO {dead} SELECT {ended} FROM gone WHERE now_state = '{failed}')
    SELECT array_agg(n), array_agg(now_state), array_agg(id ORDER BY n), bool_or(cancel_requested)
        INTO v_numbers, v_states, v_ended, v_asked FROM gone;
    IF false = ANY (w_ends) THEN
        WITH held AS MATERIALIZED (
            SELECT c.*, j.seq,
                CASE WHEN j.cancel_requested THEN w_asked[c.way] ELSE w_plain[c.way] END AS state
            FROM (
                SELECT * FROM unnest({change_arrays})
                    WITH ORDINALITY AS u({change_names}, n)
                WHERE NOT w_ends[u.way] ORDER BY u.id) AS c
            CROSS JOIN LATERAL (
                SELECT h.seq, h.state, h.delivery, h.request_id, h.cancel_requested
                FROM {jobs} AS h WHERE h.id = c.id OFFSET 0 FOR UPDATE) AS j
            WHERE j.state = '{running_state}' AND j.delivery = c.delivery
              AND j.request_id = w_request[c.way]),
        gone AS (
            DELETE FROM {jobs} AS j USING held AS h
            WHERE j.seq = h.seq AND h.state IN ({final})
            RETURNING j.*, h.way, h.state AS now_state, NULL::bytea AS new_result),
        finished AS (
            INSERT INTO {finished} SELECT {ended} FROM gone),
        moved AS (
            UPDATE {jobs} AS j SET
                state = h.state, reason = w_reason[h.way], lease_until = NULL,
                due = CASE h.state WHEN '{available}' THEN j.due ELSE v_now + w_delay[h.way] END,
                attempt = j.attempt - w_refund[h.way],
                interruptions = j.interruptions + w_interrupted[h.way],
                parks = j.parks + w_parked[h.way], error = coalesce(w_error[h.way], j.error),
                fin_delivery = h.delivery, fin_request = j.request_id, fin_event = w_event[h.way],
                fin_state = h.state
            FROM held AS h
            WHERE j.seq = h.seq AND h.state NOT IN ({final})
            RETURNING j.queue, j.lane)
        SELECT array_agg(h.n), array_agg(h.state),
               v_ended || array_agg(h.id ORDER BY h.n) FILTER (WHERE h.state IN ({final})),
               (SELECT array_agg(DISTINCT lane || E'\x1f' || queue) FROM moved)
            INTO v_moved, v_moved_states, v_ended, v_places FROM held AS h;
        v_numbers := v_numbers || v_moved;
        v_states := v_states || v_moved_states;
        v_asked := true;
        IF v_places IS NOT NULL THEN
            PERFORM {f_note}('w' || E'\x1f' || p.place) FROM unnest(v_places) AS p(place);
        END IF;
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
    IF v_asked OR cardinality(v_numbers) IS DISTINCT FROM cardinality(c_id) THEN
        verdicts := array_fill('{applied}'::text, ARRAY[cardinality(c_id)]);
        states := array_fill(NULL::text, ARRAY[cardinality(c_id)]);
        FOR i IN 1 .. coalesce(cardinality(v_numbers), 0) LOOP
            states[v_numbers[i]] := v_states[i];
        END LOOP;
        FOR i IN 1 .. cardinality(c_id) LOOP
            CONTINUE WHEN states[i] IS NOT NULL;
            SELECT fin_state INTO v_fin FROM {all_jobs}
            WHERE id = c_id[i] AND fin_delivery = c_delivery[i]
              AND fin_request = w_request[c_way[i]] AND fin_event = w_event[c_way[i]];
            verdicts[i] := CASE WHEN FOUND THEN '{already}' ELSE '{lost}' END;
            states[i] := CASE WHEN FOUND THEN v_fin.fin_state END;
        END LOOP;
    END IF;
    news := {f_news}();
END $$;

-- The same, with jobs to enqueue in the step of the change whose number p_owners says.
CREATE FUNCTION {f_settle_and_follow}({change_parameters}, p_shift bigint, p_owners integer[],
    {draft_parameters}, OUT verdicts text[], OUT states text[], OUT news text)
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
    FROM {f_settle}({change_arguments}, p_shift) AS s;
    v_now := {f_now}(p_shift);
    FOR d IN SELECT * FROM {f_drafts}({draft_names_p}, v_base, v_now) LOOP
        IF verdicts IS NULL OR verdicts[p_owners[d.n]] = '{applied}' THEN
            PERFORM {f_accept}(d, v_now);
        END IF;
    END LOOP;
    news := {f_news}();
END $$;
