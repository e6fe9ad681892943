-- needs: flows passing
-- Counts by queue and state, paused queues, the oldest due time of each place with ready jobs, and
-- what ended in the last minute. Answers [counts, paused, [queue, age in µs], [queue, ended]].
drain()
stage()
done()

local function oldest(place)
  local key, from, due = NS .. 'ready:' .. place, '-inf', nil
  for _ = 1, 201 do -- one look for each priority there is
    local first = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then break end
    local row = load(sub(first[1], 17))
    due = math.min(due or row[DUE], row[DUE])
    from = format('%.0f', (floor(tonumber(first[2]) / 4398046511104) + 1) * 4398046511104)
  end
  return now - due
end

local ages = {}
for _, place in ipairs(call('ZRANGE', NS .. 'busy', 0, -1)) do
  ages[#ages + 1] = {split(place)[1], oldest(place)}
end
local ended, lately = {}, call('HGETALL', NS .. 'lately')
for n = 1, #lately, 2 do
  local second, queue = string.match(lately[n], '^(%d+)%z(.*)$')
  if tonumber(second) > floor(now / 1000000) - 60 then
    ended[#ended + 1] = {queue, tonumber(lately[n + 1])}
  end
end
return encode({call('HGETALL', NS .. 'counts'), call('SMEMBERS', NS .. 'paused'), ages, ended})
