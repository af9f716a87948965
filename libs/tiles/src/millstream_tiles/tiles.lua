-- Applies one batch to the tiles of one shard: fence, ids, tiles, fence again, all or nothing.
--
-- KEYS[1] fences of (group, stream): partition -> "offset stream_time"
-- KEYS[2] clock of the stream: partition -> stream time (of the foremost group)
-- KEYS[3] index of the id buckets of the stream
-- KEYS[4..] for each id bucket of the batch: the bucket before it, itself, the one after; then one key an entity
-- ARGV[1..8] partition, start, end, stream_time, accept_gap, number of id buckets, number of families, id span (us)
-- KEYS[#KEYS - 1] course of the stream: "behind stood_at behind_before", by which a reader knows what has expired (`held.Course`)
-- KEYS[#KEYS], ARGV[#ARGV]: revision of the table of generations, and the one that the writer knows (0: none)
-- ARGV[9..] for each bucket: bucket number, prefix of bucket keys, n, id 1 .. id n
--           for each family: ops, n entities, counts (<I4 each), rows (<d each), cutoff, keep (0: as the hash itself says),
--           expire (ms)
--
-- A tile hash has one field a row: the packed index (the first 8 bytes of the row) -> the row. Doubles in Lua are the
-- doubles of the rows: unpacking and packing them changes no bit.

local partition, first, last = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- Locals, and no formatting of numbers below: together a third of the time of this script.
local call, pack, unpackd, sub = redis.call, struct.pack, struct.unpack, string.sub

-- 0. A writer that does not know which generations there are would leave one of them out.
if (call('GET', KEYS[#KEYS]) or '0') ~= ARGV[#ARGV] then return {'stale', -1} end

-- 1. The fence.
local fence, clock = nil, 0
local stored = call('HGET', KEYS[1], partition)
if stored then
  local o, t = string.match(stored, '^(%-?%d+) (%d+)$')
  fence, clock = tonumber(o), tonumber(t)
  if fence >= last then return {'already', fence} end
  if fence >= first then return {'overlap', fence} end
end
if ARGV[5] == '0' and first > (fence or -1) + 1 then return {'behind', fence or -1} end

-- 2. Ids: nothing changes if one of them was counted before; the caller drops it and comes again.
local CHUNK = 1000 -- arguments of one call; Lua's stack holds 8,000
local at = 9
local buckets, seen = {}, {}
for b = 1, tonumber(ARGV[6]) do
  local k = 4 + 3 * (b - 1)
  local n = tonumber(ARGV[at + 2])
  buckets[b] = {k = k, number = ARGV[at], prefix = ARGV[at + 1], from = at + 3, n = n}
  for near = k, k + 2 do
    if call('EXISTS', KEYS[near]) == 1 then
      for i = at + 3, at + 2 + n, CHUNK do
        local upto = math.min(i + CHUNK - 1, at + 2 + n)
        local found = call('SMISMEMBER', KEYS[near], unpack(ARGV, i, upto))
        for j = 1, #found do
          if found[j] == 1 then seen[#seen + 1] = ARGV[i + j - 1] end
        end
      end
    end
  end
  at = at + 3 + n
end
if #seen > 0 then return {'seen', fence or -1, seen} end

local time = math.max(clock, tonumber(ARGV[4]))
local span = tonumber(ARGV[8])
for _, bucket in ipairs(buckets) do
  local key = KEYS[bucket.k + 1]
  for i = bucket.from, bucket.from + bucket.n - 1, CHUNK do
    call('SADD', key, unpack(ARGV, i, math.min(i + CHUNK - 1, bucket.from + bucket.n - 1)))
  end
  call('PEXPIRE', key, string.format('%.0f', 3 * span / 1000))
  if call('SADD', KEYS[3], bucket.number) == 1 then
    -- A bucket came; those that no partition can repeat any more go.
    local slowest = time
    for _, t in ipairs(call('HVALS', KEYS[2])) do slowest = math.min(slowest, tonumber(t)) end
    for _, old in ipairs(call('SMEMBERS', KEYS[3])) do
      if (tonumber(old) + 3) * span < slowest then
        call('DEL', bucket.prefix .. old)
        call('SREM', KEYS[3], old)
      end
    end
  end
end

-- 3. Tiles.
local function latest(a, b, i, k)
  -- k pairs (time, value), the latest first, of two such lists.
  local from, upto, kept = i, i + 2 * k - 1, {}
  local x, y = i, i
  for n = 1, 2 * k, 2 do
    if a[x] > b[y] or (a[x] == b[y] and a[x + 1] >= b[y + 1]) then
      kept[n], kept[n + 1] = a[x], a[x + 1]
      x = x + 2
    else
      kept[n], kept[n + 1] = b[y], b[y + 1]
      y = y + 2
    end
  end
  for n = from, upto do a[n] = kept[n - from + 1] end
end

local function larger(old, new)
  -- The index stays; of the bytes behind it, each the larger.
  local a, b = {string.byte(old, 9, -1)}, {string.byte(new, 9, -1)}
  for i = 1, #a do
    if b[i] > a[i] then a[i] = b[i] end
  end
  return sub(old, 1, 8) .. string.char(unpack(a))
end

local function merged(ops, sizes, old, new, form)
  if ops[1] == 98 then return larger(old, new) end -- b bytes
  local a, b = {unpackd(form, old)}, {unpackd(form, new)}
  local i = 2
  for p = 1, #ops do
    local op = ops[p]
    if op == 43 then -- + add
      a[i] = a[i] + b[i]
      i = i + 1
    elseif op == 60 then -- < least
      if b[i] < a[i] then a[i] = b[i] end
      i = i + 1
    elseif op == 62 then -- > greatest
      if b[i] > a[i] then a[i] = b[i] end
      i = i + 1
    elseif op == 108 then -- l last: time, value
      if b[i] > a[i] or (b[i] == a[i] and b[i + 1] > a[i + 1]) then a[i], a[i + 1] = b[i], b[i + 1] end
      i = i + 2
    elseif op == 102 then -- f first: time, value
      if b[i] < a[i] or (b[i] == a[i] and b[i + 1] < a[i + 1]) then a[i], a[i + 1] = b[i], b[i + 1] end
      i = i + 2
    elseif op == 107 then -- k latest: k times time, value
      latest(a, b, i, sizes[p])
      i = i + 2 * sizes[p]
    else -- v moments: n, mean, M2
      local n = a[i] + b[i]
      if n > 0 then
        local delta = b[i + 1] - a[i + 1]
        a[i + 2] = a[i + 2] + b[i + 2] + delta * delta * a[i] * b[i] / n
        a[i + 1] = a[i + 1] + delta * b[i] / n
        a[i] = n
      end
      i = i + 3
    end
  end
  return pack(form, unpack(a, 1, i - 1))
end

-- Looking through a hash costs as much as what it holds, so it is done when that has doubled since the last time.
local MARK, FIRST_LOOK = pack('<d', -math.huge), 256

local key = 4 + 3 * #buckets
for _ = 1, tonumber(ARGV[7]) do
  local ops, entities, counts, rows = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  local cutoff, keep, expire = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), ARGV[at + 6]
  at = at + 7
  local width, codes, sizes = 1, {}, {}
  for op, k in string.gmatch(ops, '(%D)(%d*)') do
    codes[#codes + 1], sizes[#codes + 1] = string.byte(op), tonumber(k) or 1
    width = width + (op == 'v' and 3 or (op == 'f' or op == 'l') and 2 or op == 'k' and 2 * k or op == 'b' and 4 or 1)
  end
  local form, size, pos = '<' .. string.rep('d', width), 8 * width, 1
  for e = 1, entities do
    local hash, fresh = KEYS[key], false
    key = key + 1
    for _ = 1, (unpackd('<I4', counts, 4 * e - 3)) do
      local new = sub(rows, pos, pos + size - 1)
      local tile = sub(new, 1, 8)
      pos = pos + size
      local old = call('HGET', hash, tile)
      if old then
        call('HSET', hash, tile, merged(codes, sizes, old, new, form))
      else
        call('HSET', hash, tile, new)
        fresh = true
      end
    end
    if fresh then
      call('PEXPIRE', hash, expire)
      local held, most = call('HLEN', hash), keep
      if keep == 0 then
        local said = call('HGET', hash, MARK)
        most = said and unpackd('<d', said, 9) or FIRST_LOOK
      end
      if held > most then
        for _, tile in ipairs(call('HKEYS', hash)) do
          if tile ~= MARK and unpackd('<d', tile) < cutoff then
            call('HDEL', hash, tile)
            held = held - 1
          end
        end
        -- The row that says when to look again: in no window, since its index is below all others.
        if keep == 0 then
          local look = pack('<d', math.max(FIRST_LOOK, 2 * held))
          call('HSET', hash, MARK, MARK .. look .. string.rep('\0', size - 16))
        end
      end
    end
  end
end

-- 4. The fence moves with the state.
call('HSET', KEYS[1], partition, string.format('%.0f %.0f', last, time))
local newest = 0
for _, t in ipairs(call('HVALS', KEYS[2])) do newest = math.max(newest, tonumber(t)) end
local foremost = tonumber(call('HGET', KEYS[2], partition) or '0')
if time > foremost then call('HSET', KEYS[2], partition, string.format('%.0f', time)) end

-- 5. How far the stream's time is behind this server's clock, by which tiles expire. The least of it says until when the tiles of a
-- time are there; when it has grown by a day, the stream (or its worker) stood still, and another count begins. Of what an older
-- version wrote nobody knows it: the least that it can have been is 0, since nothing is known before its time.
if time > newest then
  local clock_now = call('TIME')
  local behind = clock_now[1] * 1000000 + clock_now[2] - time
  local least, stood_at, before = behind, 0, behind
  local said = call('GET', KEYS[#KEYS - 1])
  if said then
    least, stood_at, before = string.match(said, '^(%-?%d+) (%d+) (%-?%d+)$')
    least, stood_at, before = tonumber(least), tonumber(stood_at), tonumber(before)
    if behind > least + 86400000000 then
      least, stood_at, before = behind, newest, math.min(least, before)
    elseif behind < least then
      least = behind
    end
  elseif newest > 0 then
    stood_at, before = newest, math.min(0, behind)
  end
  call('SET', KEYS[#KEYS - 1], string.format('%.0f %.0f %.0f', least, stood_at, before))
end
return {'applied', last}
