/* What comes in: heads and content, by length or chunked, and what a path asks for. */
#include "origin.h"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static unsigned char seen[IDS];

/* Makes ready for the connection's next request. */
void forget_request(struct connection *c) {
  stop_timer(c);
  c->phase = READ_HEAD;
  c->head_length = c->size_length = 0;
}

/* The request is read whole: answers it as its path says. -1: the connection is gone. */
static int answer_request(struct connection *c) {
  if (c->behaviour != STATS) count.requests++;   /* to ask is not to change the answer */
  c->phase = WAIT;
  if (c->behaviour == HANG) return 0;
  if (c->behaviour == DIE) {
    end_by_reset(c);
    return -1;
  }
  c->phase = WRITE;
  begin_answer(c);
  int state = send_out(c);
  if (state < 0) end(c, true);
  if (state <= 0) {
    if (state == 0 && c->behaviour == EVENTS) start_timer(c, c->every_ns);
    return state;
  }
  forget_request(c);
  if (c->behaviour == STALE) start_timer(c, c->every_ns);
  return 1;
}

static long number_after(const char *text, const char *mark, long otherwise) {
  const char *found = strstr(text, mark);
  return found ? strtol(found + strlen(mark), NULL, 10) : otherwise;
}

static void count_id(const char *path) {
  long id = number_after(path, "?id=", -1);
  if (id < 0) return;
  if (seen[id % IDS]) count.twice++;
  seen[id % IDS] = 1;
}

static void read_path(struct connection *c, const char *path) {
  static const struct { const char *mark; enum behaviour behaviour; } known[] = {
    {"/down/", DOWN}, {"/chunked/", CHUNKED}, {"/events/", EVENTS}, {"/hang", HANG}, {"/stale/", STALE},
    {"/die", DIE}, {"/stats", STATS}};
  const char *found = NULL;
  c->behaviour = POST;
  for (size_t i = 0; i < sizeof known / sizeof *known && !found; i++) {
    found = strstr(path, known[i].mark);
    if (!found) continue;
    c->behaviour = known[i].behaviour;
    char *behind;
    long first = strtol(found + strlen(known[i].mark), &behind, 10);
    c->body_left = c->behaviour == CHUNKED ? (first + CHUNK - 1) / CHUNK * CHUNK : first;
    c->events_left = first;
    c->every_ns = 1000000L * (c->behaviour == EVENTS && *behind == '/' ? strtol(behind + 1, NULL, 10) : first);
  }
  count_id(path);
}

/* Looks at the head once it is whole: what to answer, and how long the content is. */
static void read_head(struct connection *c) {
  char *line_end = strstr(c->head, "\r\n"), *fields = line_end + 2;
  *line_end = 0;
  stop_timer(c);
  read_path(c, strchr(c->head, ' ') ? strchr(c->head, ' ') + 1 : c->head);
  c->chunked = strcasestr(fields, "\ntransfer-encoding: chunked") || !strncasecmp(fields, "transfer-encoding: c", 20);
  const char *length = strcasestr(fields - 1, "\ncontent-length:");
  c->content_left = length ? strtol(length + 16, NULL, 10) : 0;
  c->framing = IN_SIZE;
  c->phase = READ_CONTENT;
  if (strcasestr(fields, "expect: 100-continue")) send(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL);
}

/* Takes bytes of a head; returns how many were its own, -1 for a head that is too long. */
static long take_head(struct connection *c, const char *bytes, long length) {
  size_t before = c->head_length, room = HEAD_MOST - 1 - before;
  size_t taken = (size_t)length < room ? (size_t)length : room;
  memcpy(c->head + before, bytes, taken);
  c->head[c->head_length += taken] = 0;
  char *head_end = strstr(c->head + (before > 3 ? before - 3 : 0), "\r\n\r\n");
  if (!head_end) return taken == room ? -1 : (long)taken;
  size_t whole = head_end + 4 - c->head;
  c->head[whole] = 0;
  read_head(c);
  return whole - before;
}

/* Takes one byte or one run of bytes of chunked content; returns how many. Sets `chunked` to false at its end. */
static long take_chunked(struct connection *c, const char *bytes, long length) {
  if (c->framing == IN_DATA) {
    long taken = length < c->content_left ? length : c->content_left;
    c->content_left -= taken;
    count.content_bytes += taken;
    if (!c->content_left) c->framing = AFTER_DATA;
    return taken;
  }
  if (*bytes != '\n') {
    if (c->framing == IN_SIZE && c->size_length < sizeof c->size_line - 1) c->size_line[c->size_length++] = *bytes;
  } else if (c->framing == IN_SIZE) {
    c->size_line[c->size_length] = 0;
    c->size_length = 0;
    c->content_left = strtol(c->size_line, NULL, 16);
    c->framing = c->content_left ? IN_DATA : IN_TRAILER;
  } else if (c->framing == AFTER_DATA) {
    c->framing = IN_SIZE;
  } else {
    c->chunked = false;
  }
  return 1;
}

static long take_content(struct connection *c, const char *bytes, long length) {
  if (c->chunked) return take_chunked(c, bytes, length);
  long taken = length < c->content_left ? length : c->content_left;
  c->content_left -= taken;
  count.content_bytes += taken;
  return taken;
}

/* Takes what was received; several requests may be in it. -1: the connection is gone. */
int take(struct connection *c, const char *bytes, long length) {
  while (length > 0 && c->phase <= READ_CONTENT) {
    long taken = c->phase == READ_HEAD ? take_head(c, bytes, length) : take_content(c, bytes, length);
    if (taken < 0) {
      end(c, false);
      return -1;
    }
    bytes += taken;
    length -= taken;
    if (c->phase == READ_CONTENT && !c->chunked && !c->content_left && answer_request(c) < 0) return -1;
  }
  return 0;
}
