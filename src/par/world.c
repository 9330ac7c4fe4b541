// The MPI world: start and end, who shares a node, how many CPUs are this rank's fair part. All
// communicators are duplicates, so that messages of libraries that use MPI_COMM_WORLD never meet
// ours.
#include "par_impl.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CPU_MASK_BYTES = 1024, CPU_MAX = 8 * CPU_MASK_BYTES }; // as many as Linux can be built for

hirl_status_t hirl_par_fail_mpi(int code, const char *what, const char *file, int line,
                                const char *func) {
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int n_text = 0;
    if (MPI_Error_string(code, text, &n_text) != MPI_SUCCESS || n_text == 0)
        snprintf(text, sizeof text, "code %d", code);
    int n_name = (int)strcspn(what, "(");
    return hirl_error_record(HIRL_ERR_MPI, file, line, func, "%.*s: %s", n_name, what, text);
}

hirl_status_t hirl_par_fail_messages(int code, int n, const MPI_Status *statuses, const char *what,
                                     const char *file, int line, const char *func) {
    for (int i = 0; code == MPI_ERR_IN_STATUS && i < n; i++) {
        int cause = statuses[i].MPI_ERROR;
        if (cause != MPI_SUCCESS && cause != MPI_ERR_PENDING) code = cause;
    }
    return hirl_par_fail_mpi(code, what, file, line, func);
}

// ------------------------------------------------------------------------------------ CPUs

// The CPUs this process may run on, as one bit each.
static void read_affinity(unsigned char mask[CPU_MASK_BYTES]) {
    union {
        unsigned char bytes[CPU_MASK_BYTES];
        cpu_set_t set; // for its alignment
    } found;
    memset(&found, 0, sizeof found);
    memset(mask, 0, CPU_MASK_BYTES);
    if (sched_getaffinity(0, sizeof found, &found.set) == 0) {
        for (int cpu = 0; cpu < CPU_MAX; cpu++) {
            if (CPU_ISSET_S((size_t)cpu, sizeof found, &found.set))
                mask[cpu / 8] |= (unsigned char)(1u << cpu % 8);
        }
        return;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    if (n < 1) n = 1;
    for (long cpu = 0; cpu < n && cpu < CPU_MAX; cpu++)
        mask[cpu / 8] |= (unsigned char)(1u << cpu % 8);
}

static bool has_cpu(const unsigned char *mask, int cpu) {
    return (mask[cpu / 8] >> cpu % 8 & 1u) != 0;
}

// A CPU that k ranks of the node may use counts 1/k for each: equal sets are divided, disjoint ones
// kept whole.
static hirl_status_t count_cpus(hirl_world_t *world) {
    hirl_status_t status;
    unsigned char *masks = NULL;
    unsigned char mine[CPU_MASK_BYTES];
    read_affinity(mine);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, (int64_t)world->node_size * CPU_MASK_BYTES, &masks));
    HIRL_TRY_MPI_GOTO(
        MPI_Allgather(mine, CPU_MASK_BYTES, MPI_BYTE, masks, CPU_MASK_BYTES, MPI_BYTE, world->node),
        status, err_free_masks);
    double share = 0;
    for (int cpu = 0; cpu < CPU_MAX; cpu++) {
        if (!has_cpu(mine, cpu)) continue;
        int n_ranks = 0;
        for (int r = 0; r < world->node_size; r++)
            n_ranks += has_cpu(masks + (size_t)r * CPU_MASK_BYTES, cpu);
        share += 1.0 / n_ranks;
    }
    world->n_cpus = (int)(share + 1e-6); // thirds and the like must add up to whole CPUs
    if (world->n_cpus < 1) world->n_cpus = 1;
    status = HIRL_OK;
err_free_masks:
    hirl_mem_free(masks);
    return status;
}

// "0-3,8": the CPUs of this process; cut with "..." where there is no room.
static void format_cpus(char *buf, size_t size) {
    unsigned char mask[CPU_MASK_BYTES];
    read_affinity(mask);
    size_t used = 0;
    buf[0] = '\0';
    for (int cpu = 0; cpu < CPU_MAX; cpu++) {
        if (!has_cpu(mask, cpu)) continue;
        int last = cpu;
        while (last + 1 < CPU_MAX && has_cpu(mask, last + 1)) last++;
        char part[32];
        int n = last > cpu ? snprintf(part, sizeof part, "%s%d-%d", used ? "," : "", cpu, last)
                           : snprintf(part, sizeof part, "%s%d", used ? "," : "", cpu);
        if (used + (size_t)n + 4 >= size) {
            snprintf(buf + used, size - used, "...");
            return;
        }
        memcpy(buf + used, part, (size_t)n + 1);
        used += (size_t)n;
        cpu = last;
    }
}

// A world of one rank is made without asking the others, so it cannot count who shares its CPUs:
// the share found by the first world travels as the name of MPI_COMM_SELF.
static const char SELF_NAME[] = "hirl self, CPUs %d";

// ------------------------------------------------------------------------------------ create

