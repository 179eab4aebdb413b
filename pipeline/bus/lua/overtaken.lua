-- Return for each entry how many newer frames of its camera are in the same stream. Read-only.
-- KEYS: stream   ARGV: camera, captured_at, camera, captured_at, ...
local newer = {}
for i = 1, #ARGV, 2 do newer[#newer + 1] = 0 end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  local camera, captured_at
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'camera' then camera = entry[2][i + 1] end
    if entry[2][i] == 'captured_at' then captured_at = tonumber(entry[2][i + 1]) end
  end
  if captured_at then
    for i = 1, #ARGV, 2 do
      if ARGV[i] == camera and captured_at > tonumber(ARGV[i + 1]) then newer[(i + 1) / 2] = newer[(i + 1) / 2] + 1 end
    end
  end
end
return newer
