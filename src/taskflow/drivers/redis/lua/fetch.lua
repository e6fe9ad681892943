-- Reads jobs. args: ids. Answers row, spec, result, error and progress of each, a list for each kind.
local reply = {}
for n, name in ipairs({'row', 'spec', 'result', 'error', 'progress'}) do
  reply[n] = call('HMGET', NS .. name, unpack(args))
end
return reply
