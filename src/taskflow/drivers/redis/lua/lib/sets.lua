-- The sets follow from what became of the rows: `flush` writes both.

local lease_end
local new_specs, new_results, new_errors, new_after = {}, {}, {}, {}
-- What leaves and enters, by set; where there are many sets of a kind, by name.
local out, into, drop, add, no_later, new_later, no_wait, new_wait, no_ask, new_ask, let_go, taken

local function begin()
  out, into, no_later, new_later, no_wait, new_wait = {}, {}, {}, {}, {}, {}
  no_ask, new_ask, let_go, taken = {}, {}, {}, {}
  drop = {leases = {}, ended = {}, expiries = {}}
  add = {leases = {}, ended = {}, expiries = {}, all = {}}
end

local function leave(id, row, old)
  if old == 'available' then
    push(out, place_of(id), member(id))
  elseif old == 'running' then
    local list = drop.leases
    list[#list + 1] = id
    let_go[row[REQUEST]] = (let_go[row[REQUEST]] or 0) + 1
    if row[ASKED] then push(no_ask, row[WORKER], id) end
  elseif old == 'scheduled' or old == 'retryable' then
    push(no_later, queue_of(id), id)
  elseif old == 'waiting' then
    push(no_wait, queue_of(id), id)
  else
    push(drop, 'ended', id)
  end
end

local function enter(id, row, state)
  if state == 'running' then
    push(add, 'leases', text(lease_end), id)
    push(taken, row[REQUEST], id)
    return
  end
  if state == 'available' then
    push(into, place_of(id), score(id, row), member(id))
  elseif state == 'waiting' then
    push(new_wait, queue_of(id), fixed(id)[SEQ], id)
  else
    push(new_later, queue_of(id), text(row[DUE]), id)
  end
  local part = fixed(id)
  if part[EXPIRES_IN] then
    push(add, 'expiries', text(part[ENQUEUED] + part[EXPIRES_IN]), id)
  end
end

-- Final, whether it was before or not: it may have ended anew.
local function enter_final(id, row, state, old)
  local part = fixed(id)
  local ttl = part[state == 'failed' and FAILED_TTL or RESULT_TTL]
  if ttl then
    push(add, 'ended', text(row[FINISHED] + ttl), id)
  end
  if part[EXPIRES_IN] then
    push(drop, 'expiries', id)
  end
  if old ~= state and state ~= 'cancelled' then
    local queue = queue_of(id)
    ended_now[queue] = (ended_now[queue] or 0) + 1
  end
end

local function follow_ready()
  for place, list in pairs(out) do
    send('ZREM', NS .. 'ready:' .. place, list)
    if call('EXISTS', NS .. 'ready:' .. place) == 0 then
      call('ZREM', NS .. 'busy', place)
    end
  end
  for place, list in pairs(into) do
    local key = NS .. 'ready:' .. place
    if call('EXISTS', key) == 0 then
      call('ZADD', NS .. 'busy', 0, place)
      works[#works + 1] = split(place)
    end
    send('ZADD', key, list)
  end
end

local function follow_due(queue)
  local first = call('ZRANGE', NS .. 'later:' .. queue, 0, 0, 'WITHSCORES')
  if not first[1] then
    call('ZREM', NS .. 'dues', queue)
    return
  end
  local known = call('ZSCORE', NS .. 'dues', queue)
  if known ~= first[2] then
    call('ZADD', NS .. 'dues', first[2], queue)
    if not known or tonumber(first[2]) < tonumber(known) then
      works[#works + 1] = {queue, false}
    end
  end
end

local function send_all(command, kind, lists)
  for name, list in pairs(lists) do
    send(command, NS .. kind .. name, list)
  end
end

local function follow_requests()
  for request, by in pairs(let_go) do
    if call('HINCRBY', NS .. 'holding', request, -by) <= 0 then
      call('HDEL', NS .. 'holding', request)
      call('HDEL', NS .. 'held', request)
    end
  end
  for request, list in pairs(taken) do
    call('HSET', NS .. 'holding', request, #list)
    call('HSET', NS .. 'held', request, encode(list))
  end
end

local function follow()
  follow_ready()
  send_all('ZREM', '', drop)
  send_all('ZADD', '', add)
  send_all('ZREM', 'later:', no_later)
  send_all('ZADD', 'later:', new_later)
  for queue in pairs(no_later) do follow_due(queue) end
  for queue in pairs(new_later) do
    if not no_later[queue] then follow_due(queue) end
  end
  send_all('ZREM', 'waiting:', no_wait)
  send_all('ZADD', 'waiting:', new_wait)
  send_all('SREM', 'asked:', no_ask)
  send_all('SADD', 'asked:', new_ask)
  follow_requests()
end

local function forget(ids)
  for _, name in ipairs({'row', 'spec', 'result', 'error', 'progress', 'after'}) do
    send('HDEL', NS .. name, ids)
  end
  send('ZREM', NS .. 'all', ids)
  send('ZREM', NS .. 'expiries', ids)
end

local function end_of_seq()
  if call('EXISTS', NS .. 'all') == 0 then
    call('DEL', NS .. 'seq')
  end
end

local function follow_counts()
  for queue, states in pairs(tally) do
    for state, by in pairs(states) do
      add_up(NS .. 'counts', queue .. '\0' .. state, by)
    end
  end
  for queue, by in pairs(ended_now) do
    call('HINCRBY', NS .. 'lately', second_of(now, queue), by)
  end
end

local function note(id, row, old, state)
  if old ~= state then
    local queue = queue_of(id)
    if old then
      leave(id, row, old)
      count(queue, old, -1)
    else
      push(add, 'all', sub(member(id), 1, 16), id)
    end
    if state then
      count(queue, state, 1)
      if not FINAL[state] then enter(id, row, state) end
    end
  end
  if FINAL[state] then
    enter_final(id, row, state, old)
  elseif state == 'running' and row[ASKED] then
    push(new_ask, row[WORKER], id)
  end
end

local function encoded(id, row)
  local kind = plain[id]
  if not kind then return sub(encode(row), 5) end
  local same = plain_rows[kind]
  if not same then
    same = sub(encode(row), 5)
    plain_rows[kind] = same
  end
  return same
end

-- The common case of `note`: a new job, due, and nothing else to be said of it.
local function note_plain(id, row)
  local part = fixed(id)
  local place = part[PLACE]
  local name = format('%016d', part[SEQ])
  members[id] = name .. id
  local list = add.all
  local size = #list
  list[size + 1], list[size + 2] = name, id
  push(into, place, score(id, row), members[id])
  count(split(place)[1], row[STATE], 1)
end

local function flush()
  local stored, size, deleted = {}, 0, {}
  begin()
  for _, id in ipairs(touched) do
    local row = rows[id]
    if row then
      local raw = encoded(id, row) .. tails[id]
      packed[id] = raw
      stored[size + 1], stored[size + 2] = id, raw
      size = size + 2
      if plain[id] and row[STATE] == FRESH.due and not fixed(id)[EXPIRES_IN] then
        note_plain(id, row)
      else
        note(id, row, olds[id], row[STATE])
      end
    else
      deleted[#deleted + 1] = id
      note(id, gone[id], olds[id], false)
    end
  end
  follow()
  send('HSET', ROW, stored)
  send('HSET', SPEC, new_specs)
  send('HSET', NS .. 'after', new_after)
  send('HSET', NS .. 'result', new_results)
  send('HSET', NS .. 'error', new_errors)
  if #deleted > 0 then
    forget(deleted)
    end_of_seq()
  end
  follow_counts()
  touched, olds, gone, tally, ended_now = {}, {}, {}, {}, {}
  new_specs, new_results, new_errors, new_after = {}, {}, {}, {}
  plain = {}
end

local function done()
  flush()
  publish()
end
