-- What every operation stands on: arguments, time, rows and counts.
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
--   leases        zset  until, id: running jobs
--   held          hash  request id → ids of its claim  holding  hash  request id → jobs still held
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
-- A row is msgpack values one after the other: FIELDS that change, and the rest, which does not and
-- is read only where it is needed (`fixed`). All times are microseconds; 0, '' and false are none.
local STATE, DELIVERY, REQUEST, ASKED, ATTEMPT, CRASHES, INTERRUPTIONS = 2, 3, 4, 5, 6, 7, 8
local PARKS, WORKER, STARTED, DUE, FINISHED, REASON, FIN = 9, 10, 11, 12, 13, 14, 15
local PENDING, BAD, LINKS, KEYED = 16, 17, 18, 19
local FIELDS = 18
-- The rest.
local PLACE, RESULT_TTL, FAILED_TTL, PRIORITY, MAX_ATTEMPTS, DELAY, ETA = 1, 2, 3, 4, 5, 6, 7
local KEY, KEY_STATES, ON_CONFLICT, EXPIRES_IN, SEQ, ENQUEUED = 8, 9, 10, 11, 12, 13

local call, decode, encode = redis.call, cmsgpack.unpack, cmsgpack.pack
local decode_some = cmsgpack.unpack_limit
local format, sub, floor = string.format, string.sub, math.floor
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

-- Times that many jobs share are written out once: a number costs more than a string.
local texts = {}

local function text(number)
  local found = texts[number]
  if not found then
    found = format('%.0f', number)
    texts[number] = found
  end
  return found
end

-- ---- rows: false where there is none; `gone` are those that this call deletes

local rows, tails, fixed_parts, gone = {}, {}, {}, {}
local touched, olds = {}, {}
local packed, members = {}, {}
-- Rows that are as they were made, and what those of one state and due time look like.
local plain, plain_rows = {}, {}

local function keep(id, raw)
  if not raw then
    rows[id] = false
    return
  end
  local row = {decode_some(raw, FIELDS, 0)}
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
    found = {decode(tails[id])}
    fixed_parts[id] = found
  end
  return found
end

-- The one thing that a replay changes of it.
local function never_expires(id)
  local part = fixed(id)
  if part[EXPIRES_IN] then
    part[EXPIRES_IN] = false
    tails[id] = encode(unpack(part))
  end
end

local function touch(id, row)
  plain[id] = nil
  if olds[id] == nil then
    olds[id] = row[STATE]
    touched[#touched + 1] = id
  end
end

-- Unique keys follow at once: the next job of this very call may ask for one.
local function hold(id, row)
  local part = fixed(id)
  local key = NS .. 'key:' .. part[KEY]
  if rows[id] and part[KEY_STATES][row[STATE]] then
    call('ZADD', key, part[SEQ], id)
  else
    call('ZREM', key, id)
  end
end

local function is_key_held(id)
  return call('EXISTS', NS .. 'key:' .. fixed(id)[KEY]) == 1
end

local function move(id, row, state)
  touch(id, row)
  row[STATE] = state
  if row[KEYED] then hold(id, row) end
end

local function delete(id, row)
  touch(id, row)
  gone[id] = row
  rows[id] = false
  if row[KEYED] then hold(id, row) end
end

local function due_of(id)
  local part = fixed(id)
  return part[ETA] or now + part[DELAY]
end

-- ---- what this call has to tell

local finals, workers, works = {}, {}, {}

-- After everything else is done, so it must not fail: who hears nothing looks within a second.
local function publish()
  if #works > 0 then
    redis.pcall('PUBLISH', NS .. 'work', encode(works))
  end
  for first = 1, #finals, 1000 do
    local ids = {unpack(finals, first, math.min(first + 999, #finals))}
    redis.pcall('PUBLISH', NS .. 'final', encode(ids))
  end
  if #workers > 0 then
    redis.pcall('PUBLISH', NS .. 'cancel', encode(workers))
  end
end

-- ---- places

local places, place_by = {}, {}

local function split(place)
  local found = places[place]
  if not found then
    local queue, lane = string.match(place, '^(.*)%z(%a+)$')
    found = {queue, lane}
    places[place] = found
  end
  return found
end

local function place_of(id)
  return place_by[id] or fixed(id)[PLACE]
end

local function queue_of(id)
  return split(place_by[id] or fixed(id)[PLACE])[1]
end

local function member(id)
  local found = members[id]
  if not found then
    found = format('%016d', fixed(id)[SEQ]) .. id
    members[id] = found
  end
  return found
end

local function score(id, row)
  local due = floor(row[DUE] / 1000) - 1577836800000
  if due < 0 then due = 0 elseif due > 4398046511103 then due = 4398046511103 end
  return text(due - fixed(id)[PRIORITY] * 4398046511104)
end

-- ---- counts

local tally, ended_now = {}, {}

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

local function second_of(time, queue)
  return format('%d', floor(time / 1000000)) .. '\0' .. queue
end

-- Takes back what an end counted, when it is undone or forgotten within the minute.
local function uncount(id, row)
  local is_counted = row[STATE] == 'completed' or row[STATE] == 'failed'
  if is_counted and row[FINISHED] > now - 60000000 then
    local field = second_of(row[FINISHED], queue_of(id))
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
