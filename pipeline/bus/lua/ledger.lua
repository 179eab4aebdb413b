-- Read cameras' ledgers and count their entries in flight, atomically. Read-only.
-- KEYS: frames, faces, ledger:{camera}...   ARGV: camera...
-- Returns for each camera: {in flight, {field, value, ...}}
local in_flight = {}
for i = 1, 2 do
  local entries = redis.call('TYPE', KEYS[i]).ok == 'stream' and redis.call('XRANGE', KEYS[i], '-', '+') or {}
  for _, entry in ipairs(entries) do
    local camera, published
    for j = 1, #entry[2], 2 do
      if entry[2][j] == 'camera' then camera = entry[2][j + 1] end
      if entry[2][j] == 'captured_at' then published = true end
    end
    if camera and published then in_flight[camera] = (in_flight[camera] or 0) + 1 end
  end
end
local ledgers = {}
for i, camera in ipairs(ARGV) do
  local counts = redis.call('TYPE', KEYS[i + 2]).ok == 'hash' and redis.call('HGETALL', KEYS[i + 2]) or {}
  ledgers[i] = {in_flight[camera] or 0, counts}
end
return ledgers
