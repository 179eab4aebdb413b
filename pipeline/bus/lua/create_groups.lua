-- Create the consumer groups of a stage, and give frames that were taken from a lost stream new tickets.
-- KEYS: of the stage (common.lua)   ARGV: group
local group = ARGV[1]
on(KEYS[TAKEN], 'HDEL', '') -- changes nothing; allowed when memory is full, which allows the writes after it
for _, i in ipairs({LIVE, COMPLETE}) do
  local created = redis.pcall('XGROUP', 'CREATE', KEYS[i], group, '0', 'MKSTREAM')
  if created.err and not string.find(created.err, 'BUSYGROUP', 1, true) then error(created.err) end
  if i == LIVE and not created.err then
    local held = on(KEYS[TAKEN], 'HGETALL')
    redis.call('UNLINK', KEYS[TAKEN])
    for j = 2, #held, 2 do
      local found = redis.pcall('XRANGE', KEYS[LIVE], held[j - 1], held[j - 1]) -- an error if it is no entry ID
      if found[1] then
        redis.call('HSET', KEYS[TAKEN], held[j - 1], held[j])
      else
        redis.call('HSET', KEYS[TAKEN], redis.call('XADD', KEYS[LIVE], '*', 'ticket', 1), held[j])
      end
    end
  end
end
return 1
