"""The rules of limits and holds as the store itself runs them: Lua scripts, each atomic.

The decisions they carry:

* Time is the store's own (`TIME`), so that replicas whose clocks differ agree. It is counted in seconds from November
  2023: a double then resolves 15 ns, and `%.17g` writes it without loss.
* A clock that jumps locks no key: what lies further ahead than the rules allow is brought back, and stays so. Nor
  does it free more than one bucket: a bucket is at most full, however long ago it was last touched.
* Every key expires by itself soon after it has nothing more to say.
* Rounding costs nobody a unit: a hundredth of an interval is forgiven, once for a bucket and not once for a call.
* Money is exact. A double holds whole nano-dollars up to nine million dollars (2**53); above, sums are changed by
  HINCRBY with the figures as texts, and compared in two parts.

A limit's row in ARGV is kind, interval, span, ahead, shadow: `ahead` is how far beyond a spent bucket its moment may
lie (requests: the longest wait; bytes: what was overdrawn). For concurrency, interval is how many slots there are, and
span how long a lease lives. A budget's row is its limit, and the start and the end of the present period as the gateway
sees it; the store's clock decides (budget_scripts.py has the layout of a purse).
"""

from __future__ import annotations

import hashlib
from typing import Final

_CLOCK: Final = """
local time = redis.call('TIME')
local now = (time[1] - 1700000000) + time[2] / 1000000
"""

_SHARED: Final = """
local function text(number) return string.format('%.17g', number) end

local function keep(key, tat)
  if tat > now then
    redis.call('SET', key, text(tat), 'PX', string.format('%.0f', math.ceil((tat - now) * 1000) + 1000))
  else
    redis.call('DEL', key)
  end
end

-- The moment at which a bucket is full again, which for a full one is now. One that lies further ahead than it may,
-- by more than clocks are set right by, becomes that of a spent bucket.
local function moment(key, span, ahead)
  local tat = tonumber(redis.call('GET', key) or now) or now
  if tat > now + span + ahead + 1 then
    tat = now + span
    keep(key, tat)
  end
  return math.max(tat, now)
end

-- Takes the dead out of a set of members by their time of death; returns how many live.
local function living(key, span)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, text(now + span + 1), '+inf')) do
    redis.call('ZADD', key, text(now + span), member)
  end
  return redis.call('ZCARD', key)
end

-- Lets members live for so long from now; returns how many are new.
local function enlist(key, span, members)
  local new = 0
  for _, member in ipairs(members) do new = new + redis.call('ZADD', key, text(now + span), member) end
  redis.call('PEXPIRE', key, string.format('%.0f', span * 1000 + 1000))
  return new
end
"""

_ASK: Final = """
local REQUESTS, CONCURRENT, FORGIVEN = '0', '2', 0.01
local lease, limits, rows = ARGV[1], #KEYS - ARGV[2], {}
local granted, delay, refused_by, retry = true, 0, -1, 0

for place = 1, limits do
  local key, at = KEYS[place], 3 + (place - 1) * 5
  local row = {key = key, kind = ARGV[at], interval = tonumber(ARGV[at + 1]), span = tonumber(ARGV[at + 2]),
               ahead = tonumber(ARGV[at + 3]), shadow = ARGV[at + 4] == '1'}
  local beyond, wait  -- whether it says no; until when it would
  if row.kind == CONCURRENT then
    row.held = living(key, row.span)
    beyond, wait = row.held >= row.interval, 1
  else
    row.tat = moment(key, row.span, row.ahead)
    local over = row.tat + row.interval - now - row.span
    local patience = row.kind == REQUESTS and row.ahead or 0
    beyond, wait = over > patience + row.interval * FORGIVEN, over
    if not beyond and not row.shadow and over > row.interval * FORGIVEN then delay = math.max(delay, over) end
  end
  row.beyond = beyond
  if beyond and not row.shadow then
    if granted then refused_by = place - 1 end
    granted, retry = false, math.max(retry, wait)
  end
  rows[place] = row
end

local purses, over, used, begun = {}, -1, 0, 0
local from = 3 + limits * 5
local holder = ARGV[from]
for place = limits + 1, #KEYS do
  local at = from + 2 + (place - limits - 1) * 3
  local found = granted and purse(KEYS[place], ARGV[at + 1], ARGV[at + 2])
  if found and fits(found, ARGV[from + 1], ARGV[at]) then
    purses[#purses + 1] = found
  elseif granted then
    granted, over = false, place - limits - 1
    used, begun = found and found.sum or -1, found and found.start or 0
  end
end
for place, found in ipairs(granted and purses or {}) do
  redis.call('HINCRBY', found.key, 'held', ARGV[from + 1])
  redis.call('HINCRBY', found.key, 'g:' .. holder, ARGV[from + 1])
end

local told = {granted and 1 or 0, math.ceil(granted and delay * 1000000 or 0), refused_by, math.ceil(retry * 1000000),
              over, used, begun}
for _, row in ipairs(rows) do
  local takes = granted and not row.beyond
  local left, wait
  if row.kind == CONCURRENT then
    if takes then
      row.held = row.held + enlist(row.key, row.span, {lease})
    end
    left, wait = math.max(0, row.interval - row.held), -1
  else
    if takes and row.kind == REQUESTS then
      row.tat = row.tat + row.interval
      keep(row.key, row.tat)
    end
    local units = (row.span - (row.tat - now)) / row.interval
    left = math.max(0, math.floor(units + FORGIVEN))
    wait = math.max(0, row.tat - now)  -- until all is there
    if row.kind == REQUESTS and wait > 0 then wait = (left + 1 - units) * row.interval end
    wait = math.ceil(wait * 1000000)
  end
  told[#told + 1] = left
  told[#told + 1] = wait
  told[#told + 1] = row.beyond and row.shadow and 1 or 0
end
for _, found in ipairs(granted and purses or {}) do
  told[#told + 1] = found.start
  told[#told + 1] = found.edition
  told[#told + 1] = found.since
end
for place, number in ipairs(told) do told[place] = string.format('%.0f', number) end
return table.concat(told, ' ')
"""

