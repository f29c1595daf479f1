// Opens N websocket connections, sends one frame on each, and counts the frames that come: a load client that
// costs as little as a load client can.
//
//   client HOST PORT TARGET CONNECTIONS FIRST_FRAMES FRAME_HEX
//
// Prints "ready" once every connection has received FIRST_FRAMES frames (CONNECTED, ATTACHED), or at once after
// the handshakes when that is 0. Ends when its standard input does, and prints "<frames> <bytes>" of what came
// after "ready".
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 1 << 16 };

struct connection {
    int fd;
    int upgraded;         // the answer to the handshake has been read
    int matched;          // characters of its end seen
    unsigned char head[10];
    int head_length;      // bytes of a frame's header collected
    unsigned long left;   // bytes of the payload to skip
    unsigned long frames;
};

static struct connection *connections;
static int count, first_frames, ready_connections;
static unsigned long frames, bytes;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void frame_ended(struct connection *c) {
    frames++;
    c->frames++;
    if (c->frames == (unsigned long)first_frames) ready_connections++;
}

// Returns the number of header bytes a frame has, as far as it is known.
static int header_size(const struct connection *c) {
    if (c->head_length < 2) return 2;
    int length = c->head[1] & 127;
    return length == 126 ? 4 : length == 127 ? 10 : 2;
}

static void header_ended(struct connection *c) {
    unsigned long length = c->head[1] & 127;
    int size = header_size(c);
    if (size > 2) {
        length = 0;
        for (int i = 2; i < size; i++) length = length << 8 | c->head[i];
    }
    c->left = length;
    c->head_length = 0;
    if (!length) frame_ended(c);
}

static void take(struct connection *c, const unsigned char *data, long size, const char *frame, int frame_size) {
    static const char end[] = "\r\n\r\n";
    long at = 0;
    while (!c->upgraded && at < size) {
        c->matched = data[at] == end[c->matched] ? c->matched + 1 : data[at] == '\r';
        at++;
        if (c->matched == 4) {
            c->upgraded = 1;
            if (!first_frames) ready_connections++;
            if (frame_size && write(c->fd, frame, frame_size) != frame_size) fail("write");
        }
    }
    while (at < size) {
        if (c->left) {
            long skip = (long)c->left < size - at ? (long)c->left : size - at;
            c->left -= skip;
            at += skip;
            if (!c->left) frame_ended(c);
        } else {
            c->head[c->head_length++] = data[at++];
            if (c->head_length >= 2 && c->head_length == header_size(c)) header_ended(c);
        }
    }
}

static int open_connection(const char *host, int port, const char *target) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    char request[4096];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        target, host, port);
    if (write(fd, request, size) != size) fail("write");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    count = atoi(argv[4]);
    first_frames = atoi(argv[5]);
    int frame_size = (int)strlen(argv[6]) / 2;
    char *frame = malloc(frame_size + 1);
    for (int i = 0; i < frame_size; i++) sscanf(argv[6] + 2 * i, "%2hhx", (unsigned char *)frame + i);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    connections = calloc(count + 1, sizeof *connections);
    int poll = epoll_create1(0), opened = 0, announced = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = count};
    epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
    struct epoll_event events[256];
    static unsigned char buffer[BUFFER];
    for (;;) {
        // A few at a time, so that the server's queue of new connections does not overflow.
        for (int i = 0; i < 16 && opened < count; i++, opened++) {
            connections[opened].fd = open_connection(argv[1], atoi(argv[2]), argv[3]);
            event.data.u32 = opened;
            epoll_ctl(poll, EPOLL_CTL_ADD, connections[opened].fd, &event);
        }
        int found = epoll_wait(poll, events, 256, opened < count ? 1 : 1000);
        for (int i = 0; i < found; i++) {
            unsigned which = events[i].data.u32;
            long size = read(which == (unsigned)count ? 0 : connections[which].fd, buffer, BUFFER);
            if (which == (unsigned)count) {
                if (size > 0) continue;
                printf("%lu %lu\n", frames, bytes);
                return 0;
            }
            if (size < 0 && errno == EAGAIN) continue;
            if (size <= 0) {
                fprintf(stderr, "the server closed a connection\n");
                return 1;
            }
            bytes += size;
            take(&connections[which], buffer, size, frame, frame_size);
        }
        if (!announced && ready_connections == count) {
            announced = 1;
            frames = bytes = 0;
            printf("ready\n");
            fflush(stdout);
        }
    }
}
