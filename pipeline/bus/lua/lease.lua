-- Hold a camera's name: take it when free, renew it when ours. Returns who holds it afterwards.
-- KEYS: lease:{camera}, cameras   ARGV: token, ms, camera
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return holder end
redis.call('PEXPIRE', KEYS[1], ARGV[2]) -- allowed when memory is full, and lets the rest through
if holder then redis.call('PEXPIRE', KEYS[1], ARGV[2]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
redis.call('ZADD', KEYS[2], redis.call('TIME')[1], ARGV[3])
return ARGV[1]
