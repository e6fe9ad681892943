-- Accepting a job, in enqueue and as a follow-up in settle.
-- A draft is four byte strings: id; what the store itself must know of it, as the rest of its row
-- up to SEQ; the encoded spec; and its edges ('' for none).

local seq
local encoded_now = encode(now)

local function take_seqs(wanted)
  seq = call('INCRBY', NS .. 'seq', wanted) - wanted
end

local function spec_of(id)
  for n = #new_specs - 1, 1, -2 do
    if new_specs[n] == id then return new_specs[n + 1] end
  end
  return call('HGET', SPEC, id)
end

-- Frees the key for a new job, or says why it cannot have it, and who has it.
local function take_key(key, on_conflict)
  local holders = call('ZRANGE', NS .. 'key:' .. key, 0, -1)
  local first = holders[1]
  if not first then return nil end
  if on_conflict == 'keep' then return 'held', first end
  if on_conflict == 'raise' then return 'conflict', first end
  load_all(holders)
  for _, id in ipairs(holders) do
    if LAW.cancel[rows[id][STATE]] == rows[id][STATE] then return 'conflict', first end
  end
  for _, id in ipairs(holders) do
    finish(id, rows[id], LAW.cancel[rows[id][STATE]], 'replaced')
  end
  return nil
end

-- Notes edges with their predecessors; says how many have not fired and how many never will.
local function link(id, edges)
  local pending, bad = 0, 0
  for _, edge in ipairs(edges) do
    local before, on = edge[1], edge[2]
    local mark = mark_of(on, before)
    call('ZADD', NS .. 'next:' .. before, on * 10 + mark, on .. id)
    touch(before, rows[before])
    rows[before][LINKS] = rows[before][LINKS] + 1
    if mark == 0 then pending = pending + 1 elseif mark == 2 then bad = bad + 1 end
  end
  return pending, bad
end

local function accept(id, draft, spec, after)
  if load(id) then
    return spec_of(id) == spec and 'duplicate' or 'conflict', id
  end
  local edges = after ~= '' and decode(after) or nil
  for _, edge in ipairs(edges or {}) do
    if not load(edge[1]) then return 'orphan', id end
  end
  tails[id] = draft .. encode(seq + 1) .. encoded_now
  local part = {decode(tails[id])}
  local key = part[KEY]
  if key then
    local refusal, holder = take_key(key, part[ON_CONFLICT])
    if refusal then return refusal, holder end
  end
  fixed_parts[id] = part
  local pending, bad = 0, 0
  if edges then
    pending, bad = link(id, edges)
    new_after[#new_after + 1] = id
    new_after[#new_after + 1] = after
  end
  seq = seq + 1
  local due = part[ETA] or now + part[DELAY]
  local state = due > now and FRESH.later or FRESH.due
  if pending + bad > 0 then state = FRESH.blocked end
  local row = {
    0, state, 0, '', false, 0, 0, 0, 0, '', 0, due, 0, '', '', pending, bad, 0, key and true,
  }
  rows[id] = row
  olds[id] = false
  touched[#touched + 1] = id
  new_specs[#new_specs + 1] = id
  new_specs[#new_specs + 1] = spec
  if not key and not edges then plain[id] = state .. text(due) end
  if key then hold(id, row) end
  if edges then weigh(id) end
  return 'accepted', id
end
