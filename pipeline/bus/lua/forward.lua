-- Settle an entry of the stage frames by bringing its faces to the stage faces. Only the first call has an effect.
-- KEYS: of the stage faces and of the camera (common.lua), the entry's stream, taken and alone of the stage frames, crops,
--       remote:faces, known:{camera}
-- ARGV: frame (8 values, common.lua), 'live' or 'complete', group, entry ID, crops or '', crops ms, known faces or ''
-- Returns {1, or 0 if the entry was settled before, which changes nothing, 1 if classifiers need crops, otherwise 0}
-- Everything that can fail is checked before XACK, since Lua does not roll back. XACK is allowed when memory is full, and
-- a script whose first write is allowed may do further writes; that holds only without a `#!lua` line.
local STREAM, FROM_TAKEN, FROM_ALONE, CROPS, REMOTE, KNOWN = 12, 13, 14, 15, 16, 17
local frame = {unpack(ARGV, 1, 8)}
frame[3], frame[4] = tonumber(frame[3]), tonumber(frame[4])
local mode, group, id, crops, crops_ms, known = unpack(ARGV, 9)

if (tonumber(crops_ms) or 0) < 1 then error('crops need a TTL in ms') end
check_stream(mode == 'live' and LIVE or COMPLETE)
check_stream(RESULTS)

if redis.call('XACK', KEYS[STREAM], group, id) == 0 then return {0, redis.call('EXISTS', KEYS[REMOTE])} end
redis.call('XDEL', KEYS[STREAM], id)
on(KEYS[FROM_TAKEN], 'HDEL', id)
on(KEYS[FROM_ALONE], 'HDEL', KEYS[STREAM] .. '/' .. id)
if crops ~= '' then redis.call('SET', KEYS[CROPS], crops, 'PX', crops_ms) end
local stands = on(KEYS[STANDING], 'HSET', frame[2], 'faces') == 0
if not stands then on(KEYS[STANDING], 'HDEL', frame[2]) end -- it was never published, or has ended before
if stands and known ~= '' then redis.call('SET', KEYS[KNOWN], known, 'PX', crops_ms) end
if mode == 'live' then wait(frame) else append(frame) end
return {1, redis.call('EXISTS', KEYS[REMOTE])}
