-- Publish one frame: store its pixels, add its entry, count it in the ledger. Calling it again changes nothing.
-- KEYS: frames, newest:frames:{camera}, ledger:{camera}, lease:{camera}, pixels:{...}, results
-- ARGV: lease token, lease ms, camera, attempt id, captured_at, seq, record, jpeg, pixels ms, max. entries per camera,
--       result record for source_full, result record for memory, retention of results in ms
-- Returns: published | again | source_full | memory | {lost, holder}
local frames, newest, ledger, lease, pixels, results = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local token, lease_ms, camera, attempt, captured_at, seq = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local record, jpeg, pixels_ms, limit = ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10])

local kinds = {[frames] = 'stream', [newest] = 'hash', [ledger] = 'hash', [lease] = 'string', [results] = 'stream'}
for key, kind in pairs(kinds) do
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    if kind ~= 'hash' then error('key ' .. key .. ' is a ' .. found .. ', not a ' .. kind) end
    redis.call('UNLINK', key) -- a foreign value under our key holds no counts
  end
end
local holder = redis.call('GET', lease)
if holder and holder ~= token then return {'lost', holder} end
if redis.call('HGET', newest, 'last') == attempt then return 'again' end

local function note_newest()
  redis.call('HSET', newest, 'last', attempt, 'seq', seq, 'captured_at', captured_at, 'pixels_key', pixels)
end

local function drop(reason, result)
  redis.call('HINCRBY', ledger, 'produced', 1)
  redis.call('HINCRBY', ledger, 'dropped:' .. reason, 1)
  local now = redis.call('TIME')
  redis.call('XADD', results, 'MINID', '~', string.format('%d', now[1] * 1000 - tonumber(ARGV[13])), '*',
    'camera', camera, 'record', result)
  return reason
end

local function waiting()
  -- count by camera only when the stream is long, which is rare
  if redis.call('XLEN', frames) < limit then return 0 end
  local count = 0
  for _, entry in ipairs(redis.call('XRANGE', frames, '-', '+')) do
    local fields = entry[2]
    for i = 1, #fields, 2 do
      if fields[i] == 'camera' and fields[i + 1] == camera then count = count + 1 end
    end
  end
  return count
end

local set = redis.pcall('SET', pixels, jpeg, 'PX', pixels_ms)
if set.err then
  if not string.find(set.err, 'OOM', 1, true) then return set end
  -- UNLINK is allowed when memory is full, and a script whose first write is allowed may do further writes
  redis.call('UNLINK', pixels)
  redis.call('HSET', newest, 'last', attempt)
  return drop('memory', ARGV[12])
end
note_newest() -- also for a frame that will not be labelled: viewers show it without labels
if waiting() >= limit then return drop('source_full', ARGV[11]) end
if not holder then redis.call('SET', lease, token, 'PX', lease_ms) end
redis.call('XADD', frames, '*', 'camera', camera, 'captured_at', captured_at, 'record', record)
redis.call('HINCRBY', ledger, 'produced', 1)
return 'published'
