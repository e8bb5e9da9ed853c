/* The loop: connections that are readable, writable or due, from their acceptance to their end. */
#include "origin.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct counters count;
static int poller;
static char received[PIECE];
static struct connection *timed;

long now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

void watch(struct connection *c, bool writing) {
  struct epoll_event e = {.events = writing ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

void stop_timer(struct connection *c) {
  if (!c->timed) return;
  *c->link = c->next;
  if (c->next) c->next->link = c->link;
  c->timed = false;
}

void start_timer(struct connection *c, long after_ns) {
  c->due_ns = now_ns() + after_ns;
  if (c->timed) return;
  c->next = timed;
  c->link = &timed;
  if (timed) timed->link = &c->next;
  timed = c;
  c->timed = true;
}

/* Ends a connection; one that the peer left within an exchange counts as aborted. */
void end(struct connection *c, bool by_peer) {
  if (by_peer && c->phase != READ_HEAD) {
    count.aborted++;
    count.last_abort_ns = now_ns();
  }
  stop_timer(c);
  count.open--;
  close(c->fd);
  free(c);
}

void end_by_reset(struct connection *c) {
  struct linger at_once = {1, 0};
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  end(c, false);
}

static void on_readable(struct connection *c) {
  ssize_t length = recv(c->fd, received, sizeof received, 0);
  if (length > 0) take(c, received, length);
  else if (length == 0 || errno != EAGAIN) end(c, true);
}

static void on_writable(struct connection *c) {
  int state = send_out(c);
  if (state < 0) {
    end(c, true);
    return;
  }
  if (c->out_left) return;
  watch(c, false);
  if (state == 1) forget_request(c);
}

static void on_time(struct connection *c) {
  if (c->behaviour != EVENTS) {
    count.closed++;
    end(c, false);
    return;
  }
  c->due_ns += c->every_ns;
  if (c->out_left) return;   /* the peer has not taken the last one yet */
  put_event(c);
  int state = send_out(c);
  if (state < 0) end(c, true);
  if (state == 1) forget_request(c);
}

/* Serves those whose time has come; returns how many milliseconds the next one has, -1 where nobody waits. */
static int serve_timed(void) {
  long now = now_ns(), next = -1;
  for (struct connection *c = timed, *after; c; c = after) {
    after = c->next;
    if (c->due_ns <= now) on_time(c);
    else if (next < 0 || c->due_ns < next) next = c->due_ns;
  }
  if (!timed) return -1;
  return next < 0 ? 0 : (int)((next - now) / 1000000L) + 1;
}

static void accept_all(int listener) {
  int fd, one = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *c = calloc(1, sizeof *c);
    if (!c) exit(1);
    c->fd = fd;
    count.connections++;
    count.open++;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
  }
}

void serve(int listener) {
  struct epoll_event ready[BATCH], e = {.events = EPOLLIN, .data.ptr = NULL};
  poller = epoll_create1(0);
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    /* Timers end connections, so they are served before the poll: no event of this round can be of an ended one. */
    int number = epoll_wait(poller, ready, BATCH, serve_timed());
    for (int i = 0; i < number; i++) {
      struct connection *c = ready[i].data.ptr;
      if (!c) accept_all(listener);
      else if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
      else on_writable(c);
    }
  }
}
