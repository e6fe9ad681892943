-- What the passing of time does: jobs fall due, leases die, jobs may not start any more.

local STEP = 1000

local function stage()
  local queues = call('ZRANGEBYSCORE', NS .. 'dues', '-inf', now, 'LIMIT', 0, STEP)
  local left = STEP
  for _, queue in ipairs(queues) do
    if left <= 0 then return end
    local ids = call('ZRANGEBYSCORE', NS .. 'later:' .. queue, '-inf', now, 'LIMIT', 0, left)
    left = left - #ids
    load_all(ids)
    for _, id in ipairs(ids) do
      local row = rows[id]
      if LAW.stage[row[STATE]] then move(id, row, LAW.stage[row[STATE]]) end
    end
  end
end

local function expire(limit)
  local ids = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, limit)
  load_all(ids)
  for _, id in ipairs(ids) do
    local row = rows[id]
    move(id, row, LAW.expire[row[STATE]])
    row[CRASHES] = row[CRASHES] + 1
  end
  if ids[1] then flush() end -- for lapse, which looks at the sets
  return ids
end

-- What runs is put here again if it is handed back.
local function lapse()
  local ids = call('ZRANGEBYSCORE', NS .. 'expiries', '-inf', now, 'LIMIT', 0, STEP)
  load_all(ids)
  send('ZREM', NS .. 'expiries', ids)
  for _, id in ipairs(ids) do
    local row = rows[id]
    local state = row and LAW.lapse[row[STATE]]
    if state then finish(id, row, state, 'expired') end
  end
end
