-- Tries what a worker does on a key that nobody has, and leaves nothing. No args. Answers the first
-- refusal for want of a right, and that of a message; '' where there is none.
local key = NS .. 'probe'
local asks = {
  {'HSET', key, 'a', 1}, {'HINCRBY', key, 'a', 1}, {'HGET', key, 'a'}, {'HMGET', key, 'a'},
  {'HGETALL', key}, {'HKEYS', key}, {'HEXISTS', key, 'a'}, {'HDEL', key, 'a'}, {'EXISTS', key},
  {'INCRBY', key, 1}, {'GET', key}, {'DEL', key},
  {'RPUSH', key, 'a'}, {'LINDEX', key, 0}, {'LPOP', key},
  {'SADD', key, 'a'}, {'SMEMBERS', key}, {'SREM', key, 'a'},
  {'ZADD', key, 1, 'a'}, {'ZCARD', key}, {'ZCOUNT', key, 0, 1}, {'ZRANGE', key, 0, 0},
  {'ZRANGEBYSCORE', key, 0, 1}, {'ZREVRANGEBYSCORE', key, 1, 0}, {'ZSCORE', key, 'a'},
  {'ZREM', key, 'a'},
}
local function refused(ask)
  local found = redis.pcall(unpack(ask))
  local text = type(found) == 'table' and found.err or ''
  -- A store without room is one to work off, and servers before 7 have no code for it.
  if text:find('NOPERM', 1, true) or text:find('user executing', 1, true) then
    return ask[1] .. ': ' .. text
  end
end
local reply = {'', refused({'PUBLISH', NS .. 'work', encode({})}) or ''}
for _, ask in ipairs(asks) do
  reply[1] = refused(ask) or ''
  if reply[1] ~= '' then
    break
  end
end
redis.pcall('DEL', key)
return reply
