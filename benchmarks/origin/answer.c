/* What goes out: the answer that a request's path asked for, piece by piece, as fast as its reader takes it. */
#include "origin.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static char answer[2 * ANSWER], zeros[PIECE], full_chunk[CHUNK + 16];
static size_t answer_length, full_chunk_length;

void prepare_answers(void) {
  char body[ANSWER + 1];
  int length = snprintf(body, sizeof body, "{\"request_id\": \"9f1c2d3e-0000-4000-8000-1234567890ab\", \"data\": \"");
  memset(body + length, 'd', ANSWER - 2 - length);
  memcpy(body + ANSWER - 2, "\"}", 3);
  answer_length = snprintf(answer, sizeof answer,
    "HTTP/1.1 200 OK\r\nDate: Sun, 01 Nov 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
    "x-fal-request-id: 9f1c2d3e-0000-4000-8000-1234567890ab\r\nx-fal-billable-units: 1.5\r\n"
    "Content-Length: %d\r\n\r\n%s", ANSWER, body);
  full_chunk_length = snprintf(full_chunk, sizeof full_chunk, "%x\r\n", CHUNK);
  memset(full_chunk + full_chunk_length, 'c', CHUNK);
  memcpy(full_chunk + full_chunk_length + CHUNK, "\r\n", 2);
  full_chunk_length += CHUNK + 2;
}

static void say(struct connection *c, const char *bytes, size_t length) {
  c->out = bytes;
  c->out_left = length;
}

static void put_stats(struct connection *c) {
  char body[TEXT_MOST / 2];
  int length = snprintf(body, sizeof body,
    "{\"requests\": %ld, \"connections\": %ld, \"open\": %ld, \"aborted\": %ld, \"last_abort_ns\": %ld, "
    "\"closed\": %ld, \"twice\": %ld, \"content_bytes\": %ld}", count.requests, count.connections, count.open, count.aborted,
    count.last_abort_ns, count.closed, count.twice, count.content_bytes);
  say(c, c->text, snprintf(c->text, TEXT_MOST,
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", length, body));
  c->ended = true;
}

/* Puts the next piece of the answer into `out`; false where there is none. */
static bool next_piece(struct connection *c) {
  if (c->ended || (c->behaviour != DOWN && c->behaviour != CHUNKED)) return false;
  if (c->behaviour == DOWN) {
    long length = c->body_left < PIECE ? c->body_left : PIECE;
    say(c, zeros, length);
    c->body_left -= length;
    c->ended = c->body_left == 0;
  } else if (c->body_left >= CHUNK) {
    say(c, full_chunk, full_chunk_length);
    c->body_left -= CHUNK;
  } else {
    c->ended = true;
    say(c, "0\r\n\r\n", 5);
  }
  return true;
}

void put_event(struct connection *c) {
  char event[128];
  int length = snprintf(event, sizeof event, "data: {\"at\": %020ld, \"pad\": \"%056d\"}\n\n", now_ns(), 0);
  c->events_left--;
  c->ended = c->events_left <= 0;
  say(c, c->text, snprintf(c->text, TEXT_MOST, "%x\r\n%s\r\n%s", length, event, c->ended ? "0\r\n\r\n" : ""));
}

/* Sends what there is. 1: the answer is out, 0: the peer takes no more just now, or more is to come later, -1: gone. */
int send_out(struct connection *c) {
  do {
    while (c->out_left) {
      ssize_t sent = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno != EAGAIN) return -1;
        watch(c, true);
        return 0;
      }
      c->out += sent;
      c->out_left -= sent;
    }
  } while (next_piece(c));
  return c->ended;
}

void begin_answer(struct connection *c) {
  const char *kind = c->behaviour == EVENTS ? "text/event-stream" : "application/octet-stream";
  char length[48] = "Transfer-Encoding: chunked";
  c->ended = false;
  switch (c->behaviour) {
    case DOWN:
      snprintf(length, sizeof length, "Content-Length: %ld", c->body_left);
      /* fall through */
    case CHUNKED:
    case EVENTS:
      say(c, c->text, snprintf(c->text, TEXT_MOST, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n\r\n", kind, length));
      break;
    case STATS:
      put_stats(c);
      break;
    default:
      say(c, answer, answer_length);
      c->ended = true;
  }
}
