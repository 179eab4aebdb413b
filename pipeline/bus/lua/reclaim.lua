-- Reclaim at most one entry whose worker has been silent for too long, and count that it is worked on alone.
-- KEYS: stream, alone:{stream}   ARGV: group, consumer, idle ms
-- Returns {} or {entry id, fields, times it was worked on alone before, deliveries}
-- XAUTOCLAIM is allowed when memory is full, and a script whose first write is allowed may do further writes.
local claimed = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], '0-0', 'COUNT', 1)[2]
if #claimed == 0 then return {} end
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('UNLINK', KEYS[2]) end
local id, fields = claimed[1][1], claimed[1][2]
local before = redis.call('HINCRBY', KEYS[2], id, 1) - 1
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)
return {id, fields, before, pending[1] and pending[1][4] or 0}
