// Log lines: who prints what, where, whole, and the progress text of a terminal.
// test: timeout=30
#include "hirl/base.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "test.h"

static char *read_all(const char *path) {
    static char text[1 << 20];
    FILE *file = fopen(path, "r");
    NEED(file != NULL);
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    return text;
}

static int saved_stderr = -1;

static void capture_begin(const char *path) {
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    NEED(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
}

static void capture_end(void) {
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
}

static void test_lines(void) {
    const char *path = test_path("stderr"), *log = test_path("log.txt");
    FILE *old = fopen(log, "w");
    fputs("kept\n", old);
    fclose(old);
    capture_begin(path);
    hirl_log_setup(HIRL_LOG_INFO, 0);
    const hirl_status_t opened = hirl_log_open_file(log);
    hirl_log_root(HIRL_LOG_INFO, "lr = %g", 0.5);
    hirl_log_root(HIRL_LOG_WARN, "slow");
    hirl_log_root(HIRL_LOG_DEBUG, "not at this level");
    hirl_log_rank(HIRL_LOG_ERROR, "shard %d\n", 4);
    hirl_log_setup(HIRL_LOG_DEBUG, 3);
    hirl_log_root(HIRL_LOG_ERROR, "not on this rank");
    hirl_log_rank(HIRL_LOG_DEBUG, "here");
    hirl_log_rank(HIRL_LOG_TRACE, "not at this level");
    hirl_log_progress("not a terminal");
    const hirl_status_t closed = hirl_log_open_file(NULL);
    hirl_log_rank(HIRL_LOG_INFO, "after the file");
    hirl_log_setup(HIRL_LOG_INFO, 0);
    const bool is_terminal = hirl_log_is_terminal();
    capture_end();
    CHECK_OK(opened);
    CHECK_OK(closed);
    CHECK(!is_terminal);
    const char *want = "lr = 0.5\nwarning: slow\nerror: rank 0: shard 4\ndebug: rank 3: here\n";
    char all[256];
    snprintf(all, sizeof all, "%sinfo: rank 3: after the file\n", want);
    CHECK_EQ_S(read_all(path), all);
    snprintf(all, sizeof all, "kept\n%s", want);
    CHECK_EQ_S(read_all(log), all);
    CHECK_FAILS(hirl_log_open_file(test_path("no/such/folder/log")), HIRL_ERR_IO, "no/such/folder");
}

static void test_long_line(void) {
    char large[6000];
    memset(large, 'y', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    // Around the size of the buffer on the stack, a line must be neither cut nor short of its end.
    for (int n = 1005; n < 1030; n++) {
        const char *path = test_path("long");
        capture_begin(path);
        hirl_log_root(HIRL_LOG_WARN, "%.*s", n, large);
        capture_end();
        char want[6100];
        snprintf(want, sizeof want, "warning: %.*s\n", n, large);
        CHECK_EQ_S(read_all(path), want);
    }
}

static void *log_much(void *letter) {
    char line[201];
    memset(line, *(const char *)letter, 200);
    line[200] = '\0';
    for (int i = 0; i < 200; i++) hirl_log_root(HIRL_LOG_INFO, "%s", line);
    return NULL;
}

static void test_threads(void) {
    const char *path = test_path("threads");
    static const char letters[] = "abcd";
    pthread_t threads[4];
    capture_begin(path);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, log_much, (void *)(uintptr_t)&letters[i]);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    capture_end();
    int n_lines = 0, n_bad = 0;
    for (char *line = strtok(read_all(path), "\n"); line; line = strtok(NULL, "\n")) {
        n_lines++;
        n_bad += strlen(line) != 200 || strspn(line, (char[]){line[0], '\0'}) != 200;
    }
    CHECK_EQ_I(n_lines, 800);
    CHECK_EQ_I(n_bad, 0);
}

static void test_progress(void) {
    // A pseudo terminal 20 columns wide in place of stderr.
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
        printf("no pseudo terminal here: progress is not tested\n");
        return;
    }
    const int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    NEED(slave >= 0);
    struct winsize window = {.ws_row = 24, .ws_col = 20};
    NEED(ioctl(slave, TIOCSWINSZ, &window) == 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(slave, STDERR_FILENO);
    const bool is_terminal = hirl_log_is_terminal();
    hirl_log_progress("50 %");
    hirl_log_root(HIRL_LOG_INFO, "line");
    hirl_log_root(HIRL_LOG_INFO, "next");
    hirl_log_progress("123456789 123456789 too long");
    hirl_log_progress(
        "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"
        "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4");
    hirl_log_progress(NULL);
    hirl_log_progress("");
    hirl_log_setup(HIRL_LOG_INFO, 1);
    hirl_log_progress("not on this rank");
    hirl_log_setup(HIRL_LOG_INFO, 0);
    capture_end();
    char text[1024] = "";
    size_t n = 0;
    // The slave stays open, so that what was written can be read up to the last byte.
    const char *want =
        "\r\033[K50 %\r\033[Kline\r\nnext\r\n"
        "\r\033[K123456789 123456789"
        "\r\033[K\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"
        "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"
        "\r\033[K";
    fcntl(master, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 100 && n < strlen(want); i++) {
        const ssize_t got = read(master, text + n, sizeof text - 1 - n);
        if (got > 0) n += (size_t)got;
        if (got <= 0) usleep(10000);
    }
    text[n] = '\0';
    CHECK(is_terminal);
    CHECK_EQ_S(text, want);
    close(slave);
    close(master);
}

// Every limit on the file's size stands for a disk that gets full at another moment.
static void test_full(void) {
    const char *path = test_path("stderr"), *log = test_path("full.txt");
    struct rlimit old, small;
    NEED(getrlimit(RLIMIT_FSIZE, &old) == 0);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 0; limit <= 40; limit += 5) {
        remove(log);
        capture_begin(path);
        const hirl_status_t opened = hirl_log_open_file(log);
        small = old;
        small.rlim_cur = limit;
        // A file system of its own for what the test captures is not at hand: a pipe has no limit.
        int ends[2];
        NEED(pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) >= 0);
        setrlimit(RLIMIT_FSIZE, &small);
        for (int i = 0; i < 4; i++) hirl_log_root(HIRL_LOG_INFO, "line %d ...", i); // of 11 bytes
        setrlimit(RLIMIT_FSIZE, &old);
        hirl_log_root(HIRL_LOG_INFO, "there is room");
        NEED_OK(hirl_log_open_file(NULL));
        capture_end();
        close(ends[1]);
        char seen[1024] = "", expected[1024] = "", note[128];
        NEED(read(ends[0], seen, sizeof seen - 1) > 0);
        close(ends[0]);
        const int n_written = (int)limit / 11;
        for (int i = 0; i < n_written; i++)
            snprintf(expected + strlen(expected), 64, "line %d ...\n", i);
        snprintf(note, sizeof note,
                 "warning: %d lines are missing here: they could not be written\n", 4 - n_written);
        CHECK_OK(opened);
        snprintf(expected + strlen(expected), 256, "%sthere is room\n", note);
        CHECK_EQ_S(read_all(log), expected);
        // Nothing is missing there, and one warning tells what is wrong.
        CHECK_HAS(seen, "line 3 ...\n");
        const char *warning = strstr(seen, "log file cannot be written: File too large");
        CHECK(warning && !strstr(warning + 1, "log file cannot be written"));
    }
}

TEST_MAIN {
    RUN(test_lines);
    RUN(test_long_line);
    RUN(test_threads);
    RUN(test_full);
    RUN(test_progress);
}
