-- Tell that a process lives.   KEYS: heartbeat:{id}, processes   ARGV: record, ms, id, now, oldest score to keep
-- PEXPIRE is allowed when memory is full, and as the script's first write it lets the rest through.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
return 1
