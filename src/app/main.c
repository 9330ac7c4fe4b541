// hirl.x: reads a deck, sets up, runs a task, reports. The only place that ends the process.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app_impl.h"

static const app_task_t *const tasks[] = {
    &app_task_pack,    &app_task_pretrain,    &app_task_knn,    &app_task_probe,
    &app_task_inspect, &app_task_bench_input, &app_task_preview};
enum { N_TASKS = sizeof tasks / sizeof *tasks };

typedef enum app_mode {
    MODE_RUN,
    MODE_HELP,
    MODE_VERSION,
    MODE_CHECK,
    MODE_DESCRIBE,
    MODE_PRINT,
    MODE_PRINT_SHORT,
    MODE_FORTRAN,
    MODE_VALUES,
    MODE_INSPECT
} app_mode_t;

typedef struct option {
    const char *name;
    app_mode_t mode;
} option_t;

static const option_t options[] = {
    {"--help", MODE_HELP},
    {"-h", MODE_HELP},
    {"--version", MODE_VERSION},
    {"--check", MODE_CHECK},
    {"--describe", MODE_DESCRIBE},
    {"--print-deck", MODE_PRINT},
    {"--print-short", MODE_PRINT_SHORT},
    {"--print-fortran", MODE_FORTRAN},
    {"--print-values", MODE_VALUES},
    {"--inspect", MODE_INSPECT},
};

static void print_help(void) {
    int n_methods;
    const hirl_method_ops_t *const *methods = hirl_methods(&n_methods);
    puts("hirl.x: pre-trains image encoders by hierarchical self-supervised learning.\n"
         "\n"
         "  mpirun -n 2 ./hirl.x DECK.nml [group%key=value ...]     run the deck's task, with "
         "overrides\n"
         "  srun hirl.x input/hirl_mocov2.nml                       the same under SLURM, one rank "
         "per CPU socket\n"
         "\n"
         "  hirl.x --check DECK.nml [...]        validate a deck, run nothing\n"
         "  hirl.x --print-deck DECK.nml [...]   the resolved deck, every key with its meaning\n"
         "  hirl.x --print-short DECK.nml [...]  only what differs from the defaults\n"
         "  hirl.x --print-values DECK.nml       one line `group%key = value` each\n"
         "  hirl.x --print-fortran DECK.nml      a Fortran program that reads the deck and prints "
         "the same lines\n"
         "  hirl.x --describe [group[%key]]      the manual of decks\n"
         "  hirl.x --inspect FILE ...            what checkpoints or shards hold\n"
         "  hirl.x --version                     version, flags, libraries\n"
         "\n"
         "Tasks (run%task):");
    for (int i = 0; i < N_TASKS; ++i) printf("  %-10s %s\n", tasks[i]->name, tasks[i]->help);
    puts("\nMethods (run%method), each alone or with run%hierarchy = 'hirl':");
    for (int i = 0; i < n_methods; ++i) printf("  %-10s %s\n", methods[i]->name, methods[i]->help);
    puts("\nA first run on this machine: make demo. Its deck is input/demo.nml.\n"
         "\n"
         "Exit codes: 0   done\n"
         "            1   failed\n"
         "            2   wrong command line\n"
         "            75  ended by a signal in good order, run again\n"
         "            76  a rank or node was lost or hung, run again (mpirun says 128 + n instead "
         "where signal n\n"
         "                killed the rank)");
}

// ---------------------------------------------------------------------------------------------- decks

static hirl_status_t read_deck(int n_args, char **args, hirl_deck_t **deck_p) {
    int n_groups;
    const hirl_group_t *const *groups = hirl_app_groups(&n_groups);
    hirl_deck_t *deck = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_REQUIRE(n_args >= 1, HIRL_ERR_ARG, "no deck given; try hirl.x --help");
    for (int i = 1; i < n_args; ++i)
        HIRL_REQUIRE(args[i][0] != '-', HIRL_ERR_ARG, "'%s' comes before the deck: hirl.x %s %s",
                     args[i], args[i], args[0]);
    HIRL_TRY(hirl_deck_create(groups, n_groups, &deck));
    HIRL_TRY_GOTO(hirl_deck_read_file(deck, args[0]), status, err);
    for (int i = 1; i < n_args; ++i) HIRL_TRY_GOTO(hirl_deck_override(deck, args[i]), status, err);
    *deck_p = deck;
    return HIRL_OK;
err:
    hirl_deck_destroy(&deck);
    return status;
}

