"""llama.cpp's own converters, run once: byte-equal results, keys that know what the output depends on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit_adapters import _building, gguf
from loaders import tiny_models
from loaders.conftest import library

pytestmark = [pytest.mark.loaders, pytest.mark.timeout(300)]


@pytest.fixture
def checkpoint(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    library("gguf"), library("sentencepiece")
    return Path(shutil.copytree(tiny("llama"), tmp_path / "tiny-llama"))


def runs() -> int:
    """How often a script was run."""
    return int(cachekit.stats().as_dict()["misses"])


def name_in(path: Path) -> str:
    """`general.name` of a GGUF, which loads with llama.cpp's own reader."""
    reader = library("gguf").GGUFReader(path)
    assert len(reader.tensors) > 0
    return str(reader.get_field("general.name").contents())


def test_a_hit_is_byte_equal_in_another_process(scripts: Path, checkpoint: Path, again: Any) -> None:
    """What another process gets, where the script may not run, is what the script wrote; and it is a GGUF."""
    script = scripts / "convert_hf_to_gguf.py"
    first = gguf.convert(script, checkpoint, outtype="f16")
    code = """
    from cachekit_adapters import gguf
    path = gguf.convert(script, checkpoint, outtype="f16")
    answer = [str(path), path.read_bytes().hex()]
    """
    path, content = again(code, script=script, checkpoint=checkpoint)
    assert bytes.fromhex(content) == first.read_bytes()
    assert name_in(Path(path)).lower().replace(" ", "-") == "tiny-llama"