_PURSE: Final = """
-- Returns a budget's sums in the period that is now; nil where they were never filled in, or are still being told.
-- A period that has begun is never left for an earlier one. What jobs hold is less than nothing where a process died
-- that had bound one and not said so yet: its hold became spent, and whoever settles the job frees it all the same.
local function purse(key, from, till)
  local row = redis.call('HMGET', key, 'start', 'edition', 'since', 'opens', 'spent', 'jobs', 'held')
  if not row[1] then return nil end
  local epoch, start, due = now + 1700000000, tonumber(row[1]), tonumber(from)
  if epoch >= tonumber(till) then due = tonumber(till) elseif epoch < due then due = start end
  if start < due then
    start, row[5], row[6], row[7] = due, 0, 0, 0
    redis.call('DEL', key)
    redis.call('HSET', key, 'start', string.format('%.0f', due), 'edition', row[2], 'since', row[3], 'opens', row[4],
               'spent', 0, 'jobs', 0, 'held', 0)
    redis.call('EXPIRE', key, 3456000)
  end
  if tonumber(row[4]) > now and tonumber(row[4]) < now + 60 then return nil end
  return {key = key, start = start, edition = tonumber(row[2]), since = tonumber(row[3]),
          sum = row[5] + row[6] + math.max(0, row[7]), row = row}
end

-- A whole number given as text, in billions and what is beyond them.
local function split(number)
  local digits, sign = tostring(number), 1
  if string.sub(digits, 1, 1) == '-' then digits, sign = string.sub(digits, 2), -1 end
  return sign * tonumber('0' .. string.sub(digits, 1, -10)), sign * tonumber(string.sub(digits, -9))
end

-- Whether there is room for an estimate below a limit, both as texts.
local function fits(found, estimate, limit)
  if #limit < 16 then return found.sum + estimate <= tonumber(limit) end
  local high, low = split(limit)
  for _, part in ipairs({found.row[5], found.row[6], tonumber(found.row[7]) > 0 and found.row[7] or 0, estimate}) do
    local billions, rest = split(part)
    high, low = high - billions, low - rest
  end
  return high * 1000000000 + low >= 0
end
"""

_MOVE: Final = """
for place, key in ipairs(KEYS) do
  local at = (place - 1) * 4
  local change, span, ahead = ARGV[at + 1] * ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  keep(key, math.min(moment(key, span, ahead) + change, now + span + ahead))
end
return 'OK'
"""

_RENEW: Final = """
local span, members = tonumber(ARGV[1]), {}
for place = 2, #ARGV do members[place - 1] = ARGV[place] end
return living(KEYS[1], span) + enlist(KEYS[1], span, members)
"""


class Script:
    """A script's text and the digest under which the store knows it, both packed as the first words of a command."""

    __slots__ = ("by_digest", "by_text", "digest", "text")

    def __init__(self, body: str) -> None:
        self.text: Final = (_CLOCK + _SHARED + body).encode()
        # What the store names scripts by: a name and no protection.
        self.digest: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()
        self.by_digest: Final = b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % self.digest
        self.by_text: Final = b"$4\r\nEVAL\r\n$%d\r\n%b\r\n" % (len(self.text), self.text)


ASK: Final = Script(_PURSE + _ASK)
"""KEYS: one for each limit, then one for each budget. ARGV: the lease, how many budgets, and a row for each limit;
then, where there are budgets, who holds, the estimate, and a row for each budget.

Answers with whole numbers in one text: granted (1 or 0), delay, refused_by, retry_after, over_budget, used_ns,
begun_at; then for each limit remaining, waits, and 1 where a shadow limit would have said no; then, where granted, for
each budget start, edition, since. Times in microseconds, `waits` -1 for concurrency.
"""

MOVE: Final = Script(_MOVE)
"""Adds units to buckets, or gives them back. ARGV for each key: units, interval, span, ahead."""

RENEW: Final = Script(_RENEW)
"""Enlists members of one set until so many seconds from now. ARGV: the seconds, then members. Returns how many live."""

CLOCK: Final = _CLOCK
"""The one place at which the scripts learn the time."""
