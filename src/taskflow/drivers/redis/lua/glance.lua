-- What a wait is about, as it is now. args: queues, others, lanes, ids, worker id ('' for none),
-- ids whose cancellation is known. Answers [work, finals, cancels, µs until the next due time or
-- false]. Writes nothing.
local queues, others, lanes, ids, worker, known = unpack(args)
local paused, named = {}, {}
for _, queue in ipairs(call('SMEMBERS', NS .. 'paused')) do
  paused[queue] = true
end
for _, queue in ipairs(queues) do
  named[queue] = true
end

local function is_served(queue)
  return not paused[queue] and (others or named[queue])
end

-- Whether a job of these lanes is due that nobody has staged.
local function has_due(queue)
  local due = call('ZRANGEBYSCORE', NS .. 'later:' .. queue, '-inf', now, 'LIMIT', 0, 100)
  load_all(due)
  for _, id in ipairs(due) do
    if lanes[split(place_of(id))[2]] then return true end
  end
  return false
end

local function has_work()
  if others then
    for _, place in ipairs(call('ZRANGE', NS .. 'busy', 0, -1)) do
      local at = split(place)
      if lanes[at[2]] and is_served(at[1]) then return true end
    end
  else
    for _, queue in ipairs(queues) do
      for lane in pairs(lanes) do
        if not paused[queue] and call('EXISTS', NS .. 'ready:' .. queue .. '\0' .. lane) == 1 then
          return true
        end
      end
    end
  end
  return false
end

local function dues()
  if others then return call('ZRANGE', NS .. 'dues', 0, -1, 'WITHSCORES') end
  local found = {}
  for _, queue in ipairs(queues) do
    local due = call('ZSCORE', NS .. 'dues', queue)
    if due then
      found[#found + 1] = queue
      found[#found + 1] = due
    end
  end
  return found
end

local work, due_in = has_work(), false
if not work then
  local known_dues = dues()
  for n = 1, #known_dues, 2 do
    if is_served(known_dues[n]) then
      local left = tonumber(known_dues[n + 1]) - now
      if left > 0 then
        if not due_in or left < due_in then due_in = left end
      elseif has_due(known_dues[n]) then
        work = true
      end
    end
  end
end
local ended = {}
load_all(ids)
for _, id in ipairs(ids) do
  if not rows[id] or FINAL[rows[id][STATE]] then ended[#ended + 1] = id end
end
local cancels = false
if worker ~= '' then
  for _, id in ipairs(call('SMEMBERS', NS .. 'asked:' .. worker)) do
    if not known[id] then cancels = true end
  end
end
return encode({work, ended, cancels, due_in})
