"""What becomes of holds and of jobs' money as the store itself runs it: Lua scripts, each atomic.

The decisions they carry:

* Every process has registers of its own in a budget's purse, and states them whole. What it says twice changes nothing,
  what was lost on the way is made up by the next statement, and what was taken from it while it seemed dead is put
  right by its return. The sums that asks look at are kept beside them.
* With its registers a process states how far its journal tells of them, and its gateway's ledger process says how far
  that journal is in the ledger. So whoever compares a purse with the ledger knows whether both are about the same.

A purse is a hash: `start` of its period (seconds since the epoch), `edition` (who fills a lost purse in begins a new
one, and all registers with it), `since` (what was settled from that second on is not filled in, but stated),
`opens` (when the first call may hold something: until then the others state what they hold), the sums `spent`, `jobs`
and `held` in nanodollars, and for each process what asks `g`ranted it, what it states in `n`et beside those (less than
nothing once it has given holds back), and what it `s`pent and added to `j`obs; the `p`lace where its journal ended when
it changed these two, and that place once it is `a`pplied to the ledger.
"""

from __future__ import annotations

from typing import Final

from gateway.state.redis.scripts import Script

_EXACT: Final = """
local function negated(number)
  if number == '0' then return number end
  return string.sub(number, 1, 1) == '-' and string.sub(number, 2) or '-' .. number
end

-- Adds value - known, whole numbers as texts, to a sum: in two steps where a double would not hold them.
local function shift(key, sum, value, known)
  if #value < 16 and #known < 16 then
    redis.call('HINCRBY', key, sum, string.format('%.0f', value - known))
  else
    redis.call('HINCRBY', key, sum, negated(known))
    redis.call('HINCRBY', key, sum, value)
  end
end
"""

_STATE: Final = """
local told, holder = {}, ARGV[1]
local names = {'g:' .. holder, 'n:' .. holder, 's:' .. holder, 'j:' .. holder}
local sums = {'held', 'held', 'spent', 'jobs'}
for place, key in ipairs(KEYS) do
  local at = 4 + (place - 1) * 6
  local row = redis.call('HMGET', key, 'start', 'edition', 'since', 'cut', unpack(names))
  if row[1] == ARGV[at] and row[2] == ARGV[at + 1] then
    local changes = {}
    for rank, name in ipairs(names) do
      local value, known = ARGV[at + 1 + rank], row[4 + rank] or '0'
      if value ~= '' and value ~= known then
        shift(key, sums[rank], value, known)
        redis.call('HSET', key, name, value)
        if rank > 2 then
          redis.call('HSET', key, 'p:' .. holder, ARGV[3])
          changes[#changes + 1] = table.concat({holder, ARGV[3], sums[rank], value, known}, ' ')
        end
      end
    end
    local left = row[4] and #changes > 0 and redis.call('RPUSHX', row[4], unpack(changes))
    if left == 0 then redis.call('HDEL', key, 'cut') end
    if left and left > 2000 then redis.call('DEL', row[4]) end
    redis.call('EXPIRE', key, 3456000)
  end
  for rank = 1, 3 do told[#told + 1] = row[rank] or '0' end
end
if ARGV[2] == '1' then
  for _, key in ipairs(KEYS) do redis.call('HDEL', key, unpack(names)) end
end
return table.concat(told, ' ')
"""

_FILL: Final = """
local found = redis.call('HGET', KEYS[1], 'edition')
if found and found ~= ARGV[7] then return 0 end
local start, spent, jobs = ARGV[1], ARGV[3], ARGV[4]
if now + 1700000000 >= tonumber(ARGV[2]) then start, spent, jobs = ARGV[2], 0, 0 end
local edition = math.max((now + 1700000000) * 1000000, ARGV[8] + 1)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'start', start, 'edition', string.format('%.0f', edition), 'since', ARGV[5],
           'opens', text(now + ARGV[6]), 'spent', spent, 'jobs', jobs, 'held', 0)
redis.call('EXPIRE', KEYS[1], 3456000)
return 1
"""

_SWEEP: Final = """
local n, s = 'n:' .. ARGV[2], 's:' .. ARGV[2]
local row = redis.call('HMGET', KEYS[1], 'start', 'g:' .. ARGV[2], n)
if row[1] ~= ARGV[1] then return 0 end
local granted, net = row[2] or '0', row[3] or '0'
local held = granted + net
if granted ~= negated(net) then
  shift(KEYS[1], 'spent', granted, negated(net))
  shift(KEYS[1], s, granted, negated(net))
  shift(KEYS[1], 'held', negated(granted), net)
  redis.call('HSET', KEYS[1], n, negated(granted))
end
if held ~= 0 and ARGV[3] == '0' then redis.call('HSET', KEYS[1], 'p:' .. ARGV[2], -1) end
if ARGV[3] == '1' then
  redis.call('HDEL', KEYS[1], 'g:' .. ARGV[2], n, s, 'j:' .. ARGV[2], 'p:' .. ARGV[2])
end
return held
"""

