"""What a server holds and may change between two equal requests: conversations, containers, prompts, the web.

A request that refers to it says something else each time, or has effects there, so it goes straight to the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

TOOLS: Final = "server_tools"
"""The reason of a request whose tools run at the server."""


class Held(NamedTuple):
    """Parameters by which a request refers to what a server holds, and the tools that the caller runs.

    `parameters` say for each whether its value does; `own_tools` are the beginnings of the types of tools whose calls
    come back to the caller. A tool of a type that is not known here runs at the server.
    """

    parameters: Mapping[str, Callable[[Any], bool]]
    own_tools: tuple[str, ...] = ("function", "custom")

    def reason(self, body: Any) -> str:
        """The parameter's name, or `server_tools`, "" for a request that says everything itself."""
        if not isinstance(body, Mapping):
            return ""
        for name in self.parameters.keys() & body.keys():
            if self.parameters[name](body[name]):
                return name
        return TOOLS if self._runs(body.get("tools")) else ""

    def _runs(self, tools: Any) -> bool:
        if not isinstance(tools, Iterable) or isinstance(tools, (str, bytes)):
            return False
        return any(isinstance(tool, Mapping) and self._at_server(tool) for tool in tools)

    def _at_server(self, tool: Mapping[str, Any]) -> bool:
        kind = str(tool.get("type") or "custom")
        return (
            not kind.startswith(self.own_tools)
            or _in_container(tool.get("environment"))
            or self._runs(tool.get("tools"))
        )


def said(value: Any) -> bool:
    """Whether a parameter is there at all; an empty table of options is."""
    return value is not None and type(value).__name__ not in ("Omit", "NotGiven")


def given(value: Any) -> bool:
    """Whether it says something: false and an empty list do not."""
    return said(value) and bool(value)


def unversioned(prompt: Any) -> bool:
    """Whether a prompt of the server is meant as it will be then."""
    return said(prompt) and not (isinstance(prompt, Mapping) and given(prompt.get("version")))


def _in_container(environment: Any) -> bool:
    return isinstance(environment, Mapping) and environment.get("type") != "local"


NOTHING: Final = Held({})
CHAT: Final = Held({"web_search_options": said})
RESPONSES: Final = Held(
    {"conversation": given, "background": given, "prompt": unversioned},
    (
        *("function", "custom", "apply_patch", "local_shell", "shell", "computer", "image_generation", "namespace"),
        "tool_search",
    ),
)
