-- Put a dead frame back into the stream of complete frames if its data exist, and count it as produced once more.
-- KEYS: of the stage and of the camera (common.lua), dead, pixels or crops
-- ARGV: dead entry ID, camera, frame ID, record, stage
-- Returns 1; 0 if the dead letter is gone; -1 if the data are gone.
local DEAD, DATA = 12, 13
local id, camera, frame_id, record, stage = unpack(ARGV)
check_stream(COMPLETE)
if redis.call('EXISTS', KEYS[DATA]) == 0 then return -1 end
if redis.call('XDEL', KEYS[DEAD], id) == 0 then return 0 end
on(KEYS[STANDING], 'HSET', frame_id, stage)
redis.call('XADD', KEYS[COMPLETE], '*', 'camera', camera, 'frame_id', frame_id, 'record', record, 'data', KEYS[DATA])
count('produced')
return 1
