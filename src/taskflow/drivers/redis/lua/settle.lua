-- needs: flows accept
-- Ends attempts; each change is one step. args: kinds of change ([event, state, state if a
-- cancellation was asked for, refund, interruption, park] each), then changes: [id, delivery,
-- request id, number of its kind, of its result (0: none)] and, where there is more to say, [delay,
-- reason, number of the error, of the first follow-up (0: none), how many]; blobs: those.
-- Reads and writes: everything.
local kinds, changes = args[1], args[2]
local ids, wanted = {}, 0
for n, change in ipairs(changes) do
  ids[n] = change[1]
  wanted = wanted + (change[10] or 0)
end
load_all(ids)
drain()
if wanted > 0 then take_seqs(wanted) end

local function settle(change)
  local id, delivery, request, kind, result, delay, reason, problem, first, count_of
    = unpack(change)
  local event, state, asked, refund, interrupted, parked = unpack(kinds[kind])
  local row = rows[id]
  local mark = delivery .. '\0' .. request .. '\0' .. event .. '\0'
  if not row or row[STATE] ~= 'running' or row[DELIVERY] ~= delivery
    or row[REQUEST] ~= request then
    if row and sub(row[FIN], 1, #mark) == mark then
      return 'already', sub(row[FIN], #mark + 1)
    end
    return 'lost', ''
  end
  if row[ASKED] then state = asked end
  touch(id, row)
  row[FIN] = mark .. state
  row[ATTEMPT] = row[ATTEMPT] - refund
  row[INTERRUPTIONS] = row[INTERRUPTIONS] + interrupted
  row[PARKS] = row[PARKS] + parked
  if (problem or 0) > 0 then
    new_errors[#new_errors + 1] = id
    new_errors[#new_errors + 1] = blob(problem)
  end
  if FINAL[state] then
    if state == 'cancelled' then reason = 'cancelled' end
    finish(id, row, state, reason or '', result > 0 and blob(result) or nil)
  else
    row[REASON] = reason or ''
    if LAW.stage[state] then row[DUE] = now + (delay or 0) end
    move(id, row, state)
  end
  for n = 0, (count_of or 0) - 1 do
    local at = first + 4 * n
    accept(blob(at), blob(at + 1), blob(at + 2), blob(at + 3))
  end
  return 'applied', state
end

local verdicts = {}
for n, change in ipairs(changes) do
  verdicts[2 * n - 1], verdicts[2 * n] = settle(change)
end
done()
if wanted > 0 then end_of_seq() end
return encode(verdicts)
