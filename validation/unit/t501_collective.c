// Broadcast, gathers, all-to-all, scan, reductions of integers: against their definitions.
// test: ranks=1,2,4 timeout=90
#include "hirl/par.h"

#include "test.h"

static hirl_world_t *world;
static int rank, size;

static const hirl_par_type_t TYPE[] = {HIRL_PAR_U8, HIRL_PAR_I32, HIRL_PAR_I64, HIRL_PAR_F32,
                                       HIRL_PAR_F64};
static const size_t BYTES[] = {1, 4, 8, 4, 8};
enum { N_TYPES = 5 };

// Byte i of what rank r holds; a pattern that no shift by items or ranks maps to itself.
static unsigned char byte_of(int r, int64_t i) {
    return (unsigned char)(r * 59 + i * 7 + (i >> 8) * 13 + 1);
}

static unsigned char *bytes_of(int r, int64_t n) {
    unsigned char *x = NULL;
    NEED_OK(hirl_mem_alloc(HIRL_MEM_GENERAL, (size_t)n, (void **)&x));
    for (int64_t i = 0; i < n; i++) x[i] = byte_of(r, i);
    return x;
}

static bool are_bytes_of(const unsigned char *x, int r, int64_t begin, int64_t n) {
    int64_t i = 0;
    while (i < n && x[i] == byte_of(r, begin + i)) i++;
    return i == n;
}

static void test_broadcast(void) {
    for (int t = 0; t < N_TYPES; t++) {
        for (int root = 0; root < size; root++) {
            unsigned char *x = bytes_of(rank, 1001 * 8);
            CHECK_OK(hirl_par_broadcast(world, x, 1001, TYPE[t], root));
            CHECK(are_bytes_of(x, root, 0, 1001 * (int64_t)BYTES[t]));
            const int64_t end = 1001 * (int64_t)BYTES[t];
            CHECK(are_bytes_of(x + end, rank, end, 1001 * 8 - end)); // nothing beyond
            hirl_mem_free(x);
        }
    }
    CHECK_OK(hirl_par_broadcast(world, NULL, 0, HIRL_PAR_F32, 0));
    char x = 0;
    CHECK_FAILS(hirl_par_broadcast(world, &x, 1, HIRL_PAR_U8, size), HIRL_ERR_ARG, "not one of");
    CHECK_FAILS(hirl_par_broadcast(world, &x, -1, HIRL_PAR_U8, 0), HIRL_ERR_ARG, "-1 items");
    CHECK_FAILS(hirl_par_broadcast(world, &x, INT64_MAX, HIRL_PAR_F64, 0), HIRL_ERR_ARG, "count");
    CHECK_FAILS(hirl_par_broadcast(world, NULL, 1, HIRL_PAR_U8, 0), HIRL_ERR_ARG, "no memory");
    CHECK_FAILS(hirl_par_broadcast(world, &x, 1, (hirl_par_type_t)9, 0), HIRL_ERR_ARG, "type 9");
}

static void test_all_gather(void) {
    for (int t = 0; t < N_TYPES; t++) {
        const int64_t n_bytes = 77 * (int64_t)BYTES[t];
        unsigned char *in = bytes_of(rank, n_bytes), *out = bytes_of(99, n_bytes * size);
        CHECK_OK(hirl_par_all_gather(world, in, 77, TYPE[t], out));
        for (int r = 0; r < size; r++) CHECK(are_bytes_of(out + r * n_bytes, r, 0, n_bytes));
        // In place.
        memset(out, 0, (size_t)(n_bytes * size));
        memcpy(out + rank * n_bytes, in, (size_t)n_bytes);
        CHECK_OK(hirl_par_all_gather(world, out + rank * n_bytes, 77, TYPE[t], out));
        for (int r = 0; r < size; r++) CHECK(are_bytes_of(out + r * n_bytes, r, 0, n_bytes));
        hirl_mem_free(in);
        hirl_mem_free(out);
    }
    CHECK_OK(hirl_par_all_gather(world, NULL, 0, HIRL_PAR_F32, NULL));
}

static void test_all_gather_v(void) {
    int64_t counts[8], total = 0;
    for (int empty = 0; empty <= size; empty++) { // `empty` gives nothing; at last all give
        total = 0;
        for (int r = 0; r < size; r++) total += counts[r] = r == empty ? 0 : 100 + 31 * r;
        unsigned char *in = bytes_of(rank, counts[rank] * 8), *out = bytes_of(99, total * 8);
        CHECK_OK(hirl_par_all_gather_v(world, in, counts, HIRL_PAR_I64, out));
        int64_t before = 0;
        for (int r = 0; r < size; r++) {
            CHECK(are_bytes_of(out + before * 8, r, 0, counts[r] * 8));
            before += counts[r];
        }
        CHECK_EQ_I(before, total);
        hirl_mem_free(in);
        hirl_mem_free(out);
    }
    counts[0] = -1;
    char x = 0;
    CHECK_FAILS(hirl_par_all_gather_v(world, &x, counts, HIRL_PAR_U8, &x), HIRL_ERR_ARG,
                "-1 items of rank 0");
}

// Rank r sends r + 2 p items to rank p, none if (r + p) % 3 == 0.
static int64_t n_sent(int from, int to) { return (from + to) % 3 == 0 ? 0 : from + 2 * to; }