_OPEN_CUT: Final = """
local row = redis.call('HGETALL', KEYS[1])
if #row == 0 or redis.call('EXISTS', KEYS[2]) == 1 then return {} end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[1], 'cut', KEYS[2])
return row
"""

_CLOSE_CUT: Final = """
local changes = redis.call('LRANGE', KEYS[2], 0, -1)
if changes[1] ~= ARGV[1] then return {} end
local row = redis.call('HMGET', KEYS[1], 'edition', 'start', 'cut')
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[1], 'cut')
return row[1] == ARGV[2] and row[2] == ARGV[3] and row[3] and changes or {}
"""

_ADD: Final = """
local row = redis.call('HMGET', KEYS[1], 'edition', 'start')
if row[1] ~= ARGV[1] or row[2] ~= ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[1], 'spent', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'jobs', ARGV[4])
return 1
"""

_DROP: Final = """
if redis.call('HGET', KEYS[1], 'edition') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

_CLOSE: Final = """
local found = redis.call('GET', KEYS[1]) or ARGV[3]
if found == '' then return '?' end
local mark = string.find(found, '\\n', 1, true)
local body = mark and string.sub(found, 2, mark - 1) or string.sub(found, 2)
local was, closer = string.sub(found, 1, 1), mark and string.sub(found, mark + 1) or ''
if was == ARGV[1] and string.sub(closer, 2) == ARGV[2] then return string.sub(closer, 1, 1) .. body end
if was >= ARGV[1] then return '' end
redis.call('SET', KEYS[1], ARGV[1] .. body .. '\\n' .. was .. ARGV[2], 'EX', ARGV[4])
return was .. body
"""

_REMEMBERS: Final = """
local now = tonumber(redis.call('TIME')[1])
local since = tonumber(redis.call('GET', KEYS[1]) or now + 1) or now + 1
if since > now then
  since = now
  redis.call('SET', KEYS[1], since)
end
return now - since
"""

_TELL: Final = """
for place, key in ipairs(KEYS) do
  local found, told = redis.call('GET', key), ARGV[place + 1]
  if not found or string.sub(found, 1, 1) < string.sub(told, 1, 1) then redis.call('SET', key, told, 'EX', ARGV[1]) end
end
return #KEYS
"""

STATE: Final = Script(_EXACT + _STATE)
"""KEYS: purses. ARGV: who states, 1 where that is its last word, and where its journal ends; then for each purse start
and edition that it knows, and its registers g, n, s, j, each empty where nothing is said of it.

Answers with start, edition and since of each purse, 0 where it is not there; only where start and edition are the
purse's was anything taken from the statement.
"""

FILL: Final = Script(_FILL)
"""Fills a purse in that is not there, or is still of the edition that it is to replace; 1 where it did. ARGV: start and
end of the period, spent, jobs, since, how many seconds it stays closed, that edition (empty: none), and the latest one
that is known."""

SWEEP: Final = Script(_EXACT + _SWEEP)
"""Makes what a process holds spent; returns how much. ARGV: start, the process, 1 where it can never come back.

Where it may, its journal counts as not applied from then on: it is not known here whether its holds became spending."""

OPEN_CUT: Final = Script(_OPEN_CUT)
"""Returns a purse, and lets statements that change it later be listed beside it; empty where there is no purse, or
another cut is open. KEYS: the purse, the list. ARGV: the cut's name, and after how many seconds it closes by itself."""

CLOSE_CUT: Final = Script(_CLOSE_CUT)
"""Returns the name of a cut, and what was stated since: each a text of the process, the place where its journal ended,
`spent` or `jobs`, and the register as it is and was. Empty where it has closed by itself, or the purse has another
edition or period. KEYS: the purse, the list. ARGV: the name, edition, start."""

ADD: Final = Script(_ADD)
"""Adds to sums; 1 where the purse is the one that is meant. ARGV: edition, start, spent, jobs."""

DROP: Final = Script(_DROP)
"""Deletes a purse of an edition. ARGV: the edition."""

CLOSE: Final = Script(_CLOSE)
"""Moves a job's money up. ARGV: the state, who closes it, the job as it is known here (empty: not at all), and seconds
to live. Returns the job as it was before, also to the one who closed it and asks again; empty where there is nothing to
be done, `?` where it is known neither there nor here."""

TELL: Final = Script(_TELL)
"""Binds ids to jobs, where they are not known, or their money is further along. KEYS: the jobs. ARGV: seconds to live,
then each job's text."""

REMEMBERS: Final = Script(_REMEMBERS)
"""Returns for how many whole seconds the key has been there, and sets it where it is not: a store that was emptied has
lost it with all jobs."""
