-- needs: flows
-- Forgets ended jobs whose time is over. args: limit, µs that they are kept at least.
-- Answers how many. A job whose successors have not all ended stays.
local limit, least = args[1], args[2]
local STEP, SCAN, EDGES = 500, 10000, 2000
local looked_at = 0

local function has_live_successor(id)
  local offset = 0
  while true do
    local names = call('ZRANGE', NS .. 'next:' .. id, offset, offset + STEP - 1)
    if #names == 0 then return false end
    local ids = {}
    for n, name in ipairs(names) do
      ids[n] = sub(name, 2)
    end
    load_all(ids)
    looked_at = looked_at + #ids
    for _, successor in ipairs(ids) do
      if rows[successor] and not FINAL[rows[successor][STATE]] then return true end
    end
    offset = offset + #names
  end
end

local function gather()
  local ids, offset = {}, 0
  while offset < SCAN do
    local found = call('ZRANGEBYSCORE', ENDED, '-inf', now, 'LIMIT', offset, STEP)
    load_all(found)
    for _, id in ipairs(found) do
      if #ids >= limit or looked_at > EDGES then return ids end
      local row = rows[id]
      if row[FINISHED] + least <= now and (row[LINKS] == 0 or not has_live_successor(id)) then
        ids[#ids + 1] = id
      end
    end
    if #found < STEP then return ids end
    offset = offset + #found
  end
  return ids
end

local ids = gather()
drain()
for _, id in ipairs(ids) do
  uncount(id, rows[id])
  if rows[id][LINKS] > 0 then call('DEL', NS .. 'next:' .. id) end
  delete(id, rows[id])
end
for first = 1, #ids, STEP do
  cut({unpack(ids, first, math.min(first + STEP - 1, #ids))})
end
done()
forget_seconds()
return #ids
