-- Pauses or resumes queues. args: is a pause, queues. Writes paused.
local is_pause, queues = args[1], args[2]
drain()
for _, queue in ipairs(queues) do
  if is_pause then
    call('SADD', NS .. 'paused', queue)
  elseif call('SREM', NS .. 'paused', queue) == 1 then
    works[#works + 1] = {queue, false}
  end
end
publish()
return ''
