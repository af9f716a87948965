-- Reads the tiles of many entities in one round trip.
--
-- KEYS: hashes, family by family, then the clocks of the streams, then the revision of the table of generations.
-- ARGV: for each family how many keys it has, how many ranges of tiles are wanted (0: all that there is), and of each range its
-- first and last tile.
-- Answers for each family two strings: the number of tiles of each key (<I4 each), and all their rows, one after another;
-- then the newest time of each clock ("0": nothing yet), with spaces between, by which tiles have been dropped; then the
-- revision, so that nobody reads a generation that has been replaced.

local CHUNK = 1000 -- arguments of one call; Lua's stack holds 8,000

local answer, key, at = {}, 1, 1
while at <= #ARGV do
  local keys, ranges = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 2
  local wanted = {}
  for _ = 1, ranges do
    for tile = tonumber(ARGV[at]), tonumber(ARGV[at + 1]) do
      wanted[#wanted + 1] = struct.pack('<d', tile)
    end
    at = at + 2
  end
  local counts, rows, r = {}, {}, 0
  for e = 1, keys do
    local hash, before = KEYS[key], r
    key = key + 1
    if ranges == 0 or redis.call('HLEN', hash) <= #wanted then
      local tiles = redis.call('HVALS', hash)
      for t = 1, #tiles do
        r = r + 1
        rows[r] = tiles[t]
      end
    else
      for first = 1, #wanted, CHUNK do
        local last = math.min(first + CHUNK - 1, #wanted)
        local tiles = redis.call('HMGET', hash, unpack(wanted, first, last))
        for t = 1, last - first + 1 do
          if tiles[t] then
            r = r + 1
            rows[r] = tiles[t]
          end
        end
      end
    end
    counts[e] = struct.pack('<I4', r - before)
  end
  answer[#answer + 1] = table.concat(counts)
  answer[#answer + 1] = table.concat(rows)
end
local clocks = {}
for c = key, #KEYS - 1 do
  local newest, latest = '0', 0
  for _, time in ipairs(redis.call('HVALS', KEYS[c])) do
    if tonumber(time) > latest then newest, latest = time, tonumber(time) end
  end
  clocks[#clocks + 1] = newest
end
answer[#answer + 1] = table.concat(clocks, ' ')
answer[#answer + 1] = redis.call('GET', KEYS[#KEYS]) or '0'
return answer
