"""Seeing the kernel: what a process tree asks of it, through one interface with several backends behind.

    base       Tracer, the interface; Target and Options
    choose     which backend: named, or the best that works here
    result     Trace, what was counted; what a backend cannot know is None
    bcc_*      eBPF: counts everything, in the kernel (bcc_backend here, bcc_helper in the interpreter that has bcc)
    perf       perf stat on tracepoints
    strace     strace -c: exact counts of calls that return, by stopping every task at each
    proc       /proc: switches, faults, CPU and waits without any privilege
    launch     a command that waits until its tracer is ready
    tree       the living processes of a target
    lift       what to type when rights are missing
    syscalls   numbers and names

Nothing here knows an experiment or prints.
"""
