/*
 * creation_exec.c - children that run another program: posix_spawn, and fork followed by execve.
 *
 * The program is spawn_target, in the linking that the method names. Its environment is empty, as the size of
 * an environment would be part of what exec costs. Sources: posix_spawn(3), execve(2).
 */
#include "creation.h"
#include "helper.h"

#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_NOT_EXECUTED = 127 }; /* the shell's number for it */

static char target_path[PATH_MAX];
static char *no_environment[] = {NULL};

void creation_set_target(const char *path)
{
    if ((size_t)snprintf(target_path, sizeof(target_path), "%s", path) >= sizeof(target_path)) {
        usage("--spawn-target is too long");
    }
}

const char *creation_target(void)
{
    return target_path;
}

static void prepare_target(const char *linking)
{
    char file[32];
    if (target_path[0] == '\0') {
        const char *suffix = strcmp(linking, "dynamic") == 0 ? "" : linking;
        snprintf(file, sizeof(file), "spawn_target%s%s", suffix[0] == '\0' ? "" : "-", suffix);
        helper_path_beside(file, target_path);
    }
    if (access(target_path, X_OK) == -1) {
        fail_call("access", target_path, errno);
    }
}

void prepare_target_alike(void)
{
    prepare_target(helper_linking);
}

void prepare_target_static(void)
{
    prepare_target("static");
}

void prepare_target_dynamic(void)
{
    prepare_target("dynamic");
}

int create_posix_spawn(struct creation *creation)
{
    char descriptor[16], offset[24];
    char *arguments[] = {target_path, descriptor, offset, NULL};
    creation_name_slot(creation->slot, descriptor, offset);
    creation->before_ns = now_ns();
    int error_number = posix_spawn(&creation->child, target_path, NULL, NULL, arguments, no_environment);
    creation->returned_ns = now_ns();
    return error_number;
}

/* A held child waits before it executes: the parent's pages are shared until then. */
int create_fork_exec(struct creation *creation)
{
    struct slot *slot = creation->slot; /* read here: the child may not have *creation */
    bool is_held = creation->is_held;
    char descriptor[16], offset[24];
    char *arguments[] = {target_path, descriptor, offset, NULL};
    creation_name_slot(creation->slot, descriptor, offset);
    creation->before_ns = now_ns();
    pid_t child = fork();
    if (child == 0) {
        slot->child_ns = now_ns();
        if (is_held) {
            helper_die_with_parent();
            creation_wait_at_gate(slot);
        }
        execve(target_path, arguments, no_environment);
        _exit(EXIT_NOT_EXECUTED); /* no stamp of the program: a dropped sample */
    }
    creation->returned_ns = now_ns();
    creation->child = child;
    return child == -1 ? errno : 0;
}
