"""PHP in processes of its own (php-fpm), behind a web server in the same session, and the pages that PHP answers with.

The pool is Debian's, of five processes at most, unless workers are asked for: then it has always so many. Further
requests wait.

Sources: php-fpm.conf's manual, www.conf of Debian; php-fpm leaves the session that it is started in (setsid(2)) unless
it leads a process group.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.janitor import ERRORS
from c10k_probe.servers.real import BODY, Place

SOCKET: Final = "{folder}/php.socket"
VERSION_PATH: Final = "/version.php"
CACHE_PATH: Final = "/cache.php"  # whether compiled scripts are kept: on or off
PAGES: Final = {
    "index.php": f"""\
<?php
header('Content-Type: text/plain');
header('Content-Length: {len(BODY)}');
echo {json.dumps(BODY)};
""",
    VERSION_PATH.strip("/"): "<?php echo PHP_VERSION;\n",
    CACHE_PATH.strip("/"): """\
<?php
$status = function_exists('opcache_get_status') ? opcache_get_status(false) : false;
echo $status && $status['opcache_enabled'] ? 'on' : 'off';
""",
}
_WORKERS_COUNT: Final = 5
_CONFIGURATION: Final = f"""\
[global]
pid = {{folder}}/fpm.pid
error_log = {{folder}}/{ERRORS}
log_level = error
daemonize = no
[www]
listen = {SOCKET}
listen.backlog = %d
pm = %s
pm.max_children = %d
pm.start_servers = 2
pm.min_spare_servers = 1
pm.max_spare_servers = 3
"""
# Job control gives php-fpm a process group of its own, whose leader cannot leave the session, as it else would.
_BOTH: Final = f"""\
set -m
%s &
until [ -S {SOCKET} ]; do kill -0 $! 2>/dev/null || exit 1; sleep 0.01; done
exec %s
"""


def behind(front: Sequence[str], files: Mapping[str, str], fpm: str, place: Place) -> Recipe:
    """The recipe of this web server, which talks to ``SOCKET``, once php-fpm listens there."""
    kind = "static" if place.workers_count else "dynamic"
    configuration = _CONFIGURATION % (place.backlog_count, kind, place.workers_count or _WORKERS_COUNT)
    pool = shlex.join([fpm, "--nodaemonize", "--fpm-config", "{folder}/fpm.conf"])
    command = ("/bin/bash", "-c", _BOTH % (pool, shlex.join(front)))
    return Recipe(command, {"fpm.conf": configuration, **PAGES, **files})