// Takes over `comm` (also on failure) and fills in the rest. Collective on comm.
static hirl_status_t describe(hirl_world_t *world, MPI_Comm comm) {
    world->comm = comm;
    world->direct = world->node = MPI_COMM_NULL;
    HIRL_TRY_MPI(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN));
    HIRL_TRY_MPI(MPI_Comm_rank(comm, &world->rank));
    HIRL_TRY_MPI(MPI_Comm_size(comm, &world->size));
    HIRL_TRY_MPI(MPI_Comm_dup(comm, &world->direct));
    HIRL_TRY_MPI(MPI_Comm_set_errhandler(world->direct, MPI_ERRORS_RETURN));
    HIRL_TRY_MPI(
        MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL, &world->node));
    HIRL_TRY_MPI(MPI_Comm_set_errhandler(world->node, MPI_ERRORS_RETURN));
    HIRL_TRY_MPI(MPI_Comm_rank(world->node, &world->node_rank));
    HIRL_TRY_MPI(MPI_Comm_size(world->node, &world->node_size));
    int is_first = world->node_rank == 0;
    HIRL_TRY_MPI(MPI_Allreduce(&is_first, &world->n_nodes, 1, MPI_INT, MPI_SUM, comm));

    int *tag_max = NULL, has_tag_max = 0;
    HIRL_TRY_MPI(MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &tag_max, &has_tag_max));
    world->n_tags = (has_tag_max && *tag_max < 1 << 20 ? *tag_max : 1 << 20) - HIRL_PAR_TAG_REDUCE;
    return HIRL_OK;
}

static void free_comms(hirl_world_t *world) {
    MPI_Comm *comms[] = {&world->node, &world->direct, &world->comm};
    for (size_t i = 0; i < sizeof comms / sizeof comms[0]; i++) {
        if (*comms[i] != MPI_COMM_NULL) MPI_Comm_free(comms[i]);
    }
}

// All fields that a failed creation may look at.
static hirl_status_t create_empty(hirl_world_t **world_p) {
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, world_p));
    (*world_p)->comm = (*world_p)->direct = (*world_p)->node = MPI_COMM_NULL;
    return HIRL_OK;
}

hirl_status_t hirl_world_create(int *argc, char ***argv, hirl_world_t **world_p) {
    hirl_world_t *world = NULL;
    int is_initialised = 0, is_finalised = 0, provided = 0;
    HIRL_TRY_MPI(MPI_Initialized(&is_initialised));
    HIRL_TRY_MPI(MPI_Finalized(&is_finalised));
    HIRL_REQUIRE(!is_finalised, HIRL_ERR_MPI, "MPI was finalised; a process can use it only once");
    hirl_status_t status;
    HIRL_TRY(create_empty(&world));
    if (!is_initialised) {
        HIRL_TRY_MPI_GOTO(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), status,
                          err_destroy);
        world->has_initialised = true;
    } else {
        HIRL_TRY_MPI_GOTO(MPI_Query_thread(&provided), status, err_destroy);
    }
    // Before the first call that can fail: the default handler ends the job without our text.
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    if (provided < MPI_THREAD_FUNNELED) {
        status = HIRL_FAIL(HIRL_ERR_MPI,
                           "this MPI does not support threads beside the one that calls it "
                           "(MPI_THREAD_FUNNELED); use a build that does");
        goto err_destroy;
    }
    MPI_Comm comm;
    HIRL_TRY_MPI_GOTO(MPI_Comm_dup(MPI_COMM_WORLD, &comm), status, err_destroy);
    HIRL_TRY_GOTO(describe(world, comm), status, err_destroy);
    HIRL_TRY_GOTO(count_cpus(world), status, err_destroy);
    char name[MPI_MAX_OBJECT_NAME];
    snprintf(name, sizeof name, SELF_NAME, world->n_cpus);
    HIRL_TRY_MPI_GOTO(MPI_Comm_set_name(MPI_COMM_SELF, name), status, err_destroy);
    *world_p = world;
    return HIRL_OK;

err_destroy:
    hirl_world_destroy(&world);
    return status;
}

hirl_status_t hirl_world_create_self(hirl_world_t **world_p) {
    hirl_world_t *world = NULL;
    int is_initialised = 0;
    HIRL_TRY_MPI(MPI_Initialized(&is_initialised));
    HIRL_REQUIRE(is_initialised, HIRL_ERR_ARG,
                 "a world of one rank needs MPI: call hirl_world_create first");
    hirl_status_t status;
    HIRL_TRY(create_empty(&world));
    MPI_Comm comm;
    HIRL_TRY_MPI_GOTO(MPI_Comm_dup(MPI_COMM_SELF, &comm), status, err_destroy);
    HIRL_TRY_GOTO(describe(world, comm), status, err_destroy);
    char name[MPI_MAX_OBJECT_NAME];
    int n_name = 0;
    HIRL_TRY_MPI_GOTO(MPI_Comm_get_name(MPI_COMM_SELF, name, &n_name), status, err_destroy);
    if (sscanf(name, SELF_NAME, &world->n_cpus) != 1) {
        HIRL_TRY_GOTO(count_cpus(world), status, err_destroy);
    }
    *world_p = world;
    return HIRL_OK;

err_destroy:
    hirl_world_destroy(&world);
    return status;
}

