"""nginx, HAProxy and certificates, each with the little configuration that a case needs."""

import contextlib
import functools
import os
import ssl
import subprocess
import threading

import websockets.exceptions
import websockets.sync.server

from harness import ROOM, free_port


def nginx(lab, servers, *, main="", ports=()):
    """Runs nginx with these `server` blocks in its http section."""
    config = lab.write(f"nginx-{len(lab.logs)}/nginx.conf", f"""
        daemon off;
        master_process on;
        worker_processes 1;
        worker_rlimit_nofile 8192;
        error_log stderr warn;
        pid {{folder}}/nginx.pid;
        {"user root;" if os.geteuid() == 0 else ""}
        {main}
        events {{{{ worker_connections 4096; }}}}
        http {{{{
            access_log off;
            client_body_temp_path {{folder}}/body; proxy_temp_path {{folder}}/proxy; fastcgi_temp_path {{folder}}/fastcgi;
            uwsgi_temp_path {{folder}}/uwsgi; scgi_temp_path {{folder}}/scgi;
            types {{{{ text/plain txt; application/octet-stream bin; }}}}
            {{servers}}
        }}}}
    """)
    text = config.read_text().format(folder=config.parent, servers=servers)
    config.write_text(text)
    return lab.spawn("nginx", ["nginx", "-c", config, "-p", config.parent], ports=ports)


def nginx_origin(lab, protocol, body, *, outer=""):
    """The port of an nginx with one server; 1.22 speaks either HTTP/1 or HTTP/2 on a cleartext port."""
    port, = ports(1)
    nginx(lab, f"{outer} server {{ listen 127.0.0.1:{port} backlog=4096 {'http2' if protocol == 'h2' else ''}; root {lab.folder}; {body} }}", ports=[port])
    return port


def haproxy(lab, sections, *, ports=()):
    """Runs HAProxy with these sections."""
    config = lab.write(f"haproxy-{len(lab.logs)}.cfg", f"""
global
    maxconn 4096
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    timeout http-request 10s
{sections}
""")
    return lab.spawn("haproxy", ["haproxy", "-db", "-f", config], ports=ports)


def websocket_server(lab, handle=None, **options):
    """The port of a server of the websockets package; it echoes unless `handle` says otherwise."""
    def echo(link):
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            for message in link:
                link.send(message)

    server = websockets.sync.server.serve(handle or echo, "127.0.0.1", 0, max_size=16 << 20, **options)
    lab.stack.callback(server.shutdown)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.socket.getsockname()[1]


def ports(count):
    return [free_port() for _ in range(count)]


@functools.cache
def certificates():
    """A folder with an authority `ca` and certificates for shop.example, other.example and *.wild.example; made once a run."""
    folder = ROOM / "certificates"
    folder.mkdir()
    make(folder, "ca", "peers' authority", "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    for name in ("shop.example", "other.example", "*.wild.example", "localhost"):
        make(folder, name.replace("*", "any"), name, f"subjectAltName=DNS:{name},IP:127.0.0.1", "basicConstraints=critical,CA:FALSE",
             "extendedKeyUsage=serverAuth,clientAuth", authority=True)
    return folder


def make(folder, file, name, *extensions, authority=False):
    config = folder / "openssl.cnf"
    config.write_text("[req]\ndistinguished_name=name\nprompt=no\n[name]\n")
    subprocess.run(
        ["openssl", "req", "-config", config, "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-keyout", folder / f"{file}.key", "-out", folder / f"{file}.crt",
         *(word for extension in extensions for word in ("-addext", extension)),
         *(["-CA", folder / "ca.crt", "-CAkey", folder / "ca.key"] if authority else [])],
        check=True, capture_output=True, timeout=20)


def certificate(name):
    """The pair as a listener's configuration names it."""
    folder = certificates()
    return {"cert": str(folder / f"{name}.crt"), "key": str(folder / f"{name}.key")}


def server_tls(name, *alpn):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = certificate(name)
    context.load_cert_chain(pair["cert"], pair["key"])
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def client_tls(*alpn):
    context = ssl.create_default_context(cafile=str(certificates() / "ca.crt"))
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def gateway(lab, upstreams, *, names=("shop.example",), **listener):
    """A proxy that ends TLS for these names; everything goes to the first upstream unless the listener says otherwise."""
    return lab.proxy([{"name": "edge", "mode": "gateway", "tls": {"certificates": [certificate(name) for name in names]},
                       "upstream": upstreams[0]["name"], **listener}], upstreams)