static hirl_status_t find_task(const hirl_deck_t *deck, const app_task_t **task_p) {
    const hirl_run_cfg_t *run = hirl_deck_group_view(deck, "run");
    for (int i = 0; i < N_TASKS; ++i)
        if (strcmp(tasks[i]->name, run->task) == 0) *task_p = tasks[i];
    HIRL_REQUIRE(*task_p, HIRL_ERR_DECK, "run%%task = '%s': no such task", run->task);
    for (const char *const *group = (*task_p)->groups; *group; ++group)
        HIRL_TRY(hirl_deck_require_group(deck, *group));
    return (*task_p)->check ? (*task_p)->check(deck) : HIRL_OK;
}

typedef hirl_status_t (*write_text_t)(const hirl_deck_t *deck, const char *path, hirl_text_t *text);

static hirl_status_t write_full(const hirl_deck_t *deck, const char *path, hirl_text_t *text) {
    (void)path;
    return hirl_deck_write_text(deck, true, text);
}

static hirl_status_t write_short(const hirl_deck_t *deck, const char *path, hirl_text_t *text) {
    (void)path;
    return hirl_deck_write_text(deck, false, text);
}

static hirl_status_t write_values(const hirl_deck_t *deck, const char *path, hirl_text_t *text) {
    (void)path;
    return hirl_deck_write_values(deck, text);
}

static hirl_status_t print_deck(int n_args, char **args, write_text_t write) {
    hirl_deck_t *deck = NULL;
    hirl_text_t text = {0};
    HIRL_TRY(read_deck(n_args, args, &deck));
    hirl_status_t status = write(deck, args[0], &text);
    if (status == HIRL_OK) fputs(text.data ? text.data : "", stdout);
    hirl_text_reset(&text);
    hirl_deck_destroy(&deck);
    return status;
}

static hirl_status_t check_deck(int n_args, char **args) {
    hirl_deck_t *deck = NULL;
    const app_task_t *task = NULL;
    HIRL_TRY(read_deck(n_args, args, &deck));
    hirl_status_t status = find_task(deck, &task);
    if (status == HIRL_OK) printf("%s: fine (task %s)\n", args[0], task->name);
    hirl_deck_destroy(&deck);
    return status;
}

static hirl_status_t describe(int n_args, char **args) {
    int n_groups;
    const hirl_group_t *const *groups = hirl_app_groups(&n_groups);
    hirl_text_t text = {0};
    HIRL_REQUIRE(n_args <= 1, HIRL_ERR_ARG, "--describe takes one group or group%%key, or nothing");
    hirl_status_t status = hirl_deck_describe(groups, n_groups, n_args > 0 ? args[0] : NULL, &text);
    if (status == HIRL_OK) fputs(text.data ? text.data : "", stdout);
    hirl_text_reset(&text);
    return status;
}

static hirl_status_t inspect(int n_args, char **args) {
    hirl_text_t text = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_REQUIRE(n_args >= 1, HIRL_ERR_ARG, "--inspect takes checkpoints or shards");
    for (int i = 0; status == HIRL_OK && i < n_args; ++i) {
        status = hirl_ckpt_is_checkpoint(args[i]) ? hirl_ckpt_describe(args[i], &text)
                                                  : hirl_shard_describe(args[i], &text);
    }
    if (text.data) fputs(text.data, stdout);
    hirl_text_reset(&text);
    return status;
}

// What needs no MPI.
static hirl_status_t run_mode(app_mode_t mode, int n_args, char **args) {
    switch (mode) {
        case MODE_HELP: print_help(); return HIRL_OK;
        case MODE_VERSION: fputs(hirl_build_info_text(), stdout); return HIRL_OK;
        case MODE_CHECK: return check_deck(n_args, args);
        case MODE_DESCRIBE: return describe(n_args, args);
        case MODE_PRINT: return print_deck(n_args, args, write_full);
        case MODE_PRINT_SHORT: return print_deck(n_args, args, write_short);
        case MODE_FORTRAN: return print_deck(n_args, args, hirl_deck_write_fortran);
        case MODE_VALUES: return print_deck(n_args, args, write_values);
        case MODE_INSPECT: return inspect(n_args, args);
        case MODE_RUN: break;
    }
    return HIRL_FAIL(HIRL_ERR_INTERNAL, "mode %d", (int)mode);
}

