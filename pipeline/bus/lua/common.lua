-- Functions of the queue's scripts; every script is sent to Redis with this file in front of it.
-- The queue's scripts begin their KEYS with those of a stage (frames or faces) in one shard:
--   1 stream of live tickets   2 stream of complete frames   3 waiting: camera -> packed frame   4 order: camera by turn
--   5 turns: camera -> turn of its last frame, "" -> newest turn   6 taken: entry -> packed frame   7 alone: entry -> times
-- and those that bring or end a frame continue with:
--   8 standing:{camera}: frame ID -> stage   9 ledger:{camera}   10 recent:{camera}   11 results
-- A packed frame is {camera, frame ID, start, seq, record, result if stale, key of its data, another key or ""}.
local LIVE, COMPLETE, WAITING, ORDER, TURNS, TAKEN, ALONE = 1, 2, 3, 4, 5, 6, 7
local STANDING, LEDGER, RECENT, RESULTS = 8, 9, 10, 11
local RESULTS_MS, MAX_RESULTS = 60000, 100000 -- how long results are kept, and how many (a clock that was set back)
local FILE_MS = 86400000 -- how long the counts of a file are kept after its last change: longer than clocks step
local GROUP = 'workers' -- the consumer group of each work stream
local RATE_SLOTS = 8 -- seconds of which labelled frames are counted one by one
local time = redis.call('TIME')

-- Run a command on a hash or sorted set. A value of another type under its key holds nothing of ours, and is removed by
-- users that may do so; for others the key is left alone, and the answer is false. Nothing is raised after a first write.
local function on(key, command, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if not string.find(answer.err, 'WRONGTYPE', 1, true) then error(answer.err) end
  local removed = redis.pcall('UNLINK', key)
  return type(removed) == 'number' and redis.call(command, key, ...)
end

local lengths = {} -- of the streams that were checked
-- Check, before anything is changed, that KEYS[i] is a stream, or does not exist, and note its length.
local function check_stream(i)
  local length = redis.pcall('XLEN', KEYS[i])
  if type(length) ~= 'number' then error('key ' .. KEYS[i] .. ' is no stream: ' .. length.err) end
  lengths[i] = length
end

-- Increment a field of a hash, and return it; what is no number counts as 0.
local function increment(key, field)
  local counted = redis.pcall('HINCRBY', key, field, 1)
  if type(counted) == 'number' then return counted end
  on(key, 'HDEL', field)
  return on(key, 'HINCRBY', field, 1) or 1
end

local function count(field)
  increment(KEYS[LEDGER], field)
end

local function add_result(camera, result)
  local by, limit = 'MINID', string.format('%d', time[1] * 1000 - RESULTS_MS)
  -- to less than the maximum, so that the next result removes old ones again
  if lengths[RESULTS] >= MAX_RESULTS then by, limit = 'MAXLEN', MAX_RESULTS - 1000 end
  redis.call('XADD', KEYS[RESULTS], by, '~', limit, '*', 'camera', camera, 'record', result)
end

local FRAME_KINDS = {'string', 'string', 'number', 'number', 'string', 'string', 'string', 'string'}
local function unpacked(packed)
  local ok, frame = pcall(cmsgpack.unpack, packed)
  if not ok or type(frame) ~= 'table' then return nil end
  for i, kind in ipairs(FRAME_KINDS) do
    if type(frame[i]) ~= kind then return nil end
  end
  return frame
end

-- Run a command on the data of a frame, which may name any key: others than this shard's pixels and crops are left alone,
-- and so are those that this user may not use.
local function on_data(command, key)
  local kind = string.match(key, '^' .. string.match(KEYS[LIVE], '^{%w+}:') .. '(%a+):')
  if kind == 'pixels' or kind == 'crops' then return redis.pcall(command, key) end
end

-- End a live frame because a newer one of its camera has come. One that is not standing was never published: it is not
-- counted.
local function drop_stale(frame)
  if on(KEYS[STANDING], 'HDEL', frame[2]) == 1 then count('dropped:stale') end
  add_result(frame[1], frame[6])
  on_data('UNLINK', frame[7])
  on_data('UNLINK', frame[8])
end

-- Return how many entries of the checked stream KEYS[i] nobody has read.
local function unread(i)
  local pending = redis.pcall('XPENDING', KEYS[i], GROUP)
  return lengths[i] - (pending.err and 0 or pending[1]) -- an error: there is no group yet
end

-- Make a live frame its camera's waiting one of a stage, in the place of an older one.
local function wait(frame)
  local camera = frame[1]
  local held = on(KEYS[WAITING], 'HGET', camera)
  local old = held and unpacked(held)
  if old and old[3] == frame[3] and old[4] > frame[4] then return drop_stale(frame) end
  if old then drop_stale(old) end
  on(KEYS[WAITING], 'HSET', camera, cmsgpack.pack(frame))
  local turn = tonumber(on(KEYS[TURNS], 'HGET', camera) or 0)
  on(KEYS[ORDER], 'ZADD', turn == turn and turn or 0, camera) -- "nan" is a number that differs from itself
  -- An unread ticket for each waiting camera. One too many is discarded when it is taken; one that was lost, that a worker
  -- has read and died, or that a foreign entry stands for, is added with the camera's next frame.
  if not held or unread(LIVE) < (on(KEYS[ORDER], 'ZCARD') or 0) then
    redis.call('XADD', KEYS[LIVE], '*', 'ticket', 1)
  end
end

-- Add a frame of a file to the stream of complete frames.
local function append(frame)
  redis.call('XADD', KEYS[COMPLETE], '*', 'camera', frame[1], 'frame_id', frame[2], 'record', frame[5],
    'data', frame[7])
  for _, i in ipairs({STANDING, LEDGER}) do redis.call('PEXPIRE', KEYS[i], FILE_MS) end
end

-- Tie a ticket to the waiting frame of the camera that was served longest ago; a ticket that is tied keeps its frame.
-- Returns the frame's fields as of an entry, and the key of its data; nothing when no frame waits.
local function tie(id)
  local packed = on(KEYS[TAKEN], 'HGET', id)
  local frame = packed and unpacked(packed)
  while not frame do
    local first = on(KEYS[ORDER], 'ZPOPMIN')
    if not first or #first == 0 then return nil end
    local camera = first[1]
    packed = on(KEYS[WAITING], 'HGET', camera)
    on(KEYS[WAITING], 'HDEL', camera)
    on(KEYS[TURNS], 'HSET', camera, increment(KEYS[TURNS], ''))
    frame = packed and unpacked(packed)
    if frame then on(KEYS[TAKEN], 'HSET', id, packed) end
  end
  return {'camera', frame[1], 'frame_id', frame[2], 'record', frame[5]}, frame[7]
end

-- Return pixels or crops, false if there are none under this key.
local function fetch(key)
  local found = on_data('GET', key)
  return type(found) == 'string' and found
end

-- Return a second, how many frames were labelled in it, and the sum of their latencies in ms, as settle.lua notes them.
local function counted_in(text)
  local second, frames, ms = string.match(text or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(second) or 0, tonumber(frames) or 0, tonumber(ms) or 0
end

-- Remove a ticket for which no frame waits.
local function discard(id, group)
  redis.call('XACK', KEYS[LIVE], group, id)
  redis.call('XDEL', KEYS[LIVE], id)
end
