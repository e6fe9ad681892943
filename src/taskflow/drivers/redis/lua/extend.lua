-- Renews leases and stores progress; never shortens a lease.
-- args: lease in µs with grace, then ids, deliveries, request ids, and for each the number of its
-- progress or 0. Reads row; writes leases, progress.
local span, ids, deliveries, requests, notes = unpack(args)
local longer, told, verdicts = {}, {}, {}
load_all(ids)
for n, id in ipairs(ids) do
  local row = rows[id]
  verdicts[n] = 'lost'
  if row and row[STATE] == 'running' and row[DELIVERY] == deliveries[n]
    and row[REQUEST] == requests[n] then
    verdicts[n] = row[ASKED] and 'cancel' or 'renewed'
    longer[#longer + 1] = text(now + span)
    longer[#longer + 1] = id
    if notes[n] > 0 then
      told[#told + 1] = id
      told[#told + 1] = blob(notes[n])
    end
  end
end
drain()
lengthen(longer)
send('HSET', NS .. 'progress', told)
return encode(verdicts)
