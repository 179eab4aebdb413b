-- Publish one frame: store its pixels, bring it to the stage frames, count it. Calling it again changes nothing.
-- KEYS: of the stage frames and of the camera (common.lua), newest:frames:{camera}, lease:{camera}, pixels:{...},
--       cameras, watched:{camera}, remote
-- ARGV: frame (8 values, common.lua), 'live' or 'complete', attempt ID, captured_at, JPEG or '', pixels ms,
--       max. standing frames, lease token, lease ms
-- Returns {published | again | source_full | memory, seconds, microseconds, who needs the next frame as JPEG: 2 workers of
-- another machine, 1 viewers, 0 nobody}, or {lost, seconds, microseconds, holder}
local NEWEST, LEASE, PIXELS, CAMERAS, WATCHED, REMOTE = 12, 13, 14, 15, 16, 17
local frame = {unpack(ARGV, 1, 8)}
frame[3], frame[4] = tonumber(frame[3]), tonumber(frame[4])
local mode, attempt, captured_at, jpeg, pixels_ms, limit, token, lease_ms = unpack(ARGV, 9)

check_stream(mode == 'live' and LIVE or COMPLETE)
check_stream(RESULTS)

-- Return the result of the frame if it is dropped for this reason, by that of a stale one, in MessagePack.
local function dropped_as(reason)
  return (string.gsub(frame[6], '\166reason\165stale', '\166reason' .. string.char(160 + #reason) .. reason, 1))
end

local function publish()
  local holder = redis.call('GET', KEYS[LEASE])
  if holder and holder ~= token then return 'lost', holder end
  if on(KEYS[NEWEST], 'HGET', 'last') == attempt then return 'again' end
  -- without a JPEG the lease stands for it: a write that memory must be free for
  local set = jpeg == '' and redis.pcall('SET', KEYS[LEASE], token, 'PX', lease_ms) or
    redis.pcall('SET', KEYS[PIXELS], jpeg, 'PX', pixels_ms)
  if set.err and not string.find(set.err, 'OOM', 1, true) then error(set.err) end
  -- UNLINK is allowed when memory is full, and a script whose first write is allowed may do further writes
  if set.err then redis.call('UNLINK', KEYS[PIXELS]) end
  count('produced')
  if set.err then
    on(KEYS[NEWEST], 'HSET', 'last', attempt)
    count('dropped:memory')
    add_result(frame[1], dropped_as('memory'))
    return 'memory'
  end
  -- also for a frame that will not be labelled: viewers show it without labels
  on(KEYS[NEWEST], 'HSET', 'last', attempt, 'seq', frame[4], 'captured_at', captured_at, 'pixels_key', KEYS[PIXELS])
  if mode == 'complete' then redis.call('PEXPIRE', KEYS[NEWEST], FILE_MS) end
  if on(KEYS[STANDING], 'HLEN') >= tonumber(limit) then
    count('dropped:source_full')
    add_result(frame[1], dropped_as('source_full'))
    return 'source_full'
  end
  redis.call('SET', KEYS[LEASE], token, 'PX', lease_ms)
  on(KEYS[CAMERAS], 'ZADD', time[1], frame[1])
  on(KEYS[STANDING], 'HSET', frame[2], 'frames')
  if mode == 'live' then wait(frame) else append(frame) end
  return 'published'
end

local outcome, holder = publish()
local remote, watched = unpack(redis.call('MGET', KEYS[REMOTE], KEYS[WATCHED]))
return {outcome, time[1], time[2], holder or remote and 2 or watched and 1 or 0}
