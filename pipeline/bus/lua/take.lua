-- Take up to `count` frames of a stage: live ones by the order of cameras, then complete ones, without waiting.
-- KEYS: of the stage (common.lua)
-- ARGV: group, consumer, count, 'files' to take a complete frame first or '', 'read' to read new entries or '', then
--       tickets that were read before
-- Returns {seconds, microseconds, {{stream, entry ID, fields, data or false}, ...}}; data: pixels or crops
-- XREADGROUP is allowed when memory is full, and a script whose first write is allowed may do further writes.
local group, consumer, most, first, read = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local taken = {}

local function entries(stream)
  local found = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', most - #taken, 'STREAMS', KEYS[stream], '>')
  return found and found[1][2] or {}
end

local function take_ticket(id)
  local fields, data = tie(id)
  if fields then taken[#taken + 1] = {KEYS[LIVE], id, fields, fetch(data)} else discard(id, group) end
end

local function take_live()
  for _, entry in ipairs(entries(LIVE)) do
    if entry[2][1] == 'ticket' then take_ticket(entry[1]) else taken[#taken + 1] = {KEYS[LIVE], entry[1], entry[2], false} end
  end
end

local function take_complete()
  for _, entry in ipairs(entries(COMPLETE)) do
    local id, fields = entry[1], entry[2]
    taken[#taken + 1] = {KEYS[COMPLETE], id, fields, fields[7] == 'data' and fetch(fields[8])}
  end
end

for i = 6, #ARGV do take_ticket(ARGV[i]) end
if read ~= '' then
  if first == 'files' then take_complete() end
  if #taken < most then take_live() end
  if #taken < most and first ~= 'files' then take_complete() end
end
return {time[1], time[2], taken}
