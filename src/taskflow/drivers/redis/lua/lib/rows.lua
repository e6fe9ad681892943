-- What every operation stands on: arguments, time, rows, and the sets that follow from the rows.
--
-- KEYS[1]  {namespace}: the hash tag that all keys share, so that they live in one slot
-- ARGV[1]  microseconds by which time is shifted (tests)
-- ARGV[2]  the operation's arguments, msgpack
-- ARGV[3…] bytes that the arguments name by number, from 1
--
-- Before this text stand, made from the law of jobs by scripts.py: LAW, FINAL, FRESH, FIRES,
-- JOB_EDGES, CALL_EDGES, SKIPPED.
--
-- Keys, after "{namespace}:" (all vanish when they are empty):
--   row           hash  id → row, see below           spec      hash  id → the encoded JobSpec
--   result        hash  id → bytes                    error     hash  id → msgpack
--   progress      hash  id → msgpack                  after     hash  id → [[predecessor, on], …]
--   all           zset  seq, id: every job            seq       the last seq
--   ready:<place> zset  score below, <seq, 16 digits><id>: available jobs of one queue and lane
--   busy          zset  0, place: those with ready jobs
--   later:<queue> zset  due, id: scheduled and retryable jobs
--   dues          zset  the earliest due time, queue
--   waiting:<queue> zset seq, id
--   leases        zset  until, id: running jobs       held:<request id>  set  ids
--   asked:<worker id>   set  ids of running jobs whose cancellation was asked for
--   expiries      zset  time, id: may not start after it
--   ended         zset  time, id: may be forgotten from it on; not those that are kept for ever
--   key:<key>     zset  seq, id: jobs that hold a unique key now
--   next:<id>     zset  10·on + fired, <on><id>: edges to successors; fired: 0 not yet, 1 yes, 2 no
--   untold        list  ids of jobs whose edges have yet to be told what became of them
--   counts        hash  <queue>\0<state> → jobs        lately  hash  <second>\0<queue> → ended then
--   paused        set   queues
-- Channels: work, final, cancel.
--
-- A place is <queue>\0<lane>. The score of a ready job is -priority·2^42 + due in ms since 2020.
-- A row is FIELDS msgpack values and one array, which never changes (FIXED below). All times are
-- microseconds; 0 and '' are none.
local STATE, DELIVERY, REQUEST, ASKED, PLACE, SEQ, DUE, ATTEMPT = 2, 3, 4, 5, 6, 7, 8, 9
local CRASHES, INTERRUPTIONS, PARKS, WORKER, ENQUEUED, STARTED = 10, 11, 12, 13, 14, 15
local FINISHED, EXPIRES, REASON, FIN, PENDING, BAD, LINKS = 16, 17, 18, 19, 20, 21, 22
local KEY, RESULT_TTL, FAILED_TTL = 23, 24, 25
local FIELDS = 24
-- FIXED
local PRIORITY, MAX_ATTEMPTS, DELAY, ETA, KEY_STATES = 1, 2, 3, 4, 5

local call, decode, encode = redis.call, cmsgpack.unpack, cmsgpack.pack
local format, sub, floor, concat = string.format, string.sub, math.floor, table.concat
local NS = KEYS[1] .. ':'
local ROW, SPEC, LEASES, ENDED = NS .. 'row', NS .. 'spec', NS .. 'leases', NS .. 'ended'
local args = decode(ARGV[2])
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2] + tonumber(ARGV[1])

local function blob(number)
  return ARGV[number + 2]
end

-- The first write of whatever must go on in a full store: after it, nothing is refused.
local function drain()
  call('ZREM', LEASES, '')
end

-- Sends a long list of arguments in bearable parts.
local function send(command, key, list)
  local size = #list
  for first = 1, size, 1000 do
    call(command, key, unpack(list, first, math.min(first + 999, size)))
  end
end

