-- Reads the tiles of many entities in one round trip.
--
-- KEYS: hashes, family by family. ARGV: how many keys each family has.
-- Answers for each family two strings: the number of tiles of each key (<I4 each), and all their rows, one after another.

local answer, key = {}, 1
for f = 1, #ARGV do
  local counts, rows, r = {}, {}, 0
  for e = 1, tonumber(ARGV[f]) do
    local tiles = redis.call('HVALS', KEYS[key])
    key = key + 1
    counts[e] = struct.pack('<I4', #tiles)
    for t = 1, #tiles do
      r = r + 1
      rows[r] = tiles[t]
    end
  end
  answer[#answer + 1] = table.concat(counts)
  answer[#answer + 1] = table.concat(rows)
end
return answer