def test_the_result_is_what_the_script_writes_without_us(scripts: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Byte for byte."""
    script, plain = scripts / "convert_hf_to_gguf.py", tmp_path / "plain.gguf"
    command = [sys.executable, script, checkpoint, "--outtype", "f32", "--outfile", plain]
    subprocess.run(command, check=True, capture_output=True)
    assert gguf.convert(script, checkpoint, outtype="f32").read_bytes() == plain.read_bytes()


def test_an_input_changed_in_place_is_converted_again(scripts: Path, checkpoint: Path) -> None:
    """The name stays, the content does not: a miss."""
    script = scripts / "convert_hf_to_gguf.py"
    gguf.convert(script, checkpoint)
    config = checkpoint / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    gguf.convert(script, checkpoint)
    assert runs() == 2


def test_the_directorys_name_is_part_of_the_key(scripts: Path, checkpoint: Path, tmp_path: Path) -> None:
    """The converter writes it into its output, so a copy under another name is converted, and says so."""
    script, other = scripts / "convert_hf_to_gguf.py", tmp_path / "other-llama"
    shutil.copytree(checkpoint, other)
    assert name_in(gguf.convert(script, checkpoint)) != name_in(gguf.convert(script, other))
    # The same name somewhere else is the same model.
    elsewhere = tmp_path / "elsewhere" / "other-llama"
    shutil.copytree(checkpoint, elsewhere)
    gguf.convert(script, elsewhere)
    assert runs() == 2


def key(script: Path, checkpoint: Path, **options: Any) -> str:
    """What the call is known by, without making it."""
    interpreter = str(options.pop("python", sys.executable))
    arguments = gguf._arguments(script, {"model": checkpoint}, options.pop("outtype", "f16"), interpreter, options)
    return str(gguf._converted.key_for(*arguments, command=[]))


def test_script_modules_outtype_and_options_are_part_of_the_key(
    scripts: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Each of them changes it; where the script lies, and the bytecode that Python leaves there, do not."""
    first = Path(shutil.copytree(scripts, tmp_path / "one"))
    second = Path(shutil.copytree(scripts, tmp_path / "two"))
    script = second / "convert_hf_to_gguf.py"
    (second / "conversion" / "__pycache__").mkdir(exist_ok=True)
    (second / "conversion" / "__pycache__" / "x.pyc").write_bytes(b"bytecode")
    base = key(first / script.name, checkpoint)
    assert key(script, checkpoint) == base
    others = {key(script, checkpoint, outtype="q8_0"), key(script, checkpoint, vocab_only=True)}
    for module in (script, second / "conversion" / "llama.py", second / "gguf-py" / "gguf" / "gguf_writer.py"):
        module.write_text(module.read_text() + "\n# another version\n")
        others.add(key(script, checkpoint))
    assert len({base, *others}) == 6


def test_how_it_is_done_is_not_part_of_the_key(scripts: Path, checkpoint: Path) -> None:
    """`verbose` and the like change no byte."""
    script = scripts / "convert_hf_to_gguf.py"
    assert key(script, checkpoint, verbose=True, use_temp_file=True) == key(script, checkpoint)


def test_a_lora_is_keyed_by_adapter_and_base(scripts: Path, checkpoint: Path, tmp_path: Path, again: Any) -> None:
    """A hit is byte-equal in another process; another base is another conversion."""
    script, adapter = scripts / "convert_lora_to_gguf.py", tmp_path / "tiny-lora"
    tiny_models.lora(adapter)
    first = gguf.convert_lora(script, adapter, checkpoint, outtype="f32")
    assert {tensor.name for tensor in library("gguf").GGUFReader(first).tensors} == {
        "blk.0.attn_q.weight.lora_a",
        "blk.0.attn_q.weight.lora_b",
    }
    code = """
    from cachekit_adapters import gguf
    answer = gguf.convert_lora(script, adapter, checkpoint, outtype="f32").read_bytes().hex()
    """
    content = again(code, script=script, adapter=adapter, checkpoint=checkpoint)
    assert bytes.fromhex(content) == first.read_bytes()
    (checkpoint / "README.md").write_text("another base")
    gguf.convert_lora(script, adapter, checkpoint, outtype="f32")
    assert runs() == 2


def test_old_ggml_files_are_converted_once(scripts: Path, tmp_path: Path, again: Any) -> None:
    """The converter of the format before GGUF, on a file of it."""
    library("gguf")
    script, old = scripts / "convert_llama_ggml_to_gguf.py", tmp_path / "old.ggml"
    tiny_models.ggml(old)
    first = gguf.convert_ggml(script, old)
    assert "token_embd.weight" in {tensor.name for tensor in library("gguf").GGUFReader(first).tensors}
    code = "from cachekit_adapters import gguf\nanswer = gguf.convert_ggml(script, old).read_bytes().hex()"
    assert bytes.fromhex(again(code, script=script, old=old)) == first.read_bytes()


def test_a_failing_script_raises_what_it_said_and_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """The caller gets stderr and the exit status; the next call runs the script again."""
    script = tmp_path / "convert.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "Path(sys.argv[-1]).write_bytes(b'half')\nsys.stderr.write('tensor lost\\n')\nsys.exit(3)\n"
    )
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError) as raised:
            gguf.convert(script, checkpoint)
        assert (raised.value.returncode, raised.value.stderr) == (3, "tensor lost\n")
    assert cachekit.stats().as_dict()["stores"] == 0


def test_what_is_not_there_is_said_before_anything_runs(scripts: Path, tmp_path: Path) -> None:
    """UsageError names the argument."""
    with pytest.raises(cachekit.UsageError, match="model_dir"):
        gguf.convert(scripts / "convert_hf_to_gguf.py", tmp_path / "nowhere")
    with pytest.raises(cachekit.UsageError, match="outfile"):
        gguf.convert(scripts / "convert_hf_to_gguf.py", scripts, outfile="mine.gguf")


def test_an_upgrade_of_the_interpreters_libraries_is_noticed(tmp_path: Path) -> None:
    """Within one process: what was installed where the interpreter imports from is asked for again."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = str(environment / "bin" / "python")
    assert _building.versions_in(python, "gguf") == {"gguf": ""}
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "gguf-9.9.dist-info").mkdir()
    (packages / "gguf-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: gguf\nVersion: 9.9+local\n")
    assert _building.versions_in(python, "gguf") == {"gguf": "9.9"}
