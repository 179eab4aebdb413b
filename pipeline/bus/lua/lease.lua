-- Acquire the lease of a camera's name if it is free, or renew it if it is ours. Returns the token that holds it now.
-- KEYS: lease:{camera}, cameras   ARGV: token, ms, camera
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  -- the clock was set back: the lease of a dead holder must not last until it has caught up
  if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return holder
end
redis.call('PEXPIRE', KEYS[1], ARGV[2]) -- allowed when memory is full, which allows the writes after it
if not holder then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
redis.call('ZADD', KEYS[2], redis.call('TIME')[1], ARGV[3])
return ARGV[1]
