/*
 * clone3_call.c - the system call clone3 in inline assembly, one version for each architecture.
 *
 * The call comes back twice, the second time on an empty stack. The child must not return into a frame of the
 * parent, so it calls `child_main` right here and never comes out of it (the trap after the call says so).
 */
#include "clone3_call.h"

#include <errno.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
long clone3_call(struct clone_args *arguments, void (*child_main)(void))
{
    long result = SYS_clone3;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t" /* the outermost frame, for debuggers */
                     "callq *%%rdx\n\t"
                     "ud2\n"
                     "1:"
                     : "+a"(result)
                     : "D"(arguments), "S"(sizeof(*arguments)), "d"(child_main)
                     : "rcx", "r11", "memory", "cc");
    return result;
}
#elif defined(__aarch64__)
long clone3_call(struct clone_args *arguments, void (*child_main)(void))
{
    register long x0 __asm__("x0") = (long)arguments;
    register long x1 __asm__("x1") = sizeof(*arguments);
    register long x2 __asm__("x2") = (long)child_main;
    register long x8 __asm__("x8") = SYS_clone3;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t" /* the outermost frame, for debuggers */
                     "mov x30, xzr\n\t"
                     "blr x2\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x1), "r"(x2), "r"(x8)
                     : "memory", "cc");
    return x0;
}
#else
long clone3_call(struct clone_args *arguments, void (*child_main)(void))
{
    (void)arguments;
    (void)child_main;
    return -ENOSYS;
}
#endif
