-- Write a process' heartbeat, and keep the number of shards while any process lives that brings or labels frames.
-- KEYS: heartbeat:{id}, processes, then shards for these   ARGV: record, ms, id, seconds to keep dead ones, shards, ms
-- Returns {seconds, microseconds}
-- PEXPIRE is allowed when memory is full, and a script whose first write is allowed may do further writes.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], time[1], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', time[1] - ARGV[4])
if KEYS[3] and redis.call('PEXPIRE', KEYS[3], ARGV[6]) == 0 then redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6]) end
return {time[1], time[2]}
