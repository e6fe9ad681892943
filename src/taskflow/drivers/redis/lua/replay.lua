-- needs: flows
-- Makes failed and cancelled jobs available again, due now. args: ids.
load_all(args)
drain()
local verdicts = {}

local function replay(id, row)
  uncount(id, row)
  move(id, row, LAW.replay[row[STATE]])
  row[ATTEMPT], row[CRASHES], row[INTERRUPTIONS], row[PARKS] = 0, 0, 0, 0
  row[ASKED], row[REASON], row[FINISHED], row[DUE] = false, '', 0, now
  never_expires(id)
  sync(id, row)
  return 'replayed'
end

for n, id in ipairs(args) do
  local row = rows[id]
  if not row then
    verdicts[n] = 'unknown'
  elseif not LAW.replay[row[STATE]] then
    verdicts[n] = 'refused'
  elseif row[KEYED] and is_key_held(id) then
    verdicts[n] = 'conflict'
  else
    verdicts[n] = replay(id, row)
  end
end
done()
return encode(verdicts)
