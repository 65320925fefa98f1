"""The peers, for every test of the adapters."""

from __future__ import annotations

from peers.fixtures import (  # noqa: F401 - fixtures, found by their names
    groq_peer,
    llama_peer,
    llama_rerank_peer,
    mlserver_peer,
    opea_peer,
    pytriton_peer,
    tei_peer,
    tgi_peer,
)
