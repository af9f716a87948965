-- Reads the tiles of many entities in one round trip.
--
-- KEYS: hashes, family by family, then the clock and the course of each stream, then the revision of the table of generations.
-- ARGV: for each family how many keys it has, how many ranges of tiles are wanted (0: all that there is), and of each range its
-- first and last tile.
-- Answers for each family two strings: the number of tiles of each key (<I4 each), and all their rows, one after another;
-- then for each stream, separated by ";", the newest time of its clock ("0": nothing yet), by which tiles have been dropped, and
-- its course, and last this server's clock, by which tiles expire (microseconds); then the revision, so that nobody reads a
-- generation that has been replaced.

local CHUNK = 1000 -- arguments of one call; Lua's stack holds 8,000

-- Locals take a tenth off the time of a short read.
local call, pack, concat, KEYS, ARGV = redis.call, struct.pack, table.concat, KEYS, ARGV

local answer, key, at = {}, 1, 1
while at <= #ARGV do
  local keys, ranges = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 2
  local wanted = {}
  for _ = 1, ranges do
    for tile = tonumber(ARGV[at]), tonumber(ARGV[at + 1]) do
      wanted[#wanted + 1] = pack('<d', tile)
    end
    at = at + 2
  end
  if keys == 1 and ranges == 0 then -- what a request mostly asks: without a look at each tile
    local tiles = call('HVALS', KEYS[key])
    key = key + 1
    answer[#answer + 1] = pack('<I4', #tiles)
    answer[#answer + 1] = concat(tiles)
  else
    local counts, rows, r = {}, {}, 0
    for e = 1, keys do
      local hash, before = KEYS[key], r
      key = key + 1
      if ranges == 0 or call('HLEN', hash) <= #wanted then
        local tiles = call('HVALS', hash)
        for t = 1, #tiles do
          r = r + 1
          rows[r] = tiles[t]
        end
      else
        for first = 1, #wanted, CHUNK do
          local last = math.min(first + CHUNK - 1, #wanted)
          local tiles = call('HMGET', hash, unpack(wanted, first, last))
          for t = 1, last - first + 1 do
            if tiles[t] then
              r = r + 1
              rows[r] = tiles[t]
            end
          end
        end
      end
      counts[e] = pack('<I4', r - before)
    end
    answer[#answer + 1] = concat(counts)
    answer[#answer + 1] = concat(rows)
  end
end
local streams = {}
for c = key, #KEYS - 2, 2 do
  local newest, latest = '0', 0
  for _, time in ipairs(call('HVALS', KEYS[c])) do
    if tonumber(time) > latest then newest, latest = time, tonumber(time) end
  end
  streams[#streams + 1] = newest .. ' ' .. (call('GET', KEYS[c + 1]) or '')
end
local now = call('TIME')
streams[#streams + 1] = string.format('%s%06d', now[1], now[2])
answer[#answer + 1] = concat(streams, ';')
answer[#answer + 1] = call('GET', KEYS[#KEYS]) or '0'
return answer
