"""nginx: one worker, since one thread of a load generator cannot keep more of them busy.

Besides the common answer, out of its configuration, ``nginx`` has ``PATH_FILE``: a file of 4 KiB, four system calls a
request more, which is its trade and keeps it busier than one thread of a load generator. ``nginx-php-fpm`` stands in
front of PHP. Keep-alive without end, no logs.

Warnings are logged, for that is how it tells that connections were closed to make room.

Sources: nginx's documentation of ngx_core_module, ngx_http_core_module, ngx_http_stub_status_module,
ngx_http_fastcgi_module, ngx_connection.c (ngx_drain_connections).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Final

from c10k_probe.limits import Needs
from c10k_probe.servers import php_fpm
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.page import Page
from c10k_probe.servers.real import BODY, Place, RealModel, Told, find_parts

PATH_FILE: Final = "/file"
BODY_FILE: Final = "c10k-probe 4 KiB" * 256
_CONFIGURATION: Final = """\
daemon off;
worker_processes WORKERS;
pid {folder}/pid;
error_log stderr warn;
events { worker_connections CONNECTIONS; }
http {
    access_log ACCESS_LOG;
    default_type text/plain;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    DEFENCE
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {
        listen 127.0.0.1:PORT backlog=BACKLOG;
        location = /TOKEN { stub_status; }
        LOCATIONS
    }
}
"""
_STATIC: Final = f"""\
location = / {{ return 200 {json.dumps(BODY)}; }}
        location = {PATH_FILE} {{ root {{folder}}; }}"""
_PHP: Final = f"""\
location / {{
            root {{folder}};
            fastcgi_pass unix:{php_fpm.SOCKET};
            fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_index index.php;
        }}"""
_DEFENCE: Final = "client_header_timeout {s}s; client_body_timeout {s}s; send_timeout {s}s"
_LEAST_COUNT: Final = 4096
_SPARE_COUNT: Final = 16  # worker_connections holds the listener and our own, too
_STATUS: Final = re.compile(
    r"Active connections: (?P<open>\d+)\s+server accepts handled requests\s+"
    r"(?P<accepted>\d+) (?P<handled>\d+) (?P<requests>\d+)"
)


def _slots_count(place: Place) -> int:
    """nginx closes idle connections when no more than a sixteenth of its slots is free (ngx_drain_connections)."""
    held_count = max(_LEAST_COUNT, place.capacity_count or 0) + _SPARE_COUNT
    return held_count * 16 // 15 + 2


def configuration(place: Place, locations: str = _STATIC) -> str:
    """The configuration file; ``{folder}`` stands for the folder that it, and everything nginx writes, is in."""
    values: Mapping[str, object] = {
        "ACCESS_LOG": "{folder}/access.log" if place.is_as_installed else "off",
        "PORT": place.port,
        "BACKLOG": place.backlog_count,
        "CONNECTIONS": _slots_count(place),
        "WORKERS": place.workers_count or 1,
        "TOKEN": place.token,
        "DEFENCE": _time_outs(place),
        "LOCATIONS": locations,
    }
    text = _CONFIGURATION
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text


def _time_outs(place: Place) -> str:
    """Of a client that is slow, or has not begun; else nginx's own."""
    if place.defence_s is not None:
        return f"{_DEFENCE.replace('{s}', str(place.defence_s))};"
    return "client_header_timeout 1h;" if place.takes_silent else ""


def command(paths: Mapping[str, str]) -> tuple[str, ...]:
    """How it is started, with ``nginx.conf`` of its folder."""
    return (paths["nginx"], "-c", "{folder}/nginx.conf", "-p", "{folder}", "-e", "stderr")


def one_worker(place: Place) -> Place:
    """Where those who work are behind it."""
    return dataclasses.replace(place, workers_count=None)


def _recipe_with_php(paths: Mapping[str, str], place: Place) -> Recipe:
    """Workers are those of the pool."""
    text = configuration(one_worker(place), _PHP)
    return php_fpm.behind(command(paths), {"nginx.conf": text}, paths["php-fpm"], place)


def _recipe(paths: Mapping[str, str], place: Place) -> Recipe:
    return Recipe(command(paths), {"nginx.conf": configuration(place), PATH_FILE.strip("/"): BODY_FILE})


def _told(page: Page) -> Told | None:
    """Of stub_status."""
    found = _STATUS.search(page.body)
    if found is None:
        return None
    accepted, handled, requests, opened = (int(found[name]) for name in ("accepted", "handled", "requests", "open"))
    return Told(accepted, opened, requests, accept_errors_count=accepted - handled)


NGINX: Final = RealModel(
    name="nginx",
    summary="an event loop for each worker, one worker",
    find=find_parts("nginx"),
    recipe=_recipe,
    read=_told,
    defence=_DEFENCE,
    per_connection=Needs(descriptors_count=1, system_descriptors_count=1),
    fixed=Needs(descriptors_count=16, system_descriptors_count=64, tasks_count=3, memory_bytes=20 << 20),
    takes=frozenset({"workers", "capacity"}),
    settings=("worker_connections", "worker_processes", "keepalive_timeout", "client_header_timeout"),
    raised_by_workers="worker_connections",
)
NGINX_PHP: Final = dataclasses.replace(
    NGINX,
    name="nginx-php-fpm",
    raised_by_workers="",
    summary="nginx's event loop before a pool of PHP processes (php-fpm)",
    find=find_parts("nginx", "php-fpm"),
    recipe=_recipe_with_php,
    runtime=("PHP", php_fpm.VERSION_PATH),
    work_path=php_fpm.WORK_PATH,
    cache_path=php_fpm.CACHE_PATH,
    fixed=Needs(descriptors_count=32, system_descriptors_count=256, tasks_count=9, memory_bytes=60 << 20),
)
