"""Apache httpd with PHP, in two ways: a process for each connection with PHP in it, and threads with PHP apart.

``apache-prefork-php``: the prefork module and mod_php. ``apache-event``: the event module, whose threads hand requests
to processes of php-fpm. Sizes of pools are Debian's defaults unless workers are asked for: then all of them, processes
and threads alike, are there from the start to the end. When a capacity is, what stands against it is raised. Keep-alive
is without end; .htaccess and access log are off; php.ini is the distribution's. The length that php-fpm tells is
believed, without which a client of HTTP/1.0, such as ab, keeps no connection. mod_status counts requests, as it does by
default, each a moment after its answer.

Sources: httpd's documentation of mpm_common, prefork, event, core, mod_status, mod_proxy_fcgi;
mpm_prefork.conf and mpm_event.conf of Debian.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers import php_fpm
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.janitor import ERRORS
from c10k_probe.servers.page import Page
from c10k_probe.servers.real import Place, RealModel, Told, find_parts

_WORKERS_COUNT: Final = 150
_THREADS_PER_CHILD: Final = 25
_CHILDREN_COUNT: Final = 2
_LIMIT_COUNT: Final = 16  # ServerLimit of the event module when nobody says one
_MIN_SPARE_COUNT: Final = 25
_MAX_SPARE_COUNT: Final = 75
_SPARE_PROCESSES: Final = {"START": 5, "LEAST": 5, "SPARE": 10}
_MODULES: Final = "/usr/lib/apache2/modules"
_COMMON: Final = f"""\
ServerRoot "{{folder}}"
DefaultRuntimeDir "{{folder}}"
PidFile "{{folder}}/pid"
ErrorLog "{{folder}}/{ERRORS}"
LogLevel error
ServerName localhost
Listen 127.0.0.1:PORT
ListenBacklog BACKLOG
Timeout 3600
KeepAliveTimeout 3600
MaxKeepAliveRequests 0
LoadModule authz_core_module {_MODULES}/mod_authz_core.so
LoadModule dir_module {_MODULES}/mod_dir.so
LoadModule status_module {_MODULES}/mod_status.so
DocumentRoot "{{folder}}"
DirectoryIndex index.php
<Directory "{{folder}}">
    AllowOverride None
</Directory>
<Location "/TOKEN">
    SetHandler server-status
</Location>
"""
_PREFORK: Final = f"""\
LoadModule mpm_prefork_module {_MODULES}/mod_mpm_prefork.so
LoadModule php_module PHP_LIBRARY
StartServers START
MinSpareServers LEAST
MaxSpareServers SPARE
ServerLimit WORKERS
MaxRequestWorkers WORKERS
MaxConnectionsPerChild 0
<FilesMatch "\\.php$">
    SetHandler application/x-httpd-php
</FilesMatch>
"""
_EVENT: Final = f"""\
LoadModule mpm_event_module {_MODULES}/mod_mpm_event.so
LoadModule env_module {_MODULES}/mod_env.so
LoadModule proxy_module {_MODULES}/mod_proxy.so
LoadModule proxy_fcgi_module {_MODULES}/mod_proxy_fcgi.so
ServerLimit LIMIT
StartServers CHILDREN
MinSpareThreads LEAST
MaxSpareThreads SPARE
ThreadLimit 64
ThreadsPerChild {_THREADS_PER_CHILD}
MaxRequestWorkers WORKERS
AsyncRequestWorkerFactor FACTOR
MaxConnectionsPerChild 0
SetEnv ap_trust_cgilike_cl yes
<FilesMatch "\\.php$">
    SetHandler "proxy:unix:{php_fpm.SOCKET}|fcgi://localhost/"
</FilesMatch>
"""
_AS_INSTALLED: Final = {
    "AllowOverride None": "AllowOverride All",
    "KeepAliveTimeout 3600": "KeepAliveTimeout 5",
    "MaxKeepAliveRequests 0": "MaxKeepAliveRequests 100",
    "DirectoryIndex index.php": """\
DirectoryIndex index.php
CustomLog "{folder}/access.log" "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\""
""",
    "LoadModule php_module PHP_LIBRARY": "LoadModule php_module PHP_LIBRARY\nphp_admin_flag opcache.enable off",
}
"""What a default installation of the time did besides: .htaccess, access log, no cache of compiled scripts."""
_DEFENCE: Final = {
    "Timeout 3600": f"""\
