-- One event a request, every event with an id of its own: threads and runs must not share ids.
local template = os.getenv("BENCH_EVENT")
local before, after = template:match("^(.*)000000000000(.*)$")
local counter = 0
function request()
  counter = counter + 1
  local id = string.format("%s%07d", os.getenv("BENCH_RUN"), counter)
  return wrk.format("POST", nil, { ["content-type"] = "application/json" }, before .. id .. after)
end
local other = 0
function response(status, headers, body)
  if status ~= 202 and status ~= 200 then
    other = other + 1
    if other == 1 then io.stderr:write(status .. " " .. body .. "\n") end
  end
end
