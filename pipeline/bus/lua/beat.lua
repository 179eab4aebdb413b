-- Write a process' heartbeat.   KEYS: heartbeat:{id}, processes   ARGV: record, ms, id, now, oldest score to keep
-- PEXPIRE is allowed when memory is full, and a script whose first write is allowed may do further writes.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
return 1