-- Renews leases, given as time and id in turn; never shortens one.
local function lengthen(longer)
  for first = 1, #longer, 1000 do
    call('ZADD', LEASES, 'XX', 'GT', unpack(longer, first, math.min(first + 999, #longer)))
  end
end

local function push(batch, key, one, other)
  local list = batch[key]
  if not list then
    list = {}
    batch[key] = list
  end
  local size = #list
  list[size + 1] = one
  list[size + 2] = other
end

-- ---- rows: false where there is none; `gone` are those that this call deletes

local rows, tails, fixed_parts, gone = {}, {}, {}, {}
local touched, olds = {}, {}
local packed = {}

local function keep(id, raw)
  if not raw then
    rows[id] = false
    return
  end
  local row = {cmsgpack.unpack_limit(raw, FIELDS, 0)}
  tails[id] = sub(raw, row[1] + 1)
  row[1] = 0
  rows[id] = row
end

local function load_all(ids)
  local missing, count = {}, 0
  for _, id in ipairs(ids) do
    if rows[id] == nil then
      count = count + 1
      missing[count] = id
    end
  end
  for first = 1, count, 1000 do
    local last = math.min(first + 999, count)
    local raw = call('HMGET', ROW, unpack(missing, first, last))
    for n = first, last do
      keep(missing[n], raw[n - first + 1])
    end
  end
end

local function load(id)
  if rows[id] == nil then
    keep(id, call('HGET', ROW, id))
  end
  return rows[id]
end

local function fixed(id)
  local found = fixed_parts[id]
  if not found then
    found = decode(tails[id])
    fixed_parts[id] = found
  end
  return found
end

local function touch(id, row)
  if olds[id] == nil then
    olds[id] = row[STATE]
    touched[#touched + 1] = id
  end
end

-- Unique keys follow at once: the next job of this very call may ask for one.
local function hold(id, row)
  if row[KEY] then
    local key = NS .. 'key:' .. row[KEY]
    if rows[id] and fixed(id)[KEY_STATES][row[STATE]] then
      call('ZADD', key, row[SEQ], id)
    else
      call('ZREM', key, id)
    end
  end
end

local function move(id, row, state)
  touch(id, row)
  row[STATE] = state
  hold(id, row)
end

local function delete(id, row)
  touch(id, row)
  gone[id] = row
  rows[id] = false
  hold(id, row)
end

local function due_of(id)
  local found = fixed(id)
  return found[ETA] or now + found[DELAY]
end

-- ---- what this call has to tell

local finals, workers, works = {}, {}, {}

local function publish()
  if #works > 0 then
    call('PUBLISH', NS .. 'work', encode(works))
  end
  for first = 1, #finals, 1000 do
    local ids = {unpack(finals, first, math.min(first + 999, #finals))}
    call('PUBLISH', NS .. 'final', encode(ids))
  end
  if #workers > 0 then
    call('PUBLISH', NS .. 'cancel', encode(workers))
  end
end

-- ---- places

local places = {}

local function place_of(place)
  local found = places[place]
  if not found then
    local queue, lane = string.match(place, '^(.*)%z(%a+)$')
    found = {queue, lane}
    places[place] = found
  end
  return found
end

local function member(id, row)
  return format('%016d', row[SEQ]) .. id
end

local function score(id, row)
  local due = floor(row[DUE] / 1000) - 1577836800000
  if due < 0 then due = 0 elseif due > 4398046511103 then due = 4398046511103 end
  return due - fixed(id)[PRIORITY] * 4398046511104
end

-- ---- counts

local tally = {}

local function count(queue, state, by)
  local states = tally[queue]
  if not states then
    states = {}
    tally[queue] = states
  end
  states[state] = (states[state] or 0) + by
end

local function add_up(key, field, by)
  if by ~= 0 and call('HINCRBY', key, field, by) <= 0 then
    call('HDEL', key, field)
  end
end

local function second_of(row)
  return format('%d', floor(row[FINISHED] / 1000000)) .. '\0' .. place_of(row[PLACE])[1]
end

-- Takes back what an end counted, when it is undone or forgotten within the minute.
local function uncount(row)
  local is_counted = row[STATE] == 'completed' or row[STATE] == 'failed'
  if is_counted and row[FINISHED] > now - 60000000 then
    local field = second_of(row)
    if call('HEXISTS', NS .. 'lately', field) == 1 then
      add_up(NS .. 'lately', field, -1)
    end
  end
end

local function forget_seconds()
  local oldest = floor(now / 1000000) - 61
  local old = {}
  for _, field in ipairs(call('HKEYS', NS .. 'lately')) do
    if tonumber(string.match(field, '^%d+')) < oldest then
      old[#old + 1] = field
    end
  end
  send('HDEL', NS .. 'lately', old)
end

-- ---- flush: the sets follow from what became of the rows

local lease_end
local new_specs, new_results, new_errors, new_after = {}, {}, {}, {}

local function leave(id, row, old, out, drop)
  if old == 'available' then
    push(out, row[PLACE], member(id, row))
  elseif old == 'scheduled' or old == 'retryable' then
    push(drop, 'later:' .. place_of(row[PLACE])[1], id)
  elseif old == 'waiting' then
    push(drop, 'waiting:' .. place_of(row[PLACE])[1], id)
  elseif old == 'running' then
    push(drop, 'leases', id)
    push(drop, 'held:' .. row[REQUEST], id)
    if row[ASKED] then
      push(drop, 'asked:' .. row[WORKER], id)
    end
  else
    push(drop, 'ended', id)
  end
end

local function enter(id, row, state, into, add)
  if state == 'available' then
    push(into, row[PLACE], score(id, row), member(id, row))
  elseif state == 'scheduled' or state == 'retryable' then
    push(add, 'later:' .. place_of(row[PLACE])[1], row[DUE], id)
  elseif state == 'waiting' then
    push(add, 'waiting:' .. place_of(row[PLACE])[1], row[SEQ], id)
  elseif state == 'running' then
    push(add, 'leases', lease_end, id)
    push(add, 'held:' .. row[REQUEST], id)
  end
  if row[EXPIRES] > 0 and state ~= 'running' then
    push(add, 'expiries', row[EXPIRES], id)
  end
end

-- Final, whether it was before or not: it may have ended anew.
local function enter_final(id, row, state, old, drop, add)
  local ttl = row[state == 'failed' and FAILED_TTL or RESULT_TTL]
  if ttl then
    push(add, 'ended', row[FINISHED] + ttl, id)
  end
  if row[EXPIRES] > 0 then
    push(drop, 'expiries', id)
  end
  if old ~= state and state ~= 'cancelled' then
    call('HINCRBY', NS .. 'lately', second_of(row), 1)
  end
end

local function follow_ready(out, into)
  for place, members in pairs(out) do
    send('ZREM', NS .. 'ready:' .. place, members)
    if call('EXISTS', NS .. 'ready:' .. place) == 0 then
      call('ZREM', NS .. 'busy', place)
    end
  end
  for place, members in pairs(into) do
    local key = NS .. 'ready:' .. place
    if call('EXISTS', key) == 0 then
      call('ZADD', NS .. 'busy', 0, place)
      works[#works + 1] = place_of(place)
    end
    send('ZADD', key, members)
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

local function is_set(name)
  return sub(name, 1, 5) == 'held:' or sub(name, 1, 6) == 'asked:'
end

local function follow(drop, add)
  local queues = {}
  for name, list in pairs(drop) do
    send(is_set(name) and 'SREM' or 'ZREM', NS .. name, list)
    if sub(name, 1, 6) == 'later:' then queues[sub(name, 7)] = true end
  end
  for name, list in pairs(add) do
    send(is_set(name) and 'SADD' or 'ZADD', NS .. name, list)
    if sub(name, 1, 6) == 'later:' then queues[sub(name, 7)] = true end
  end
  for queue in pairs(queues) do
    follow_due(queue)
  end
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

local function flush()
  local out, into, drop, add = {}, {}, {}, {}
  local stored, size, deleted = {}, 0, {}
  for _, id in ipairs(touched) do
    local row, old = rows[id], olds[id]
    local state = row and row[STATE]
    if not row then
      row = gone[id]
      deleted[#deleted + 1] = id
    else
      packed[id] = sub(encode(row), 5) .. tails[id]
      stored[size + 1], stored[size + 2] = id, packed[id]
      size = size + 2
    end
    if old ~= state then
      local queue = place_of(row[PLACE])[1]
      if old then
        leave(id, row, old, out, drop)
        count(queue, old, -1)
      else
        push(add, 'all', row[SEQ], id)
      end
      if state then
        count(queue, state, 1)
        if not FINAL[state] then enter(id, row, state, into, add) end
      end
    end
    if state then
      if FINAL[state] then
        enter_final(id, row, state, old, drop, add)
      elseif state == 'running' and row[ASKED] then
        push(add, 'asked:' .. row[WORKER], id)
      end
    end
  end
  follow_ready(out, into)
  follow(drop, add)
  send('HSET', ROW, stored)
  send('HSET', SPEC, new_specs)
  send('HSET', NS .. 'after', new_after)
  send('HSET', NS .. 'result', new_results)
  send('HSET', NS .. 'error', new_errors)
  if #deleted > 0 then
    forget(deleted)
    end_of_seq()
  end
  for queue, states in pairs(tally) do
    for state, by in pairs(states) do
      add_up(NS .. 'counts', queue .. '\0' .. state, by)
    end
  end
  touched, olds, gone, tally = {}, {}, {}, {}
  new_specs, new_results, new_errors, new_after = {}, {}, {}, {}
end

local function done()
  flush()
  publish()
end
