"""A server as Python programs are written, to be measured from outside; speaks the helpers' protocol.

    python -m c10k_probe.servers_in_python --model M [--backlog N] [--stack BYTES] [--protocol echo|http]
        [--backend-port P [--backend-timeout-ns NS] [--asks await|block|pool [--workers N]]]

It is what the helper ``reference_server`` is in C, with the same messages and commands, by what the library offers:

- ``python-forking``: ``socketserver.ForkingTCPServer``, a process per connection. ``max_children`` is raised: at the
  library's 40 it stops accepting until one of them ends.
- ``python-threading``: ``socketserver.ThreadingTCPServer``, a thread per connection, ``daemon_threads`` on as in
  ``http.server``; ``--stack`` is ``threading.stack_size``.
- ``asyncio``: ``asyncio.start_server``, a coroutine per connection. Streams and not protocols, because the library
  names streams as the interface for programs, and transports and protocols as that for libraries and frameworks.
- ``uvloop``: the same program on uvloop's loop.

With ``--backend-port`` each request, but for those of ``/plain``, waits for a backend (see ``work``), and ``status``
has the sums of it. A thread per connection waits itself; a loop awaits the answer, or makes the call that blocks all
its connections (``block``, the mistake that is easily made), or has a pool of ``--workers`` threads make it (``pool``,
``run_in_executor``).

All listen on 127.0.0.1 at a port of the kernel's choice with TCP_NODELAY on, read at most 4 KiB at once, and send it
back (``echo``) or answer each request (``http``). The garbage collector is as the interpreter sets it.

Timed: nothing in here. The client times; observers read /proc. Units: counts, and bytes for ``--stack``.

Commands, one a line on stdin: ``status``, ``quit`` (or end of file). At the end every connection is reset, so that no
TIME_WAIT stays. A wall (no descriptor, no task, no memory) is told once for each pair of call and error, and the server
goes on, in the way of its library:

- socketserver, without a descriptor: tries again at once, as long as anybody waits, with all of a CPU.
  ``accept_errors_count`` counts it. A connection without a task is closed.
- asyncio, without a descriptor: tries again after a second, as often in a row as its backlog is long.
- uvloop, without a descriptor: libuv accepts and closes whoever comes, and tells nobody. So ``accept_errors_count`` is
  null, and the wall is told when a connection took the last descriptor and a ``dup`` found none.

Known bias: the interpreter and its modules are in the memory before the first connection, and a fork copies their page
tables. ForkingTCPServer looks at each child after each accept and twice a second: its ramp is quadratic. Its children
ask the kernel to die with their parent, by ctypes. Of socketserver's ``serve_forever`` the loop is written out here,
with its own steps, to watch stdin too.

Sources: socketserver, asyncio (streams, selector_events) and threading of the Python library; uvloop; libuv,
src/unix/stream.c (uv__emfile_trick); accept(2), fork(2), pthread_create(3), prctl(2), socket(7) (SO_LINGER).
"""
