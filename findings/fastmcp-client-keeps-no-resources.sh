#!/bin/sh
# fastmcp 4.2.3 with mcp 2.3.0: a server with `cache_ttl` stamps `ttlMs` on the results of resources/read too, and the
# protocol's own client serves the second read from its cache. FastMCP's client with `cache=True` serves a second
# tools/list, and reads every resource again, although the connection is of the same protocol version.
set -eu
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check fastmcp==4.2.3 mcp==2.3.0
cat > "$place/read.py" <<'PY'
import asyncio

import fastmcp
import mcp.client.client as protocol

server, reads = fastmcp.FastMCP("s", cache_ttl=60), []

@server.resource("data://one")
def one() -> str:
    reads.append(1)
    return "one"

async def main():
    async with protocol.Client(server._mcp_server) as client:
        results = [await client.read_resource("data://one") for _ in range(2)]
        print("ttlMs:", results[0].ttl_ms, "version:", client.protocol_version)
        assert results[0].ttl_ms == 60_000
    print("reads by the protocol's client:", len(reads))
    assert len(reads) == 1
    reads.clear()
    async with fastmcp.Client(server, mode="auto", cache=True) as client:
        before = await client.list_tools()
        server.tool(lambda: 1, name="later")
        assert await client.list_tools() == before, "lists are not kept any more"
        for _ in range(2):
            await client.read_resource("data://one")
    print("reads by FastMCP's client:     ", len(reads))
    assert len(reads) == 2, "FastMCP's client keeps resources now"

asyncio.run(main())
PY
"$place/venv/bin/python" "$place/read.py"
