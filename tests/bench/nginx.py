"""An nginx on loopback that answers every update as the documented page does: 200, the uuid from the URL, constant fields."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

FIELDS = {"name": "bench-2026", "description": "golden image", "platform": "Linux", "virtio": True}

_CONFIG = """
daemon off; worker_processes 1; pid {place}/nginx.pid; error_log {place}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 10000000; keepalive_timeout 75s; client_body_temp_path {place}/body;
  proxy_temp_path {place}/p; fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  server {{
    listen 127.0.0.1:{port} backlog=4096; default_type application/json;
    location ~ "^/zstack/v1/images/(?<uuid>[0-9a-f]+)/actions$" {{
      return 200 '{answer}';
    }}
    location / {{ return 404; }}
  }}
}}
"""


_REF = {
    "id": 0.0,
    "imageUuid": "$uuid",
    "backupStorageUuid": "b94ff32725d133fea53e8ada5ea7f0fc",
    "installPath": "ceph://zs-images/f0b149e053b34c7eb7fe694b182ebffd",
    "status": "Ready",
}
_ANSWER = {
    "inventory": {
        "uuid": "$uuid",
        **FIELDS,
        "url": "http://192.168.1.20/share/images/tinylinux.qcow2",
        "mediaType": "RootVolumeTemplate",
        "architecture": "x86_64",
        "format": "qcow2",
        "backupStorageRefs": [_REF],
    }
}


@contextlib.contextmanager
def serving(place: Path) -> Iterator[str]:
    """Start nginx and give its URL. Raises RuntimeError if the Debian package nginx-light is missing."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed; on Debian: apt-get install nginx-light")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = place / "nginx.conf"
    config.write_text(_CONFIG.format(place=place, port=port, answer=json.dumps(_ANSWER)))
    server = subprocess.Popen([program, "-p", str(place), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)
