-- One question a request. Where the body has a place for it, every question has an id of its own.
local before, after = os.getenv("BENCH_BODY"):match("^(.*)@@@@@@@@@@@@(.*)$")
local whole = os.getenv("BENCH_BODY")
local headers = { ["content-type"] = "application/json" }
local counter = 0
local same
function request()
  if not before then
    same = same or wrk.format("POST", nil, headers, whole)  -- not earlier: wrk does not know the host before
    return same
  end
  counter = counter + 1
  local id = string.format("%s%07d", os.getenv("BENCH_RUN"), counter)
  return wrk.format("POST", nil, headers, before .. id .. after)
end
local other = 0
function response(status, headers, body)
  if status ~= 200 then
    other = other + 1
    if other == 1 then io.stderr:write(status .. " " .. body .. "\n") end
  end
end
