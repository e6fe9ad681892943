-- needs: flows accept
-- Stores jobs. args: how many; blobs: a draft of four for each.
-- Reads and writes: row, spec, after, all, seq, ready, busy, later, dues, waiting, expiries, key,
-- next, counts. In a full store its first write (seq) is refused, and nothing has happened.
local total = args[1]
local ids = {}
for n = 1, total do
  ids[n] = blob(4 * n - 3)
end
load_all(ids)
local fresh = 0
for _, id in ipairs(ids) do
  if not rows[id] then fresh = fresh + 1 end
end
if fresh > 0 then take_seqs(fresh) end
local verdicts, accepted = {}, false
for n, id in ipairs(ids) do
  local verdict, other = accept(id, blob(4 * n - 2), blob(4 * n - 1), blob(4 * n))
  verdicts[2 * n - 1], verdicts[2 * n] = verdict, other
  accepted = accepted or verdict == 'accepted'
end
done()
if not accepted then end_of_seq() end
return encode(verdicts)
