-- Settle an entry: acknowledge and delete it, write its result and dead letter, count it. Only the first call has an effect.
-- KEYS: of the stage and of the camera (common.lua), the entry's stream, crops, dead, known:{camera}
-- ARGV: camera, frame ID or '', ledger field or '', result or '', dead letter or '', 'live' or 'complete', captured_at of
--       a labelled frame or '', group, entry ID, max. dead letters, known faces or '', ms that they are kept
-- Returns 1, or 0 if the entry was settled before, and then changes nothing. See forward.lua for what may fail, and when.
local STREAM, CROPS, DEAD, KNOWN = 12, 13, 14, 15
local MAX_LATENCY_MS = 1000000
local camera, frame_id, field, result, letter, mode, captured_at, group, id, max_dead, known, known_ms = unpack(ARGV)
check_stream(RESULTS)
if letter ~= '' then check_stream(DEAD) end

-- Count a labelled frame and its latency under the current second.
local function note_labelled()
  local slot, now = time[1] % RATE_SLOTS, time[1] + time[2] / 1000000
  local ms = math.min(MAX_LATENCY_MS, math.max(0, math.floor(1000 * (now - captured_at) + 0.5)))
  local second, frames, sum_ms = counted_in(on(KEYS[RECENT], 'HGET', slot))
  if second ~= tonumber(time[1]) then frames, sum_ms = 0, 0 end
  local counted = string.format('%d %d %d', time[1], frames + 1, sum_ms + ms)
  on(KEYS[RECENT], 'HSET', slot, counted, 'labelled_at', string.format('%.6f', now))
  if frames == 0 then redis.call('PEXPIRE', KEYS[RECENT], FILE_MS) end
end

if redis.call('XACK', KEYS[STREAM], group, id) == 0 then return 0 end
redis.call('XDEL', KEYS[STREAM], id)
on(KEYS[TAKEN], 'HDEL', id)
on(KEYS[ALONE], 'HDEL', KEYS[STREAM] .. '/' .. id)
local stood = on(KEYS[STANDING], 'HDEL', frame_id) == 1 -- otherwise it was never published, or has ended before
redis.call('UNLINK', KEYS[CROPS])
if result ~= '' then add_result(camera, result) end
if letter ~= '' then redis.call('XADD', KEYS[DEAD], 'MAXLEN', '~', max_dead, '*', 'camera', camera, 'record', letter) end
if stood and field ~= '' then count(field) end
if tonumber(captured_at) then note_labelled() end
if stood and known ~= '' then redis.call('SET', KEYS[KNOWN], known, 'PX', known_ms) end
if mode == 'complete' then redis.call('PEXPIRE', KEYS[LEDGER], FILE_MS) end
return 1
