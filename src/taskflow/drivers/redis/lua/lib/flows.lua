-- Ends of jobs, and what they mean to the successors.

local edge_budget = CALL_EDGES

-- What an edge's mark ought to be: 0 not ended, 1 lets go, 2 will not.
local function mark_of(on, id)
  local row = rows[id]
  if not row then return 2 end
  return FIRES[on + 1][row[STATE]]
end

local function skip(id, row)
  move(id, row, LAW.skip[row[STATE]])
  row[REASON], row[FINISHED] = SKIPPED, now
  finals[#finals + 1] = id
  if row[LINKS] > 0 then
    call('RPUSH', NS .. 'untold', id)
  end
end

local function rejoin(id, row)
  if row[BAD] > 0 or (row[KEYED] and is_key_held(id)) then
    return
  end
  move(id, row, LAW.rejoin[row[STATE]])
  row[REASON], row[FINISHED] = '', 0
  if row[LINKS] > 0 then
    call('RPUSH', NS .. 'untold', id)
  end
end

-- An edge of this job changed: unblock it, skip it, or have it wait again.
local function weigh(id)
  local row = load(id)
  if not row then return end
  if LAW.rejoin[row[STATE]] and row[REASON] == SKIPPED then
    rejoin(id, row)
  end
  if row[STATE] ~= FRESH.blocked then return end
  if row[BAD] > 0 then
    skip(id, row)
  elseif row[PENDING] == 0 then
    local due = due_of(id)
    move(id, row, due > now and FRESH.later or FRESH.due)
    row[DUE] = due
  end
end

-- Edges that say otherwise than they ought to, `limit` at most: mark, member, mark, member …
local function untold_edges(id, limit)
  local key, found, marks = NS .. 'next:' .. id, {}, {}
  for on = 0, 2 do
    local mark = mark_of(on, id)
    for was = 0, 2 do
      if was ~= mark and #found < limit then
        local at = on * 10 + was
        local members = call('ZRANGEBYSCORE', key, at, at, 'LIMIT', 0, limit - #found)
        for _, name in ipairs(members) do
          found[#found + 1] = name
          marks[#found] = {was, mark, on * 10 + mark}
        end
      end
    end
  end
  return found, marks
end

local function is_told(id)
  local key = NS .. 'next:' .. id
  local told = 0
  for on = 0, 2 do
    told = told + call('ZCOUNT', key, on * 10 + 2, on * 10 + 2)
  end
  return told == call('ZCARD', key)
end

local function tell(id, limit)
  load(id)
  local key = NS .. 'next:' .. id
  local names, marks = untold_edges(id, limit)
  local ids, scores = {}, {}
  for n, name in ipairs(names) do
    ids[n] = sub(name, 2)
    scores[2 * n - 1], scores[2 * n] = marks[n][3], name
  end
  load_all(ids)
  send('ZADD', key, scores)
  for n, successor in ipairs(ids) do
    local row, was, mark = rows[successor], marks[n][1], marks[n][2]
    if row then
      touch(successor, row)
      row[PENDING] = row[PENDING] - (was == 0 and 1 or 0) + (mark == 0 and 1 or 0)
      row[BAD] = row[BAD] - (was == 2 and 1 or 0) + (mark == 2 and 1 or 0)
      weigh(successor)
    end
  end
  if not rows[id] and is_told(id) then
    call('DEL', key)
  end
  return #names
end

-- Tell a job's edges its state: at once where they are few, else later, some at a time.
local function sync(id, row)
  local links = row[LINKS]
  if links == 0 then return end
  if links > math.min(JOB_EDGES, edge_budget) then
    call('RPUSH', NS .. 'untold', id)
  else
    edge_budget = edge_budget - links
    tell(id, links)
  end
end

-- Work off what ends before this call left undone.
local function release_successors()
  local key, budget = NS .. 'untold', CALL_EDGES
  for _ = 1, 1000 do
    local id = budget > 0 and call('LINDEX', key, 0)
    if not id then return end
    budget = budget - tell(id, budget)
    if budget > 0 then
      call('LPOP', key)
    end
  end
end

local function finish(id, row, state, reason, result)
  move(id, row, state)
  row[REASON], row[FINISHED] = reason, now
  if result and (fixed(id)[RESULT_TTL] ~= 0 or row[LINKS] > 0) then
    new_results[#new_results + 1] = id
    new_results[#new_results + 1] = result
  end
  finals[#finals + 1] = id
  sync(id, row)
end

-- Forget the edges that lead to jobs which are deleted.
local function cut(ids)
  if #ids == 0 or call('EXISTS', NS .. 'after') == 0 then return end
  local found = call('HMGET', NS .. 'after', unpack(ids))
  for n, id in ipairs(ids) do
    for _, edge in ipairs(found[n] and decode(found[n]) or {}) do
      local name = edge[2] .. id
      if call('ZREM', NS .. 'next:' .. edge[1], name) == 1 and load(edge[1]) then
        touch(edge[1], rows[edge[1]])
        rows[edge[1]][LINKS] = rows[edge[1]][LINKS] - 1
      end
    end
  end
end
