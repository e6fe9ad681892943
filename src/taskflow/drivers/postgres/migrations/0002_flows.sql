-- Ends of jobs, and what they mean to their successors. Functions that clients call begin with
-- {f_begin} and hand back {f_news}; the others are theirs.
--
-- Plans are made once a session, often when the tables are empty, and kept while these grow. So
-- the indexes are forced: rows are looked up one by one through LATERAL ... OFFSET 0 or in a loop,
-- never by a join or = ANY, which would read a table whole that seemed to be small.

CREATE FUNCTION {f_now}(p_shift bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + p_shift
$$;

-- One call's news and its budget of edges live in settings that end with the transaction.
CREATE FUNCTION {f_begin}() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('taskflow.news', '', true), set_config('taskflow.budget', '{call_edges}', true);
END $$;

CREATE FUNCTION {f_news}() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT current_setting('taskflow.news')
$$;

CREATE FUNCTION {f_note}(p_item text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_news text := current_setting('taskflow.news');
BEGIN
    IF strpos(v_news || E'\x1e', E'\x1e' || p_item || E'\x1e') = 0 THEN
        PERFORM set_config('taskflow.news', v_news || E'\x1e' || p_item, true);
    END IF;
END $$;

CREATE FUNCTION {f_work}(p_queue text, p_lane text) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT {f_note}('w' || E'\x1f' || p_lane || E'\x1f' || p_queue)
$$;

-- Where a job stands; it stays so until the transaction ends. NULL: there is none.
CREATE FUNCTION {f_hold_state}(p_id text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_state text;
BEGIN
    LOOP
        SELECT state INTO v_state FROM {jobs} WHERE id = p_id FOR KEY SHARE;
        IF FOUND THEN RETURN v_state; END IF;
        SELECT state INTO v_state FROM {finished} WHERE id = p_id FOR KEY SHARE;
        IF FOUND THEN RETURN v_state; END IF;
        SELECT state INTO v_state FROM {dead} WHERE id = p_id FOR KEY SHARE;
        IF FOUND THEN RETURN v_state; END IF;
        -- It may have moved between the looks.
        IF NOT EXISTS (SELECT FROM {all_jobs} WHERE id = p_id) THEN RETURN NULL; END IF;
    END LOOP;
END $$;

-- The job itself, locked, from whichever table it is in.
CREATE FUNCTION {f_lock}(p_id text) RETURNS {jobs} LANGUAGE plpgsql AS $$
DECLARE
    r {jobs};
BEGIN
    LOOP
        SELECT * INTO r FROM {jobs} WHERE id = p_id FOR UPDATE;
        IF FOUND THEN RETURN r; END IF;
        SELECT * INTO r FROM {finished} WHERE id = p_id FOR UPDATE;
        IF FOUND THEN RETURN r; END IF;
        SELECT * INTO r FROM {dead} WHERE id = p_id FOR UPDATE;
        IF FOUND THEN RETURN r; END IF;
        IF NOT EXISTS (SELECT FROM {all_jobs} WHERE id = p_id) THEN RETURN NULL; END IF;
    END LOOP;
END $$;

CREATE FUNCTION {f_lock_key}(p_key text) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(hashtextextended(p_key, {salt_key}))
$$;

CREATE FUNCTION {f_is_held}(p_key text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (
        SELECT FROM {jobs}
        WHERE unique_key = p_key AND state = ANY (string_to_array(unique_states, ',')))
$$;

-- Whether a predecessor in this state lets its successor go; NULL: it has not ended.
CREATE FUNCTION {f_fires}(p_asks text, p_state text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p_state NOT IN ({final}) THEN NULL
        WHEN p_asks = '{on_end}' THEN true
        WHEN p_asks = '{on_success}' THEN p_state = '{completed}'
        ELSE p_state = '{failed}' END
$$;

CREATE FUNCTION {f_ttl}(r {jobs}) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN r.state = '{failed}' THEN r.failed_ttl ELSE r.result_ttl END
$$;

-- Out of the hot table, into the one of its state.
CREATE FUNCTION {f_put_away}(r {jobs}) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {jobs} WHERE seq = r.seq;
    r.lease_until := NULL;
    r.forget_at := r.finished_at + {f_ttl}(r);
    IF r.state = '{failed}' THEN
        INSERT INTO {dead} SELECT r.*;
    ELSE
        INSERT INTO {finished} SELECT r.*;
    END IF;
    PERFORM {f_note}('f');
END $$;

-- And back again.
CREATE FUNCTION {f_take_back}(r {jobs}) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {finished} WHERE seq = r.seq;
    DELETE FROM {dead} WHERE seq = r.seq;
    r.finished_at := NULL;
    r.forget_at := NULL;
    INSERT INTO {jobs} SELECT r.*;
END $$;

CREATE FUNCTION {f_leads}(p_id text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT FROM {edges} WHERE from_id = p_id);
END $$;

CREATE FUNCTION {f_release_later}(p_id text) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO {releases} (id)
    SELECT p_id WHERE EXISTS (SELECT FROM {edges} WHERE from_id = p_id)
$$;

-- An edge of this job changed: unblock it, skip it, or have it wait again.
CREATE FUNCTION {f_weigh}(p_id text, p_now bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r {jobs};
    v_hopeless boolean;
    v_clear boolean;
BEGIN
    -- Locked before its edges are read: two predecessors may end at one time.
    r := {f_lock}(p_id);
    SELECT coalesce(bool_or(fired IS FALSE), false), coalesce(bool_and(fired IS TRUE), true)
        INTO v_hopeless, v_clear FROM {edges} WHERE to_id = p_id;
    IF r.state = '{cancelled}' AND r.reason = '{skipped}' THEN
        IF v_hopeless THEN RETURN; END IF;
        IF r.unique_key IS NOT NULL THEN
            PERFORM {f_lock_key}(r.unique_key);
            IF {f_is_held}(r.unique_key) THEN RETURN; END IF;
        END IF;
        r.state := '{waiting}';
        r.reason := '';
        r.finished_at := NULL;
        PERFORM {f_take_back}(r);
        PERFORM {f_release_later}(p_id);
    END IF;
    IF r.state IS DISTINCT FROM '{waiting}' THEN RETURN; END IF;
    IF v_hopeless THEN
        r.state := '{cancelled}';
        r.reason := '{skipped}';
        r.finished_at := p_now;
        PERFORM {f_put_away}(r);
        PERFORM {f_release_later}(p_id);
    ELSIF v_clear THEN
        r.due := coalesce(r.eta, p_now + r.delay);
        r.state := CASE WHEN r.due > p_now THEN '{scheduled}' ELSE '{available}' END;
        UPDATE {jobs} SET due = r.due, state = r.state WHERE seq = r.seq;
        PERFORM {f_work}(r.queue, r.lane);
    END IF;
END $$;

-- Bring up to p_limit edges from a job in line with its state; returns how many differed.
CREATE FUNCTION {f_tell}(p_id text, p_limit integer, p_now bigint) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_state text := {f_hold_state}(p_id);
    v_told integer := 0;
    e record;
BEGIN
    FOR e IN
        SELECT to_id, n, CASE WHEN v_state IS NULL THEN false ELSE {f_fires}(asks, v_state) END AS fires
        FROM {edges}
        WHERE from_id = p_id
          AND fired IS DISTINCT FROM
              CASE WHEN v_state IS NULL THEN false ELSE {f_fires}(asks, v_state) END
        ORDER BY to_seq LIMIT p_limit
    LOOP
        UPDATE {edges} SET fired = e.fires WHERE to_id = e.to_id AND n = e.n;
        PERFORM {f_weigh}(e.to_id, p_now);
        v_told := v_told + 1;
    END LOOP;
    IF v_state IS NULL AND v_told < p_limit THEN
        UPDATE {edges} SET from_id = NULL WHERE from_id = p_id;
    END IF;
    RETURN v_told;
END $$;

-- Tell a job's edges its state: at once where they are few, else later, some at a time.
CREATE FUNCTION {f_sync}(p_id text, p_now bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_budget integer := current_setting('taskflow.budget')::integer;
    v_count integer;
BEGIN
    SELECT count(*) INTO v_count FROM (
        SELECT FROM {edges} WHERE from_id = p_id LIMIT {job_edges} + 1) AS few;
    IF v_count > least({job_edges}, v_budget) THEN
        INSERT INTO {releases} (id) VALUES (p_id);
    ELSIF v_count > 0 THEN
        PERFORM set_config('taskflow.budget', (v_budget - v_count)::text, true);
        PERFORM {f_tell}(p_id, v_count + 1, p_now);
    END IF;
END $$;

-- Work off what ends before left undone.
CREATE FUNCTION {f_release}(p_now bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_budget integer := {call_edges};
    v_told integer;
    e record;
BEGIN
    WHILE v_budget > 0 LOOP
        SELECT n, id INTO e FROM {releases} ORDER BY n LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        v_told := {f_tell}(e.id, v_budget, p_now);
        v_budget := v_budget - v_told;
        EXIT WHEN v_budget <= 0;
        DELETE FROM {releases} WHERE n = e.n;
    END LOOP;
END $$;

-- A job in the hot table has reached the final state that the row names.
CREATE FUNCTION {f_end}(r {jobs}, p_now bigint, p_reason text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    r.reason := p_reason;
    r.finished_at := p_now;
    PERFORM {f_put_away}(r);
    PERFORM {f_sync}(r.id, p_now);
END $$;
