-- Reclaim at most one entry whose worker has been silent for too long, and count that it is worked on alone.
-- KEYS: of the stage (common.lua)
-- ARGV: group, consumer, idle ms, then where to continue: LIVE or COMPLETE (common.lua), entry ID
-- Returns {seconds, microseconds, {where to continue: stream, entry ID}} and, if one was found, {stream, entry ID, fields,
-- times it was worked on alone before, deliveries}. A call looks at 100 pending entries at most; from the end it continues
-- at the beginning.
-- XAUTOCLAIM is allowed when memory is full, and a script whose first write is allowed may do further writes.
local SEEN = '@seen' -- field of turns that is no camera: the newest time that a call has seen
local group, consumer, idle_ms, at, from = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

-- When the clock was set back, entries of dead workers would seem fresh until it has caught up: restart the idle time of
-- all pending entries, without changing their owners.
local function follow_clock()
  local seen = tonumber(on(KEYS[TURNS], 'HGET', SEEN) or 0) or 0
  if time[1] + 1 < seen then
    for _, i in ipairs({LIVE, COMPLETE}) do
      for _, entry in ipairs(redis.call('XPENDING', KEYS[i], group, '-', '+', 1000)) do
        redis.call('XCLAIM', KEYS[i], group, entry[2], 0, entry[1], 'JUSTID')
      end
    end
  end
  if tonumber(time[1]) ~= seen then on(KEYS[TURNS], 'HSET', SEEN, time[1]) end
end

local function claim()
  for _ = 1, 10 do
    local answer = redis.call('XAUTOCLAIM', KEYS[at], group, consumer, idle_ms, from, 'COUNT', 1)
    from = answer[1]
    local entry = answer[2][1]
    if entry then return at, entry[1], entry[2] end
    if from == '0-0' then
      at = at == LIVE and COMPLETE or LIVE
      if at == LIVE then return nil end
    end
  end
end

local stream, id, fields = claim()
follow_clock()
if id and stream == LIVE and fields[1] == 'ticket' then
  fields = tie(id)
  if not fields then
    discard(id, group)
    id = nil
  end
end
if not id then return {time[1], time[2], {at, from}} end
local before = increment(KEYS[ALONE], KEYS[stream] .. '/' .. id) - 1
local pending = redis.call('XPENDING', KEYS[stream], group, id, id, 1)
return {time[1], time[2], {at, from}, {KEYS[stream], id, fields, before, pending[1] and pending[1][4] or 0}}
