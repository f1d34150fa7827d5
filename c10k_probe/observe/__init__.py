"""Readers of what the kernel says about a process tree and about the machine.

tree       processes, CPU, switches and memory of all processes of one session
memory     the kernel's own memory (slab, page tables, stacks), which is in no process's RSS
processes  trees of any processes by their roots; who listens on a port
serving    one look at a running server: connections, queue, tasks, memory, CPU, switches
sockets    the kernel's list of TCP sockets
counters   counters of the whole machine, read before and after a measurement
cgroups    limits of the control groups this process is in
procfs     small files below /proc and /sys

Every reader takes the root of the file system it reads, so that a test can show it another kernel.
What could not be read is None, never 0. Nothing here knows an experiment, prints, or keeps state.
"""
