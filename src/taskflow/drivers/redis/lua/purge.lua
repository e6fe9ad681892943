-- needs: flows
-- Deletes some of a queue's jobs that neither run nor have ended, and skips their successors.
-- args: queue, the last seq to delete (0: the present last). Answers how many were deleted, that
-- seq, and whether there may be more. Successors go before what they wait for.
local queue, last = args[1], args[2]
local STEP, SCAN = 500, 2000
if last == 0 then last = tonumber(call('GET', NS .. 'seq') or 0) end
local ids, looked = {}, 0

local function gather(command, key, prefix)
  local offset = 0
  while #ids < STEP and looked < SCAN do
    local found = call(command, key, offset, offset + STEP - 1)
    local all = {}
    for n, name in ipairs(found) do
      all[n] = sub(name, prefix + 1)
    end
    load_all(all)
    for _, id in ipairs(all) do
      if #ids < STEP and fixed(id)[SEQ] <= last then ids[#ids + 1] = id end
    end
    offset, looked = offset + #found, looked + #found
    if #found < STEP then return end
  end
end

drain()
gather('ZREVRANGE', NS .. 'waiting:' .. queue, 0)
gather('ZRANGE', NS .. 'later:' .. queue, 0)
for _, lane in ipairs({'async', 'thread', 'process'}) do
  gather('ZRANGE', NS .. 'ready:' .. queue .. '\0' .. lane, 16)
end
local purged = {}
for n, id in ipairs(ids) do
  purged[n] = rows[id]
  delete(id, rows[id])
  finals[#finals + 1] = id
end
cut(ids)
for n, id in ipairs(ids) do
  sync(id, purged[n])
end
done()
return encode({#ids, last, #ids > 0 and (#ids == STEP or looked >= SCAN)})