// ---------------------------------------------------------------------------------------------- run

static hirl_log_level_t log_level(const char *name) {
    static const char *const names[] = {"error", "warn", "info", "debug", "trace"};
    for (int i = 0; i < 5; ++i)
        if (strcmp(names[i], name) == 0) return (hirl_log_level_t)i;
    return HIRL_LOG_INFO;
}

// Ranks that do different things wait for each other forever: a deck that changed while the ranks started, or one copy of several.
static hirl_status_t check_alike(hirl_world_t *world, const hirl_deck_t *deck) {
    hirl_text_t text = {0};
    int64_t mine = 0, *all = NULL;
    int size = hirl_world_size(world), other = 0;
    hirl_status_t status = hirl_deck_write_values(deck, &text);
    if (status == HIRL_OK) mine = (int64_t)hirl_hash64(text.data ? text.data : "", text.size);
    hirl_text_reset(&text);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_GENERAL, size, &all);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, done);
    HIRL_TRY_GOTO(hirl_par_all_gather(world, &mine, 1, HIRL_PAR_I64, all), status, done);
    while (other < size && all[other] == all[0]) ++other;
    if (other < size)
        status = HIRL_FAIL(HIRL_ERR_DECK,
                           "rank %d read another deck than rank 0: all ranks need the same values",
                           other);
done:
    hirl_mem_free(all);
    return status;
}

static hirl_status_t run_task(hirl_world_t *world, int n_args, char **args, int *exit_code_p) {
    hirl_deck_t *deck = NULL;
    const app_task_t *task = NULL;
    hirl_status_t status = read_deck(n_args, args, &deck);
    if (status == HIRL_OK) status = find_task(deck, &task);
    status = hirl_par_agree(world, status);
    if (status == HIRL_OK) status = check_alike(world, deck);
    if (status == HIRL_OK) {
        const hirl_run_cfg_t *run = hirl_deck_group_view(deck, "run");
        hirl_log_setup(log_level(run->log_level), hirl_world_rank(world));
        if (task->check && run->timeout > 0)
            status = hirl_watchdog_start(world, run->timeout, APP_EXIT_LOST);
        if (status == HIRL_OK) status = task->run(world, deck, exit_code_p);
    }
    hirl_deck_destroy(&deck);
    return status;
}

int main(int argc, char **argv) {
    hirl_world_t *world = NULL;
    int exit_code = APP_EXIT_FAILURE;
    for (size_t i = 0; argc > 1 && i < sizeof options / sizeof *options; ++i) {
        if (strcmp(argv[1], options[i].name) != 0) continue;
        hirl_status_t status = run_mode(options[i].mode, argc - 2, argv + 2);
        if (status != HIRL_OK) fprintf(stderr, "hirl.x: error: %s\n", hirl_error_text_view());
        return status == HIRL_OK        ? APP_EXIT_OK
               : status == HIRL_ERR_ARG ? APP_EXIT_USAGE
                                        : APP_EXIT_FAILURE;
    }
    if (argc < 2 || argv[1][0] == '-') {
        fprintf(stderr, "hirl.x: error: %s%s; try hirl.x --help\n",
                argc < 2 ? "no deck given" : "unknown option ", argc < 2 ? "" : argv[1]);
        return APP_EXIT_USAGE;
    }
    signal(SIGXFSZ, SIG_IGN); // a file-size limit shows as a failed write, with its message
    if (hirl_world_create(&argc, &argv, &world) != HIRL_OK) {
        fprintf(stderr, "hirl.x: error: %s\n", hirl_error_text_view());
        return APP_EXIT_FAILURE;
    }
    hirl_log_setup(HIRL_LOG_INFO, hirl_world_rank(world));
    hirl_status_t status = run_task(world, argc - 1, argv + 1, &exit_code);
    if (status != HIRL_OK) {
        app_settle(world, status); // a failure that all ranks share is printed once
        hirl_log_root(HIRL_LOG_ERROR, "%s (%s)", hirl_error_text_view(), hirl_error_place_view());
        exit_code = APP_EXIT_FAILURE;
    }
    hirl_log_progress(NULL);
    hirl_log_open_file(NULL);
    hirl_world_destroy(&world);
    return exit_code;
}
