#!/bin/sh
# gh 2.23.0 (Debian bookworm; 2.103.3 too): `gh api --cache 1h PATH` keeps a 429 as it keeps a 200, and tells it for an hour,
# although the service would answer by then. Wants apt-get, dpkg-deb, openssl and python3; nothing is installed.
# Seen: "first: exit 1, then: exit 1, requests: 1"; without --cache "first: exit 1, then: exit 0".
set -eu
place=$(mktemp -d); server=; trap 'test -z "$server" || kill "$server"; rm -rf "$place"' EXIT
cd "$place"
apt-get download gh >/dev/null 2>&1
dpkg-deb -x gh_*.deb package
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout key.pem -out certificate.pem 2>/dev/null
cat > server.py <<'PY'
import http.server, ssl

class Once(http.server.BaseHTTPRequestHandler):
    count = 0

    def do_GET(self):
        Once.count += 1
        open("requests", "w").write(str(Once.count))
        body = b'{"message": "slow down"}' if Once.count == 1 else b'{"id": 7}'
        self.send_response(429 if Once.count == 1 else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Once)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("certificate.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
open("port.new", "w").write(str(server.server_port))
import os; os.rename("port.new", "port")
server.serve_forever()
PY
python3 server.py & server=$!
tries=0
while [ ! -f port ]; do tries=$((tries + 1)); [ "$tries" -lt 100 ]; sleep 0.1; done
export GH_HOST="localhost:$(cat port)" GH_ENTERPRISE_TOKEN=t GH_CONFIG_DIR="$place/config" TMPDIR="$place"
export SSL_CERT_FILE="$place/certificate.pem"
ask() { package/usr/bin/gh api --cache 1h repos/octo/hello >/dev/null 2>&1 && echo 0 || echo 1; }
first=$(ask); then=$(ask)
echo "first: exit $first, then: exit $then, requests: $(cat requests)"
[ "$first $then $(cat requests)" = "1 1 1" ] || { echo "no longer so"; exit 1; }
