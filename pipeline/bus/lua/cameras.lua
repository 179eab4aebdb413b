-- Read cameras' ledgers and what is in flight of each, with their rates and newest frames, atomically. Read-only.
-- KEYS: for each camera standing, ledger, recent, newest:frames, lease   ARGV: seconds that rates are taken of
-- Returns {seconds, microseconds, {in flight, {field, value, ...}, labelled frames of these seconds, sum of their
-- latencies in ms, time of the newest labelled one, newest frame's captured_at, 1 if a producer holds the name}, ...}
-- What has a wrong type, or is no number, counts as missing.
local function ask(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end

local fields = {'labelled_at'}
for slot = 0, RATE_SLOTS - 1 do fields[#fields + 1] = slot end

local period = tonumber(ARGV[1])
local answers = {time[1], time[2]}
for i = 1, #KEYS, 5 do
  local frames, ms = 0, 0
  local recent = ask('HMGET', KEYS[i + 2], unpack(fields)) or {}
  for j = 2, #fields do
    local second, counted, sum_ms = counted_in(recent[j])
    local age = time[1] - second
    if age >= 1 and age <= period then frames, ms = frames + counted, ms + sum_ms end
  end
  answers[#answers + 1] = {
    ask('HLEN', KEYS[i]) or 0, ask('HGETALL', KEYS[i + 1]) or {}, frames, ms,
    recent[1] or '', ask('HGET', KEYS[i + 3], 'captured_at') or '',
    ask('EXISTS', KEYS[i + 4]) or 0
  }
end
return answers