static void test_all_to_all_v(void) {
    int64_t send[8], recv[8], n_send = 0, n_recv = 0;
    for (int r = 0; r < size; r++) {
        n_send += send[r] = n_sent(rank, r);
        n_recv += recv[r] = n_sent(r, rank);
    }
    int32_t *in = NULL, *out = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n_send, &in));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n_recv + 1, &out));
    int32_t *at = in;
    for (int r = 0; r < size; r++) {
        for (int i = 0; i < send[r]; i++) *at++ = 10000 * rank + 100 * r + i;
    }
    out[n_recv] = -7;
    CHECK_OK(hirl_par_all_to_all_v(world, in, send, out, recv, HIRL_PAR_I32));
    at = out;
    for (int r = 0; r < size; r++) {
        for (int i = 0; i < recv[r]; i++) CHECK_EQ_I(*at++, 10000 * r + 100 * rank + i);
    }
    CHECK_EQ_I(out[n_recv], -7);
    hirl_mem_free(in);
    hirl_mem_free(out);
    send[rank] = 3;
    recv[rank] = 4;
    char x[256] = {0};
    CHECK_FAILS(hirl_par_all_to_all_v(world, x, send, x + 128, recv, HIRL_PAR_U8), HIRL_ERR_ARG,
                "to itself");
}

static void test_scan(void) {
    int64_t before = -1, total = -1, want_before = 0, want_total = 0;
    for (int r = 0; r < size; r++) {
        const int64_t value = ((int64_t)1 << 40) * (r % 2 ? -1 : 3) + r;
        if (r < rank) want_before += value;
        want_total += value;
    }
    const int64_t mine = ((int64_t)1 << 40) * (rank % 2 ? -1 : 3) + rank;
    CHECK_OK(hirl_par_scan_i64(world, mine, &before, &total));
    CHECK_EQ_I(before, want_before);
    CHECK_EQ_I(total, want_total);
    if (size > 1) {
        CHECK_FAILS(hirl_par_scan_i64(world, INT64_MAX, &before, &total), HIRL_ERR_ARG, "63 bits");
        CHECK_EQ_I(before, want_before); // outputs are written on success only
    }
}

static void test_integers(void) {
    int32_t i32[3] = {rank, -rank, 5};
    int64_t i64[2] = {((int64_t)1 << 50) + rank, rank};
    uint8_t u8[2] = {(uint8_t)(1 + rank), (uint8_t)(9 - rank)};
    CHECK_OK(hirl_par_all_reduce(world, i32, 3, HIRL_PAR_I32, HIRL_PAR_SUM));
    CHECK_EQ_I(i32[0], size * (size - 1) / 2);
    CHECK_EQ_I(i32[1], -size * (size - 1) / 2);
    CHECK_EQ_I(i32[2], 5 * size);
    CHECK_OK(hirl_par_all_reduce(world, i64, 2, HIRL_PAR_I64, HIRL_PAR_SUM));
    CHECK_EQ_I(i64[0], ((int64_t)1 << 50) * size + size * (size - 1) / 2);
    CHECK_OK(hirl_par_all_reduce(world, u8, 2, HIRL_PAR_U8, HIRL_PAR_MIN));
    CHECK_EQ_I(u8[0], 1);
    CHECK_EQ_I(u8[1], 9 - (size - 1));
    CHECK_FAILS(hirl_par_all_reduce(world, u8, 1, HIRL_PAR_U8, (hirl_par_op_t)7), HIRL_ERR_ARG,
                "operation 7");
}

// More than one MPI call's worth of items (2^25): the pieces must join without a seam.
static void test_large(void) {
    const int64_t n = ((int64_t)1 << 25) + 5;
    unsigned char *x = bytes_of(rank, n), *y = bytes_of(9, n);
    CHECK_OK(hirl_par_broadcast(world, x, n, HIRL_PAR_U8, 1));
    CHECK(are_bytes_of(x, 1, 0, n));
    for (int64_t i = 0; i < n; i++) x[i] = byte_of(rank, i);
    int64_t send[2] = {0, 0}, recv[2] = {0, 0}, counts[2] = {n - 10, 10};
    send[1 - rank] = recv[1 - rank] = n;
    CHECK_OK(hirl_par_all_to_all_v(world, x, send, y, recv, HIRL_PAR_U8));
    CHECK(are_bytes_of(y, 1 - rank, 0, n));
    memset(y, 0, (size_t)n);
    CHECK_OK(hirl_par_all_gather_v(world, x, counts, HIRL_PAR_U8, y));
    CHECK(are_bytes_of(y, 0, 0, n - 10) && are_bytes_of(y + n - 10, 1, 0, 10));
    hirl_mem_free(y);
    const int64_t half = n / 2 + 1;
    y = bytes_of(9, 2 * half);
    CHECK_OK(hirl_par_all_gather(world, x, half, HIRL_PAR_U8, y));
    CHECK(are_bytes_of(y, 0, 0, half) && are_bytes_of(y + half, 1, 0, half));
    CHECK_OK(hirl_par_all_reduce(world, x, n, HIRL_PAR_U8, HIRL_PAR_MAX));
    int64_t i = 0;
    for (; i < n; i++) {
        const unsigned char a = byte_of(0, i), b = byte_of(1, i);
        if (x[i] != (a > b ? a : b)) break;
    }
    CHECK_EQ_I(i, n);
    hirl_mem_free(x);
    hirl_mem_free(y);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    rank = hirl_world_rank(world);
    size = hirl_world_size(world);
    RUN(test_broadcast);
    RUN(test_all_gather);
    RUN(test_all_gather_v);
    RUN(test_all_to_all_v);
    RUN(test_scan);
    RUN(test_integers);
    if (size == 2) RUN(test_large);
    hirl_world_destroy(&world);
}
