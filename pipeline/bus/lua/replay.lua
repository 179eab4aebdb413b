-- Put a dead entry back on its stream if its pixels exist, and count it as produced once more.
-- KEYS: dead, stream, ledger:{camera}, pixels or crops key   ARGV: dead entry id, camera, fields of the entry...
-- Returns 1; 0 if the dead letter is gone; -1 if the pixels are gone.
if redis.call('EXISTS', KEYS[4]) == 0 then return -1 end
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
redis.call('HINCRBY', KEYS[3], 'produced', 1)
return 1
