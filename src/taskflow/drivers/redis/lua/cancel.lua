-- needs: flows
-- Cancels jobs that have not begun, asks the workers of those that run. args: ids.
load_all(args)
drain()
local verdicts = {}
for n, id in ipairs(args) do
  local row = rows[id]
  if not row then
    verdicts[n] = 'unknown'
  elseif FINAL[row[STATE]] then
    verdicts[n] = 'final'
  elseif LAW.cancel[row[STATE]] == row[STATE] then
    touch(id, row)
    row[ASKED] = true
    workers[#workers + 1] = row[WORKER]
    verdicts[n] = 'requested'
  else
    finish(id, row, LAW.cancel[row[STATE]], 'cancelled')
    verdicts[n] = 'cancelled'
  end
end
done()
return encode(verdicts)
