/*
 * clone3_call.h - the raw system call clone3(2) for a child that runs on a stack of its own.
 *
 * Needed because syscall(2) would come back in the child through the parent's frame, and glibc has no
 * wrapper. Sources: clone(2), syscall(2) (registers of each architecture).
 */
#ifndef C10K_CLONE3_CALL_H
#define C10K_CLONE3_CALL_H

#include <linux/sched.h>

#if defined(__x86_64__) || defined(__aarch64__)
#define C10K_HAVE_CLONE3_CALL 1
#else
#define C10K_HAVE_CLONE3_CALL 0
#endif

/* Creates a child that runs child_main, which must not return, at the upper end of arguments->stack (16-byte
 * aligned). Gives the child's process number, or a negative error number; -ENOSYS on other architectures. */
long clone3_call(struct clone_args *arguments, void (*child_main)(void));

#endif
