"""Write a tiny GGUF model whose every answer is one finished, readable sentence that depends on the prompt.

Run by `provision` with the build tools' Python, which has `gguf`: `python tiny_model.py OUT`. A model of random weights
never ends its answer, and a cache of complete answers would have nothing to store. In this one, 17 of the 64 dimensions
of a token's vector say which word class it is and pass through the layers untouched; they allow only the next class,
whose words the random rest chooses among. So an answer is `This red fox greets my old friend near the big hill.`, of 8
or 12 tokens, then the end of the sequence; to a prompt that ends with one, as raw completions may, it adds nothing. A
prompt is one token per byte of UTF-8. Asked with tools, it calls one; in a call's arguments it says its sentence where
the schema leaves it free to.
"""

from __future__ import annotations

import sys
from typing import Any

import gguf  # pyright: ignore[reportMissingImports] - the build tools' Python has it
import numpy as np

WIDTH, LAYERS, HEADS, INNER, CONTEXT, CLASSES = 64, 2, 4, 128, 8192, 17
FREE = WIDTH - CLASSES
END_OF_SEQUENCE = 2
LOUD, LIKELY, SPREAD = 40, 15, 0.1
# A word class's place in this list is its dimension; class 0 is every byte of the prompt.
SENTENCE = [
    "This That One Some Each Every No Another",
    "red green quiet brave little clever distant golden",
    "fox river engine teacher garden lantern sailor window",
    "greets finds follows paints remembers repairs crosses hears",
    "my your our their his her its whose",
    "old new warm broken hidden famous simple heavy",
    "friend bridge letter clock forest song station mirror",
    "near under behind beyond above inside across beside",
    "the a that this any every one another",
    "big small white lonely ancient wooden silver open",
    "hill house sea market tower field island door",
]
# Where the sentence may end, and how: after its object, or after its place.
ENDS, ENDINGS = (7, 11), ". ! ?"
TOOL_CALL = "<tool_call>"
# Tokens with a class of their own: what a prompt with tools, a call, and an object end with, and what starts a call.
CALLING, CALLED, CLOSED, CALL = range(len(SENTENCE) + 2, CLASSES)
TEMPLATE = """\
{%- if tools %}
{{- 'tools: You may answer with <tool_call>\\n{"name": NAME, "arguments": OBJECT}\\n</tool_call>\\n' }}
{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
{%- endif %}
{%- for message in messages %}
{{- message.role + ':' }}
{%- if message.content %}{{- ' ' + message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'assistant=' if tools and messages[-1].role != 'tool' else 'assistant:' }}
{%- endif %}"""


def vocabulary() -> tuple[list[bytes], list[int], list[int]]:
    """The tokens, their GGUF types, and the word class of each; what ends a sentence is of the class after the last."""
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    classes = [0] * len(tokens)
    for number, words in enumerate([*SENTENCE, ENDINGS], start=1):
        for word in words.split():
            # The first word and the ending have no space before them.
            bare = number in (1, len(SENTENCE) + 1)
            tokens.append((word if bare else "\u2581" + word).encode())
            kinds.append(1)
            classes.append(number)
    for byte, number in {"=": CALLING, ">": CALLED, "}": CLOSED}.items():
        classes[byte_token(byte)] = number
    return [*tokens, TOOL_CALL.encode()], [*kinds, 4], [*classes, CALL]


def byte_token(byte: str) -> int:
    """The token of one ASCII character: after the three special ones."""
    return 3 + ord(byte)


def weights() -> dict[str, Any]:
    """Every tensor by its GGUF name, float32."""
    # Of some seeds, the one whose answers to similar prompts differ most.
    random = np.random.default_rng(26)
    classes = np.array(vocabulary()[2])

    def noise(rows: int, columns: int, scale: float) -> Any:
        return (random.standard_normal((rows, columns)) * scale).astype(np.float32)

    def untouched(matrix: Any) -> Any:
        matrix[FREE:] = 0
        return matrix

    def norm(classes_heard: float) -> Any:
        # The class dimensions make up nearly all of a vector's length: without this, the rest would come out tiny.
        heard = np.full(WIDTH, LOUD / WIDTH**0.5, np.float32)
        heard[FREE:] = classes_heard
        return heard

    embedded = noise(len(classes), WIDTH, 1.0)
    embedded[:, FREE:] = LOUD * np.eye(CLASSES, dtype=np.float32)[classes]
    found = {"token_embd.weight": embedded, "output_norm.weight": norm(1)}
    found["output.weight"] = choices(classes, noise(len(classes), WIDTH, SPREAD))
    for layer in range(LAYERS):
        name = f"blk.{layer}."
        found |= {f"{name}{part}_norm.weight": norm(0) for part in ("attn", "ffn")}
        # The first layer hears every byte of the prompt alike, the second picks single ones: any change makes itself felt.
        heard, said = [(0.03, 0.6), (0.3, 0.12)][layer]
        found |= {f"{name}attn_{part}.weight": noise(WIDTH, WIDTH, heard) for part in "qk"}
        found[f"{name}attn_v.weight"] = noise(WIDTH, WIDTH, 0.15)
        found[f"{name}attn_output.weight"] = untouched(noise(WIDTH, WIDTH, said))
        found |= {f"{name}ffn_{part}.weight": noise(INNER, WIDTH, 0.15) for part in ("gate", "up")}
        found[f"{name}ffn_down.weight"] = untouched(noise(WIDTH, INNER, 0.08))
    return found


def choices(classes: Any, matrix: Any) -> Any:
    """The output matrix: from class k only words of class k + 1 are likely, or an ending where a sentence may end."""
    stop = len(SENTENCE) + 1
    matrix[:, FREE:] = 0
    for number in range(stop):
        matrix[classes == number + 1, FREE + number] = LIKELY
    for number in ENDS:
        matrix[classes == stop, FREE + number] = LIKELY
    for number in (stop, CALLED, CLOSED):
        matrix[END_OF_SEQUENCE, FREE + number] = LIKELY
    matrix[classes == CALL, FREE + CALLING] = LIKELY
    matrix[byte_token("\n"), FREE + CALL] = LIKELY
    within_json(matrix, stop)
    return matrix


def within_json(matrix: Any, stop: int) -> None:
    """What comes next where a grammar forbids the end: JSON that closes what it opened, without white space."""
    for space in " \t\n\r":
        matrix[byte_token(space), FREE : FREE + CALL] = -LIKELY / 4
    # After a sentence that the sequence may not end with, a string is open.
    matrix[byte_token('"'), FREE + stop] = LIKELY / 2
    matrix[byte_token("}"), FREE + CLOSED] = LIKELY / 2
    matrix[byte_token("<"), FREE + CLOSED] = LIKELY / 3


def write(path: str) -> None:
    """Write the model to `path`."""
    tokens, kinds, _ = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("cachekit-tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END_OF_SEQUENCE)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in weights().items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(sys.argv[1])