hirl_status_t hirl_world_split(hirl_world_t *world, int group_size, hirl_world_t **group_p) {
    HIRL_REQUIRE(group_size > 0 && world->size % group_size == 0, HIRL_ERR_ARG,
                 "groups of %d ranks do not divide the %d ranks of this run; use a divisor",
                 group_size, world->size);
    HIRL_TRY(hirl_par_check_alike(world, __func__, group_size, 0, 0));
    hirl_world_t *group = NULL;
    hirl_status_t status;
    HIRL_TRY(create_empty(&group));
    MPI_Comm comm;
    HIRL_TRY_MPI_GOTO(MPI_Comm_split(world->comm, world->rank / group_size, world->rank, &comm),
                      status, err_destroy);
    HIRL_TRY_GOTO(describe(group, comm), status, err_destroy);
    group->n_cpus = world->n_cpus;
    *group_p = group;
    return HIRL_OK;

err_destroy:
    hirl_world_destroy(&group);
    return status;
}

void hirl_world_destroy(hirl_world_t **world) {
    if (!world || !*world) return;
    int is_finalised = 0;
    MPI_Finalized(&is_finalised);
    hirl_watchdog_destroy(&(*world)->watchdog);
    hirl_par_requests_reset(*world);
    if (!is_finalised) {
        free_comms(*world);
        if ((*world)->has_initialised) MPI_Finalize();
    }
    hirl_mem_free(*world);
    *world = NULL;
}

void hirl_world_abort(hirl_world_t *world, int exit_code) {
    // all ranks end, also those outside a group's world
    if (world && world->watchdog) hirl_watchdog_farewell(world->watchdog);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    hirl_assert_failed(__FILE__, __LINE__, __func__, "MPI_Abort ends the process");
}

// ------------------------------------------------------------------------------------ look

int hirl_world_rank(const hirl_world_t *world) { return world->rank; }

int hirl_world_size(const hirl_world_t *world) { return world->size; }

int hirl_world_node_rank(const hirl_world_t *world) { return world->node_rank; }

int hirl_world_node_size(const hirl_world_t *world) { return world->node_size; }

int hirl_world_n_nodes(const hirl_world_t *world) { return world->n_nodes; }

int hirl_world_n_cpus(const hirl_world_t *world) { return world->n_cpus; }

MPI_Comm hirl_world_comm_view(const hirl_world_t *world) { return world->comm; }

hirl_status_t hirl_world_claim_device(hirl_world_t *world, const char *id,
                                      bool is_sharing_allowed) {
    enum { ID_BYTES = 64 };
    char mine[ID_BYTES] = "", *all = NULL;
    hirl_status_t status = HIRL_OK;
    snprintf(mine, sizeof mine, "%s", id);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, (int64_t)world->node_size * ID_BYTES, &all));
    HIRL_TRY_MPI_GOTO(MPI_Allgather(mine, ID_BYTES, MPI_CHAR, all, ID_BYTES, MPI_CHAR, world->node),
                      status, done);
    for (int r = 0; r < world->node_size && mine[0] && !is_sharing_allowed; ++r)
        if (r != world->node_rank && strcmp(all + (size_t)r * ID_BYTES, mine) == 0) {
            status = HIRL_FAIL(HIRL_ERR_ARG,
                               "ranks %d and %d of this node share one GPU (%s); start one rank "
                               "per GPU (--gpus-per-node, "
                               "--ntasks-per-node), or set run%%allow_gpu_sharing = .true.",
                               r < world->node_rank ? r : world->node_rank,
                               r < world->node_rank ? world->node_rank : r, mine);
            break;
        }
done:
    hirl_mem_free(all);
    return hirl_par_agree(world, status);
}

hirl_status_t hirl_world_log_table(hirl_world_t *world, const char *device) {
    enum { LINE_MAX_BYTES = 256 };
    char line[LINE_MAX_BYTES], node[MPI_MAX_PROCESSOR_NAME + 1] = "", cpus[64];
    int n_node = 0;
    char *lines = NULL;
    hirl_status_t status;
    HIRL_TRY_MPI(MPI_Get_processor_name(node, &n_node));
    format_cpus(cpus, sizeof cpus);
    memset(line, 0, sizeof line);
    snprintf(line, sizeof line,
             "rank = %d, node = %.63s, node_rank = %d, device = %.63s, cpus = %d of %s",
             world->rank, node, world->node_rank, device ? device : "cpu", world->n_cpus, cpus);
    if (world->rank == 0)
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, (int64_t)world->size * LINE_MAX_BYTES, &lines));
    HIRL_TRY_MPI_GOTO(
        MPI_Gather(line, LINE_MAX_BYTES, MPI_CHAR, lines, LINE_MAX_BYTES, MPI_CHAR, 0, world->comm),
        status, err_free_lines);
    for (int r = 0; world->rank == 0 && r < world->size; r++) {
        hirl_log_root(HIRL_LOG_INFO, "%s", lines + (size_t)r * LINE_MAX_BYTES);
    }
    status = HIRL_OK;
err_free_lines:
    hirl_mem_free(lines);
    return status;
}
