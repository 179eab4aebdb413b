-- Settle one entry: acknowledge it, delete it, write its outputs, count it. Only the first call has an effect.
-- KEYS: stream, alone:{stream}, ledger:{camera}, crops:{frame}, output streams...
-- ARGV: group, entry id, camera, ledger field or '', crops to store or '' to unlink them, crops ms,
--       then for each output: captured_at or '', record, trim option (MINID | MAXLEN | ''), trim value (ms | entries)
-- Returns 1, or 0 if the entry was settled before, and then changes nothing.
-- Everything that can fail is checked before XACK, since Lua does not roll back. XACK is allowed when memory is full, and
-- a script whose first write is allowed may do further writes; that holds only without a `#!lua` line.
local stream, alone, ledger, crops = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, id, camera, field, put, put_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local function must_be(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then error('key ' .. key .. ' is a ' .. found .. ', not a ' .. kind) end
end
local function repair(key)
  -- a foreign value under our key holds no counts; without removing it no entry could be settled
  local found = redis.call('TYPE', key).ok
  if found ~= 'hash' and found ~= 'none' then redis.call('UNLINK', key) end
end
must_be(stream, 'stream')
must_be(crops, 'string')
if put ~= '' and (tonumber(put_ms) or 0) < 1 then error('crops need a TTL in ms') end
if #ARGV ~= 6 + 4 * (#KEYS - 4) then error('each output needs four arguments') end
local now = redis.call('TIME')
for i = 5, #KEYS do
  must_be(KEYS[i], 'stream')
  local at = 7 + 4 * (i - 5)
  if ARGV[at + 2] ~= '' and not tonumber(ARGV[at + 3]) then error('trim value is not a number') end
end
repair(alone)
repair(ledger)
local counted = redis.call('HGET', ledger, field)
if counted and not tonumber(counted) then error('ledger field ' .. field .. ' is not a number') end

if redis.call('XACK', stream, group, id) == 0 then return 0 end
redis.call('XDEL', stream, id)
redis.call('HDEL', alone, id)
if put == '' then redis.call('UNLINK', crops) else redis.call('SET', crops, put, 'PX', put_ms) end
for i = 5, #KEYS do
  local at = 7 + 4 * (i - 5)
  local captured_at, record, trim, value = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local entry = {KEYS[i]}
  if trim == 'MINID' then
    entry = {KEYS[i], 'MINID', '~', string.format('%d', now[1] * 1000 - tonumber(value))}
  elseif trim == 'MAXLEN' then
    entry = {KEYS[i], 'MAXLEN', '~', value}
  end
  for _, part in ipairs({'*', 'camera', camera}) do entry[#entry + 1] = part end
  if captured_at ~= '' then entry[#entry + 1] = 'captured_at'; entry[#entry + 1] = captured_at end
  entry[#entry + 1] = 'record'
  entry[#entry + 1] = record
  redis.call('XADD', unpack(entry))
end
if field ~= '' then redis.call('HINCRBY', ledger, field, 1) end
return 1