Timeout SECONDS
LoadModule reqtimeout_module {_MODULES}/mod_reqtimeout.so
RequestReadTimeout header=SECONDS body=SECONDS
""",
}
"""How long a client may take to send a header, and a body; ``Timeout`` is for one that does not read."""
_DEFENCE_TEXT: Final = "RequestReadTimeout header={s} body={s}, Timeout {s}"
_UNEVEN: Final = 2  # some processes hold more than their share
_KEPT: Final = ("KeepAliveTimeout", "Timeout")
_TOTAL: Final = re.compile(r"^Total Accesses: (\d+)$", re.MULTILINE)
_VERSION: Final = re.compile(r"^ServerVersion: (\S+)", re.MULTILINE)


def _filled(text: str, place: Place, **values: object) -> str:
    common = {"PORT": place.port, "BACKLOG": place.backlog_count, "TOKEN": place.token, "SECONDS": place.defence_s}
    for old, new in _AS_INSTALLED.items() if place.is_as_installed else ():
        text = text.replace(old, new)
    for old, new in _DEFENCE.items() if place.defence_s is not None else ():
        text = text.replace(f"\n{old}\n", f"\n{new}")
    if place.takes_silent:
        text += "AcceptFilter http none\n"
    return re.sub(r"\b[A-Z_]{4,}\b", lambda word: str({**common, **values}.get(word[0], word[0])), text)


def _ceil(count: int, by: int) -> int:
    return -(-count // by)


def _command(paths: Mapping[str, str]) -> tuple[str, ...]:
    return (paths["apache2"], "-DFOREGROUND", "-f", "{folder}/apache.conf")


def _recipe_of_prefork(paths: Mapping[str, str], place: Place) -> Recipe:
    """A connection takes a process, so as many as are to be held at once; with workers asked for, always so many."""
    workers_count = place.workers_count or max(_WORKERS_COUNT, place.capacity_count or 0)
    sizes = dict.fromkeys(("START", "LEAST", "SPARE"), workers_count) if place.workers_count else _SPARE_PROCESSES
    text = _filled(_COMMON + _PREFORK, place, WORKERS=workers_count, PHP_LIBRARY=paths["mod_php"], **sizes)
    return Recipe(_command(paths), {"apache.conf": text, **php_fpm.PAGES})


def _recipe_of_event(paths: Mapping[str, str], place: Place) -> Recipe:
    """A thread takes one request at a time; of idle connections as many as the factor allows for each idle thread.

    Without a thread to spare idle connections are closed, so there is one for each from the start, as far as may be.
    """
    capacity_count = place.capacity_count or 0
    most = _ceil(place.workers_count or _WORKERS_COUNT, _THREADS_PER_CHILD)
    wanted = most if place.workers_count else _ceil(capacity_count, _THREADS_PER_CHILD)
    children = max(min(most, _CHILDREN_COUNT), min(most, wanted))
    sizes = {
        "LIMIT": max(_LIMIT_COUNT, most),
        "CHILDREN": children,
        "LEAST": most * _THREADS_PER_CHILD if place.workers_count else _MIN_SPARE_COUNT,
        "SPARE": max(_MAX_SPARE_COUNT, children * _THREADS_PER_CHILD),
        "WORKERS": most * _THREADS_PER_CHILD,
        "FACTOR": max(2, _ceil(_UNEVEN * capacity_count, most * _THREADS_PER_CHILD)),
    }
    text = _filled(_COMMON + _EVENT, place, **sizes)
    return php_fpm.behind(_command(paths), {"apache.conf": text}, paths["php-fpm"], place)


def _told(page: Page) -> Told | None:
    """Of mod_status, which counts a request at its end: the present one is not among them yet."""
    total, version = _TOTAL.search(page.body), _VERSION.search(page.body)
    return Told(requests_count=int(total[1]) + 1, version=version[1]) if total and version else None


PREFORK_PHP: Final = RealModel(
    name="apache-prefork-php",
    summary="Apache with mod_php: one process per connection",
    find=find_parts("apache2", "mod_php"),
    recipe=_recipe_of_prefork,
    read=_told,
    status_query="?auto",
    runtime=("PHP", php_fpm.VERSION_PATH),
    defence=_DEFENCE_TEXT,
    work_path=php_fpm.WORK_PATH,
    cache_path=php_fpm.CACHE_PATH,
    per_connection=Needs(system_descriptors_count=1, tasks_count=1, memory_bytes=800_000),
    fixed=Needs(descriptors_count=32, system_descriptors_count=256, tasks_count=11, memory_bytes=40 << 20),
    takes=frozenset({"workers", "capacity"}),
    settings=("MaxRequestWorkers", "ServerLimit", *_KEPT),
    raised_by_workers="MaxRequestWorkers",
    is_pool=True,
)
EVENT: Final = RealModel(
    name="apache-event",
    summary="Apache's threads before a pool of PHP processes (php-fpm)",
    find=find_parts("apache2", "php-fpm"),
    recipe=_recipe_of_event,
    read=_told,
    status_query="?auto",
    runtime=("PHP", php_fpm.VERSION_PATH),
    defence=_DEFENCE_TEXT,
    work_path=php_fpm.WORK_PATH,
    cache_path=php_fpm.CACHE_PATH,
    per_connection=Needs(descriptors_count=1, system_descriptors_count=1),
    fixed=Needs(descriptors_count=64, system_descriptors_count=512, tasks_count=200, memory_bytes=80 << 20),
    takes=frozenset({"workers", "capacity"}),
    settings=("MaxRequestWorkers", "StartServers", "AsyncRequestWorkerFactor", *_KEPT),
    burst_count=16,  # of the 25 threads of a process, all of which may go to the same one
)
