/*
 * holder_commands.c - reads the commands on stdin and obeys them. The contract is in holder.h; the commands
 * are listed in connection_holder.c.
 */
#include "holder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE_BYTES = 128,
    ARGUMENTS_MAX = 3,
    CONNECTIONS_MAX = 1000 * 1000,
    PUMP_MS_MAX = 3600 * 1000,
    BACKLOG_BYTES_MAX = 1 << 20,
};

static void command_status(const int64_t *arguments)
{
    (void)arguments;
    emit("{\"type\":\"status\",\"open_count\":%" PRId64 ",\"pairs_count\":%" PRId64 "}", tables_held_count(),
         count_pairs());
}

static void close_table(struct table *table, void *argument)
{
    (void)argument;
    table->backlogged_count = 0;
    close_all(&table->held);
}

/* The threads of the tables stay for the next ramp. */
int64_t close_held(void)
{
    const int64_t closed_count = tables_held_count();
    tables_run(close_table, NULL, 0);
    return closed_count;
}

static void command_close(const int64_t *arguments)
{
    (void)arguments;
    emit("{\"type\":\"closed\",\"closed_count\":%" PRId64 "}", close_held());
}

static const struct command {
    const char *name;
    void (*obey)(const int64_t *arguments);
    int arguments_min, arguments_max;
    int64_t maxima[ARGUMENTS_MAX];
    const char *word; /* stands for 1 as the last argument; NULL: numbers only */
} commands[] = {
    {"ramp", command_ramp, 1, 2, {CONNECTIONS_MAX, 0}, "idle"},
    {"echo", command_echo, 0, 2, {CONNECTIONS_MAX, INT64_MAX}, NULL},
    {"pump", command_pump, 2, 3, {CONNECTIONS_MAX, PUMP_MS_MAX, PUMP_MS_MAX}, NULL},
    {"probe", command_probe, 3, 3, {PROBES_MAX, PUMP_MS_MAX, INT64_MAX}, NULL},
    {"backlog", command_backlog, 1, 1, {BACKLOG_BYTES_MAX}, NULL},
    {"drain", command_drain, 0, 0, {0}, NULL},
    {"pairs", command_pairs, 1, 1, {CONNECTIONS_MAX / 2}, NULL},
    {"unpair", command_unpair, 0, 0, {0}, NULL},
    {"status", command_status, 0, 0, {0}, NULL},
    {"close", command_close, 0, 0, {0}, NULL},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    usage("unknown command \"%s\"; known: ramp, echo, pump, probe, backlog, drain, pairs, unpair, "
          "status, close, quit",
          name);
}

static int64_t read_argument(const char *word, int64_t maximum)
{
    char *end;
    errno = 0;
    const int64_t value = strtoll(word, &end, 10);
    if (*end != '\0' || errno != 0 || value < 0 || value > maximum) {
        usage("argument \"%s\" is not a number in 0..%" PRId64, word, maximum);
    }
    return value;
}

static int64_t read_word(const char *word, const char *known)
{
    if (strcmp(word, known) != 0) {
        usage("argument \"%s\" is not \"%s\"", word, known);
    }
    return 1;
}

/* One line, its words separated by blanks. False for `quit`. */
static bool obey_line(char *line)
{
    int64_t arguments[ARGUMENTS_MAX] = {0};
    int count = 0;
    char *rest = NULL;
    const char *name = strtok_r(line, " \n", &rest);
    if (name == NULL) {
        return true;
    }
    if (strcmp(name, "quit") == 0) {
        return false;
    }
    const struct command *command = find_command(name);
    for (const char *word; (word = strtok_r(NULL, " \n", &rest)) != NULL; count++) {
        if (count == command->arguments_max) {
            usage("%s takes at most %d arguments", name, command->arguments_max);
        }
        const bool is_word = command->word != NULL && count + 1 == command->arguments_max;
        arguments[count] =
            is_word ? read_word(word, command->word) : read_argument(word, command->maxima[count]);
    }
    if (count < command->arguments_min) {
        usage("%s takes at least %d arguments", name, command->arguments_min);
    }
    wait_patiently();
    command->obey(arguments);
    return true;
}

void obey_commands(void)
{
    char line[LINE_BYTES];
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strchr(line, '\n') == NULL && !feof(stdin)) {
            usage("a command is at most %d bytes", LINE_BYTES - 2);
        }
        if (!obey_line(line)) {
            return;
        }
    }
}
