-- Take up to `count` frames of a stage: live ones by the order of cameras, then complete ones, without waiting.
-- KEYS: of the stage (common.lua)
-- ARGV: group, consumer, count, 'files' to take a complete frame first or '', how many complete frames may be taken
--       instead of one (but at most half of those that wait, so that other workers have work, too), and after the consumer
--       has waited for an entry the first and last ID of each range of tickets that were delivered to it: only frames for
--       these, and what else there is if there is one
-- Returns {seconds, microseconds, {{stream, entry ID, fields, data or false, known or false}, ...}}; data: pixels or crops;
-- known: the faces that are known of the camera, for the stage frames
-- XREADGROUP is allowed when memory is full, and a script whose first write is allowed may do further writes.
local group, consumer, most, first, run = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local tag, stage = string.match(KEYS[LIVE], '^({%w+}:)(%a+)$')
local taken = {}

local function entries(stream, count)
  local found = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', KEYS[stream], '>')
  return found and found[1][2] or {}
end

-- Note an entry with what its worker needs. camera: nil for an entry that stands for no frame.
local function add(stream, id, fields, data, camera)
  local known = stage == 'frames' and camera and redis.pcall('GET', tag .. 'known:' .. camera)
  taken[#taken + 1] = {KEYS[stream], id, fields, data and fetch(data) or false, type(known) == 'string' and known}
end

local function take_ticket(id)
  local fields, data = tie(id)
  if fields then add(LIVE, id, fields, data, fields[2]) else discard(id, group) end
end

local function take_live()
  for _, entry in ipairs(entries(LIVE, most - #taken)) do
    if entry[2][1] == 'ticket' then take_ticket(entry[1]) else add(LIVE, entry[1], entry[2]) end
  end
end

local function take_complete()
  local count = most - #taken
  if run > 1 then
    check_stream(COMPLETE)
    count = math.max(count, math.min(run, math.ceil(unread(COMPLETE) / 2)))
  end
  for _, entry in ipairs(entries(COMPLETE, count)) do
    local id, fields = entry[1], entry[2]
    add(COMPLETE, id, fields, fields[7] == 'data' and fields[8], fields[1] == 'camera' and fields[2])
  end
end

-- Take frames for the tickets that this consumer holds in a range.
local function take_delivered(from, to)
  if #taken == most then return end
  for _, pending in ipairs(redis.call('XPENDING', KEYS[LIVE], group, from, to, most - #taken, consumer)) do
    local entry = redis.call('XRANGE', KEYS[LIVE], pending[1], pending[1])[1]
    if entry and entry[2][1] == 'ticket' then take_ticket(pending[1]) end
  end
end

for i = 6, #ARGV, 2 do take_delivered(ARGV[i], ARGV[i + 1]) end
if #ARGV < 6 or #taken > 0 then
  if first == 'files' then take_complete() end
  if #taken < most then take_live() end
  if #taken < most and first ~= 'files' then take_complete() end
end
return {time[1], time[2], taken}
