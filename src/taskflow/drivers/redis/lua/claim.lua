-- needs: flows passing
-- Stages, expires, then leases the most urgent jobs.
-- args: queues, others, rooms ([lane, free, ahead] each), lease in µs with grace, request id,
-- worker id. Answers: the time, the next due time, then row and spec of each job.
-- Reads and writes: all but seq and after.
local queues, others, rooms, span, request, worker = unpack(args)
lease_end = now + span
local SCAN = 1000

-- The answer is strings, which the driver need not guess types of.
local function answer(ids)
  local reply, specs = {format('%.0f', now), ''}, {}
  for first = 1, #ids, 1000 do
    local found = call('HMGET', SPEC, unpack(ids, first, math.min(first + 999, #ids)))
    for n, spec in ipairs(found) do
      specs[first + n - 1] = spec
    end
  end
  for n, id in ipairs(ids) do
    reply[2 * n + 1], reply[2 * n + 2] = packed[id], specs[n]
  end
  return reply
end

local paused = {}
for _, queue in ipairs(call('SMEMBERS', NS .. 'paused')) do
  paused[queue] = true
end
local named = {}
for _, queue in ipairs(queues) do
  named[queue] = true
end

local function served()
  local found = {}
  for _, queue in ipairs(queues) do
    if not paused[queue] then found[#found + 1] = queue end
  end
  if others then
    local last
    for _, place in ipairs(call('ZRANGE', NS .. 'busy', 0, -1)) do
      local queue = split(place)[1]
      if queue ~= last and not named[queue] and not paused[queue] then
        found[#found + 1] = queue
      end
      last = queue
    end
  end
  return found
end

local function next_due()
  local first
  if others then
    local known = call('ZRANGE', NS .. 'dues', 0, 0, 'WITHSCORES')
    if known[1] and paused[known[1]] then
      known = call('ZRANGE', NS .. 'dues', 0, -1, 'WITHSCORES')
    end
    for n = 1, #known, 2 do
      if not paused[known[n]] then return known[n + 1] end
    end
    return nil
  end
  for _, queue in ipairs(queues) do
    local due = not paused[queue] and call('ZSCORE', NS .. 'dues', queue)
    if due and (not first or tonumber(due) < tonumber(first)) then first = due end
  end
  return first
end

local function may_go_ahead(id, row)
  return row[CRASHES] == 0 and row[ATTEMPT] + 1 < fixed(id)[MAX_ATTEMPTS]
end

-- Takes from one place what there is room for: score, member and id of each.
local function take(place, room, found)
  local offset = 0
  while room[2] + room[3] > 0 and offset < SCAN do
    local wanted = room[2] + room[3]
    local known = call('ZRANGE', NS .. 'ready:' .. place, offset, offset + wanted - 1, 'WITHSCORES')
    local ids = {}
    for n = 1, #known, 2 do
      local id = sub(known[n], 17)
      ids[#ids + 1] = id
      place_by[id], members[id] = place, known[n]
    end
    load_all(ids)
    for n, id in ipairs(ids) do
      local free = room[2] > 0
      if free or (room[3] > 0 and may_go_ahead(id, rows[id])) then
        room[free and 2 or 3] = room[free and 2 or 3] - 1
        found[#found + 1] = {tonumber(known[2 * n]), known[2 * n - 1], id}
      end
    end
    if #ids < wanted then return end
    offset = offset + wanted
  end
end

local function is_before(one, other)
  if one[1] ~= other[1] then return one[1] < other[1] end
  return one[2] < other[2]
end

local function pick()
  local picked = {}
  for _, queue in ipairs(served()) do
    local found = {}
    for _, room in ipairs(rooms) do
      if room[2] + room[3] > 0 then take(queue .. '\0' .. room[1], room, found) end
    end
    if #rooms > 1 then table.sort(found, is_before) end
    for _, one in ipairs(found) do
      picked[#picked + 1] = one[3]
    end
  end
  return picked
end

local function lease(id)
  local row = rows[id]
  move(id, row, LAW.claim[row[STATE]])
  row[ATTEMPT] = row[ATTEMPT] + 1
  row[DELIVERY] = row[DELIVERY] + 1
  row[REQUEST], row[WORKER], row[STARTED] = request, worker, now
end

-- What is still held under this request: its reply was lost.
local function still_held()
  local known, held = call('HGET', NS .. 'held', request), {}
  if known then
    known = decode(known)
    load_all(known)
    for _, id in ipairs(known) do
      local row = rows[id]
      if row and row[STATE] == 'running' and row[REQUEST] == request then
        held[#held + 1] = id
      end
    end
  end
  return held
end

local ids = still_held()
drain()
if ids[1] then
  local longer = {}
  for n, id in ipairs(ids) do -- the caller counts the lease from now on
    longer[2 * n - 1], longer[2 * n] = lease_end, id
    packed[id] = call('HGET', ROW, id)
  end
  lengthen(longer)
else
  stage()
  expire(1000)
  lapse()
  release_successors()
  if touched[1] then flush() end
  ids = pick()
  for _, id in ipairs(ids) do
    lease(id)
  end
  done()
end
local reply = answer(ids)
reply[2] = next_due() or ''
return reply
