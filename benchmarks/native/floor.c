// The floor under every websocket server: accepts connections and sends the same bytes to all of them, at a rate.
//
//   floor FRAME_SIZE ROUNDS_PER_SECOND CONNECTIONS
//
// Prints its port. After CONNECTIONS handshakes it waits for a line on its standard input, sends until the next
// one (or its end), then prints "<rounds> <microseconds of CPU>" spent sending.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void upgrade(int fd) {
    // The client does not check the accept key, so a constant will do.
    static const char answer[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: x\r\n\r\n";
    char request[8192];
    if (read(fd, request, sizeof request) <= 0 || write(fd, answer, sizeof answer - 1) < 0) exit(1);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int size = atoi(argv[1]), count = atoi(argv[3]);
    double rate = atof(argv[2]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listening, (struct sockaddr *)&address, length) || listen(listening, 2048)) return 1;
    getsockname(listening, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    int *fds = calloc(count, sizeof *fds), poll_fd = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        fds[i] = accept(listening, NULL, NULL);
        if (fds[i] < 0) return 1;
        upgrade(fds[i]);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fds[i]};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fds[i], &event);
    }
    unsigned char *frame = malloc(size + 4);
    memset(frame, 'x', size + 4);
    frame[0] = 0x81;
    frame[1] = 126;
    frame[2] = size >> 8;
    frame[3] = size & 255;
    char line[64];
    if (!fgets(line, sizeof line, stdin)) return 1;
    double started = now(), cpu = cpu_us();
    long rounds = 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    while (!poll(&input, 1, 0)) {
        long due = (now() - started) * rate;
        for (; rounds < due; rounds++)
            for (int i = 0; i < count; i++)
                if (write(fds[i], frame, size + 4) < 0 && errno != EAGAIN) return 1;
        struct epoll_event events[64];
        epoll_wait(poll_fd, events, 64, 1);
    }
    printf("%ld %.0f\n", rounds, cpu_us() - cpu);
    return 0;
}
