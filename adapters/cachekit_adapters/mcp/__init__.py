"""MCP servers: what they call cacheable is kept across processes, and calls of tools that only read.

from cachekit_adapters import mcp

config = mcp.response_cache(principal="alice@example.org", target="https://weather.example/mcp")
async with Client("https://weather.example/mcp", cache=config) as client:        # lists and resources, as the server says
    mcp.cache_tools(client, principal="alice@example.org", target="https://weather.example/mcp", ttl="5m")
    await client.call_tool("forecast", {"city": "Bern"})

Rules and names are those of the protocol's revision 2026-07-28 (SEP-2549: `ttlMs`, `cacheScope`; tool annotations). The
client of the `mcp` package and FastMCP's are both served.
"""

from cachekit_adapters.mcp.responses import Responses, response_cache
from cachekit_adapters.mcp.tools import cache_tools

__all__ = ["Responses", "cache_tools", "response_cache"]
