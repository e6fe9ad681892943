-- Some jobs, the latest accepted first. args: the seq to begin before (false: the last), how many
-- to look at, the most to answer, states (false: any), queue (false: any), since, until (0: none).
-- Answers the seq to go on before ('' at the end), then row, spec, error and progress of each.
local before, scan, most, states, queue, since, upto = unpack(args)
local MOST_BYTES = 4000000
local top = before and '(' .. format('%.0f', before) or '+inf'
local found = call('ZREVRANGEBYSCORE', NS .. 'all', top, '-inf', 'LIMIT', 0, scan)
load_all(found)

local function is_wanted(id)
  local enqueued = fixed(id)[ENQUEUED]
  return (not states or states[rows[id][STATE]]) and (not queue or queue_of(id) == queue)
    and enqueued >= since and (upto == 0 or enqueued < upto)
end

local reply, size, answered, bytes, last = {''}, 1, 0, 0, nil
for _, id in ipairs(found) do
  if answered == most or bytes > MOST_BYTES then break end
  local row = rows[id]
  last = fixed(id)[SEQ]
  if is_wanted(id) then
    answered = answered + 1
    local spec = call('HGET', SPEC, id)
    bytes = bytes + #spec
    reply[size + 1], reply[size + 2] = sub(encode(row), 5) .. tails[id], spec
    reply[size + 3] = call('HGET', NS .. 'error', id)
    reply[size + 4] = call('HGET', NS .. 'progress', id)
    size = size + 4
  end
end
local is_end = #found < scan and (not last or fixed(found[#found])[SEQ] == last)
if not is_end then reply[1] = format('%.0f', last) end
return reply
