"""What compilers of models keep for the next process, kept for the team: pulled before, pushed after.

from cachekit_adapters import compile_cache

with compile_cache.jax():          # or torch(), openvino(core), triton()
    train()                        # what another machine compiled is not compiled here

Each block works in a directory of its own, so only what this process wrote goes out, and only when the block ends without
an exception: a compiler that was interrupted may have left half an entry.
"""

from cachekit_adapters.compile_cache.tools import jax, openvino, torch, triton

__all__ = ["jax", "openvino", "torch", "triton"]
