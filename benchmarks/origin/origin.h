/* What the parts of the origin share: a connection, its phases, and the counters. */
#ifndef ORIGIN_H
#define ORIGIN_H
#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>

enum { HEAD_MOST = 16384, TEXT_MOST = 512, CHUNK = 65536, PIECE = 262144, IDS = 1 << 20, BATCH = 512, ANSWER = 1024 };
enum phase { READ_HEAD, READ_CONTENT, WRITE, WAIT };
enum behaviour { POST, DOWN, CHUNKED, EVENTS, HANG, STALE, DIE, STATS };
enum framing { IN_SIZE, IN_DATA, AFTER_DATA, IN_TRAILER };

struct connection {
  int fd;
  enum phase phase;
  enum behaviour behaviour;
  char head[HEAD_MOST];
  size_t head_length;
  bool chunked;           /* the request's content */
  enum framing framing;
  long content_left;      /* of the content, or of the chunk being read */
  char size_line[20];
  size_t size_length;
  char text[TEXT_MOST];   /* a piece that is made for this connection */
  const char *out;
  size_t out_left;
  long body_left;         /* of the answer, behind the piece in `out` */
  bool ended;             /* the end of the answer is in `out` */
  long events_left, every_ns, due_ns;
  struct connection *next, **link;   /* the list of those that wait for their time */
  bool timed;
};


struct counters { long requests, connections, open, aborted, last_abort_ns, closed, twice, content_bytes; };
extern struct counters count;

/* loop.c: watching, timers, the end of a connection */
long now_ns(void);
void watch(struct connection *c, bool writing);
void start_timer(struct connection *c, long after_ns);
void stop_timer(struct connection *c);
void end(struct connection *c, bool by_peer);
void end_by_reset(struct connection *c);
void serve(int listener);

/* request.c: what comes in */
int take(struct connection *c, const char *bytes, long length);
void forget_request(struct connection *c);

/* answer.c: what goes out */
void prepare_answers(void);
void begin_answer(struct connection *c);
void put_event(struct connection *c);
int send_out(struct connection *c);
#endif
