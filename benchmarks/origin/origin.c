/* The benchmark's origin: one thread, epoll, HTTP/1.1 on a loopback port, fast enough never to be what is measured.
 *
 * Decided here: what to answer stands in the path, so that a proxy which only passes paths on needs no more rules.
 * Behaviours are found by their segment anywhere in the path (`/bench/down/5000/requests/1` is a `down`).
 *
 *   post              1 KB of JSON, with x-fal-request-id and x-fal-billable-units (also what any other path answers)
 *   sink              takes content of any size, then as post
 *   down/N            N bytes with their length          chunked/N    the same in chunks of 64 KiB, rounded up to whole ones
 *   events/N/MS       N server-sent events, one each MS milliseconds, each with its time of sending (monotonic, ns)
 *   hang              reads the request and never answers
 *   stale/MS?id=I     answers, then closes MS milliseconds later, without having said so
 *   die?id=I          reads the request whole, then resets the connection without a word
 *   stats             counters as JSON, see put_stats in answer.c
 *
 * `origin [PORT]` prints the port that it listens on and runs until SIGTERM.
 */
#include "origin.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static int listen_on(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  socklen_t size = sizeof address;
  int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) {
    perror("origin");
    exit(1);
  }
  getsockname(listener, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  return listener;
}

int main(int arguments, char **argument) {
  prepare_answers();
  serve(listen_on(arguments > 1 ? atoi(argument[1]) : 0));
}
