-- Small POSTs for wrk: 256 bytes of JSON, one request for each line of the file KEYS, in turn.
-- The other values come by environment too: TARGET (the origin's URL; empty: not sent) and PAUSE_MS (between the
-- requests of a connection; 0: none). What was measured is printed as one line of JSON at the end.
local content = '{"prompt": "' .. string.rep("p", 217) .. '", "seed": 1234567890}'
content = content .. string.rep(" ", 256 - #content)
local requests, last, pause = {}, 0, tonumber(os.getenv("PAUSE_MS") or "0")

function init()
  for key in io.lines(os.getenv("KEYS")) do
    local fields = {
      ["Host"] = wrk.host .. ":" .. wrk.port,
      ["Authorization"] = "Bearer " .. key,
      ["Accept"] = "application/json",
      ["Content-Type"] = "application/json",
      ["User-Agent"] = "@fal-ai/client/1.10.1",
    }
    local target = os.getenv("TARGET")
    if target ~= "" then fields["x-fal-target-url"] = target end
    requests[#requests + 1] = wrk.format("POST", nil, fields, content)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

if pause > 0 then
  function delay() return math.random(0, 2 * pause) end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "bad_statuses": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect + e.read + e.write + e.timeout))
end
