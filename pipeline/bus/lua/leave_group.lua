-- Delete a consumer if it holds nothing: its pending entries would be lost with it.
-- KEYS: stream   ARGV: group, consumer   Returns 1 when deleted.
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
