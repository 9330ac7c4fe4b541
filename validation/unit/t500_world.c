// The world, groups and worlds of one rank: who is who, fair CPUs, and refusals.
// test: ranks=1,2,4 timeout=60
#include "hirl/par.h"

#include <sched.h>

#include "test.h"

static void test_identity(hirl_world_t *world) {
    int rank = -1, size = -1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK_EQ_I(hirl_world_rank(world), rank);
    CHECK_EQ_I(hirl_world_size(world), size);
    // The runner starts all ranks on this machine.
    CHECK_EQ_I(hirl_world_n_nodes(world), 1);
    CHECK_EQ_I(hirl_world_node_rank(world), rank);
    CHECK_EQ_I(hirl_world_node_size(world), size);
    int relation = -1;
    MPI_Comm_compare(hirl_world_comm_view(world), MPI_COMM_WORLD, &relation);
    CHECK_EQ_I(relation, MPI_CONGRUENT); // same ranks, but messages cannot meet
}

static void test_cpus(void) {
    // All ranks on the same CPU, then each on its own if there are enough, then unbound.
    cpu_set_t all, one;
    NEED(sched_getaffinity(0, sizeof all, &all) == 0);
    int cpus[CPU_SETSIZE], n = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all)) cpus[n++] = cpu;
    }
    hirl_world_t *world = NULL;
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    const int size = hirl_world_size(world), rank = hirl_world_rank(world);
    CHECK_EQ_I(hirl_world_n_cpus(world), n / size > 0 ? n / size : 1);
    hirl_world_t *self = NULL;
    NEED_OK(hirl_world_create_self(&self));
    CHECK_EQ_I(hirl_world_n_cpus(self), hirl_world_n_cpus(world));
    hirl_world_destroy(&self);
    if (size == 1) {
        hirl_world_destroy(&world); // ends MPI
        return;
    }
    hirl_world_destroy(&world);

    CPU_ZERO(&one);
    CPU_SET(cpus[0], &one);
    sched_setaffinity(0, sizeof one, &one);
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    CHECK_EQ_I(hirl_world_n_cpus(world), 1);
    hirl_world_destroy(&world);
    if (n >= 2) {
        // Rank 0 alone on one CPU; the others share what is left.
        CPU_ZERO(&one);
        if (rank == 0) {
            CPU_SET(cpus[0], &one);
        } else {
            for (int i = 1; i < n; i++) CPU_SET(cpus[i], &one);
        }
        sched_setaffinity(0, sizeof one, &one);
        NEED_OK(hirl_world_create(NULL, NULL, &world));
        const int fair = (n - 1) / (size - 1);
        CHECK_EQ_I(hirl_world_n_cpus(world), rank == 0 || fair < 1 ? 1 : fair);
        hirl_world_destroy(&world);
    }
    sched_setaffinity(0, sizeof all, &all);
}

static void test_self(hirl_world_t *world) {
    hirl_world_t *self = NULL;
    NEED_OK(hirl_world_create_self(&self));
    CHECK_EQ_I(hirl_world_rank(self), 0);
    CHECK_EQ_I(hirl_world_size(self), 1);
    CHECK_EQ_I(hirl_world_node_size(self), 1);
    CHECK_EQ_I(hirl_world_n_nodes(self), 1);
    // Only one rank calls: nobody else is needed.
    if (hirl_world_rank(world) == hirl_world_size(world) - 1) {
        float x[3] = {1, 2, 3};
        hirl_par_request_t *request = NULL;
        CHECK_OK(hirl_par_all_reduce(self, x, 3, HIRL_PAR_F32, HIRL_PAR_SUM));
        CHECK_OK(hirl_par_all_reduce_begin(self, x, 3, &request));
        CHECK_OK(hirl_par_all_reduce_end(self, &request));
        CHECK_OK(hirl_par_barrier(self));
        CHECK(x[0] == 1 && x[1] == 2 && x[2] == 3);
        CHECK_FAILS(hirl_par_agree(self, HIRL_FAIL(HIRL_ERR_IO, "alone")), HIRL_ERR_IO, "alone");
    }
    hirl_world_destroy(&self);
    CHECK(self == NULL);
    hirl_world_destroy(&self);
}

static void test_split(hirl_world_t *world) {
    const int size = hirl_world_size(world), rank = hirl_world_rank(world);
    hirl_world_t *group = NULL;
    for (int group_size = 1; group_size <= size; group_size++) {
        if (size % group_size != 0) {
            CHECK_FAILS(hirl_world_split(world, group_size, &group), HIRL_ERR_ARG, "divisor");
            continue;
        }
        NEED_OK(hirl_world_split(world, group_size, &group));
        CHECK_EQ_I(hirl_world_size(group), group_size);
        CHECK_EQ_I(hirl_world_rank(group), rank % group_size);
        CHECK_EQ_I(hirl_world_n_cpus(group), hirl_world_n_cpus(world));
        int64_t ranks[2] = {rank, -rank};
        CHECK_OK(hirl_par_all_reduce(group, ranks, 2, HIRL_PAR_I64, HIRL_PAR_MAX));
        CHECK_EQ_I(-ranks[1], rank / group_size * group_size);
        CHECK_EQ_I(ranks[0], rank / group_size * group_size + group_size - 1);
        hirl_world_destroy(&group);
    }
    CHECK_FAILS(hirl_world_split(world, 0, &group), HIRL_ERR_ARG, "divide");
    CHECK_FAILS(hirl_world_split(world, -1, &group), HIRL_ERR_ARG, "divide");
    CHECK(group == NULL);
}

TEST_MAIN {
    hirl_world_t *world = NULL;
    if (test_size() > 1) {
        NEED_OK(hirl_world_create(NULL, NULL, &world));
        test_identity(world);
        test_self(world);
        test_split(world);
        CHECK_OK(hirl_world_log_table(world, "cpu"));
        CHECK_OK(hirl_world_log_table(world, NULL));
        hirl_world_destroy(&world);
        test_cpus();
        return;
    }
    // Alone, without mpirun: the world starts and ends MPI itself.
    int is_finalised = 0;
    CHECK_FAILS(hirl_world_create_self(&world), HIRL_ERR_ARG, "hirl_world_create first");
    int argc = test_argc();
    char **argv = test_argv();
    NEED_OK(hirl_world_create(&argc, &argv, &world));
    test_identity(world);
    test_self(world);
    test_split(world);
    CHECK_OK(hirl_world_log_table(world, "cpu"));
    test_cpus(); // a second world beside it, which must not end MPI
    MPI_Finalized(&is_finalised);
    CHECK(!is_finalised);
    CHECK_OK(hirl_par_barrier(world));
    hirl_world_destroy(&world);
    MPI_Finalized(&is_finalised);
    CHECK(is_finalised);
    CHECK_FAILS(hirl_world_create(NULL, NULL, &world), HIRL_ERR_MPI, "once");
}
