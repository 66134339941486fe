"""Facts about libraries on which a line of ours rests.

Each test names that line (`rests_on`). If one fails after an upgrade, look there: the line may be
wrong, or needless.
"""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = Path(__file__).parent.parent


def rests_on(path, line):
    """The line of ours is still there."""
    assert line in (ROOT / path).read_text(encoding="utf-8"), f"{path} has changed: {line}"


def test_orbax_answers_false_for_an_earlier_step(tmp_path):
    rests_on("syncos_jax/pipeline/states.py", "return bool(saved)")
    with ocp.CheckpointManager(tmp_path / "states") as manager:
        answers = []
        for step in (5, 4, 5):
            answers.append(manager.save(step, args=ocp.args.JsonSave({"step": step})))
            manager.wait_until_finished()
        assert answers == [True, False, False] and manager.all_steps() == [5]


def test_a_numpy_view_prevents_donation():
    """`device_get` gives the buffer itself on a CPU: a view of it keeps the buffer from reuse."""
    rests_on("syncos_jax/pipeline/states.py", "np.array(value) for name, value in zip(names, leav")
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    free, viewed = jnp.zeros(1024), jnp.zeros(1024)
    view = jax.device_get(viewed)
    step(free), step(viewed)
    assert free.is_deleted() and not viewed.is_deleted() and not view.any()


def _looped():
    x = jnp.ones((64, 64))
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, y: y @ x, x))
    return loop.lower(x).compile()


def test_the_compiler_counts_a_loop_once():
    rests_on("syncos_jax/pipeline/flops.py", "def flops_of(jaxpr")
    counted = _looped().cost_analysis()["flops"]
    assert 2 * 64**3 <= counted < 3 * 64**3  # ten products are computed


def test_the_compiler_reports_temporaries_apart():
    rests_on("syncos_jax/sampling/memory.py", "analysis.temp_size_in_bytes")
    analysis = _looped().memory_analysis()
    arrays = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    assert arrays == 2 * 4 * 64**2 and analysis.temp_size_in_bytes >= 4 * 64**2
    assert getattr(analysis, "peak_memory_in_bytes", 0) < arrays + analysis.temp_size_in_bytes


def test_safetensors_writes_transposed_arrays_in_memory_order(tmp_path):
    """Silently wrong values: an array is made contiguous before it is written."""
    from safetensors.numpy import load_file, save_file

    rests_on("weights_convert/diffusers_folder.py", "np.ascontiguousarray(array, like.dtype)")
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_file({"x": array}, tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")["x"]
    assert found.shape == array.shape and not np.array_equal(found, array)


def test_normals_in_bfloat16_have_128_values():
    rests_on("syncos_jax/sampling/noise.py", "frame_shape, jnp.float32)")
    drawn = jax.random.normal(jax.random.key(0), (100_000,), jnp.bfloat16)
    assert len(np.unique(np.asarray(drawn).astype(np.float32))) == 128


def test_rbg_keys_draw_something_else_under_vmap():
    rests_on("syncos_jax/sampling/noise.py", "# Not vmap: keys of the")
    keys = jax.random.split(jax.random.key(3, impl="rbg"), 3)
    alone = jnp.stack([jax.random.normal(key, (4,)) for key in keys])
    assert not np.array_equal(jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys), alone)


def test_variance_without_a_pivot_cancels():
    rests_on("syncos_jax/kernels/group_norm.py", "distance = flat - pivot")
    x = 4096 + jax.random.normal(jax.random.key(0), (10_000,))
    exact = np.asarray(x, np.float64).var()
    naive = float(jnp.square(x).mean() - jnp.square(x.mean()))
    moved = x - x[:1]
    assert abs(naive - exact) > 0.1
    assert abs(float(jnp.square(moved).mean() - jnp.square(moved.mean())) - exact) < 1e-3


def test_make_mesh_has_explicit_axes():
    rests_on("syncos_jax/sampling/devices.py", "axis_types=(AxisType.Auto,)")
    assert jax.make_mesh((1,), ("x",)).axis_types == (jax.sharding.AxisType.Explicit,)


def test_transformers_drops_the_normaliser_of_t5(tmp_path):
    """So `tokenizer.json` is read by the tokenizers library itself."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, normalizers

    rests_on("syncos_jax/models/t5_tokenizer.py", 'Tokenizer.from_file(str(folder / "tokeniz')
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).normalizer is not None
    read = transformers.T5TokenizerFast.from_pretrained(str(tmp_path), extra_ids=0)
    assert not isinstance(read.backend_tokenizer.normalizer, normalizers.Lowercase)


def test_an_exception_in_a_block_publishes_what_fsspec_has():
    fsspec = pytest.importorskip("fsspec.spec")
    rests_on("syncos_jax/runs/outputs.py", "self._fs.put_file(str(path), target)")
    finals = []

    class File(fsspec.AbstractBufferedFile):
        def _initiate_upload(self):
            pass

        def _upload_chunk(self, final=False):
            finals.append(final)
            return True

    with pytest.raises(ValueError), File(None, "half", "wb", block_size=8) as file:
        file.write(b"half of it")
        raise ValueError
    assert finals[-1] is True


@pytest.mark.parametrize(
    ("path", "module", "name"),
    [
        ("syncos_jax/runs/programs.py", "jax._src.compilation_cache", "get_file_cache"),
        ("syncos_jax/sampling/hosts.py", "jax._src.distributed", "global_state"),
        ("syncos_jax/kernels/attention/cudnn.py", "jax._src.lib", "cuda_versions"),
    ],
)
def test_private_names_exist(path, module, name):
    rests_on(path, f"from {module.rpartition('.')[0]} import" if "cache" in name else module)
    assert hasattr(__import__(module, fromlist=[name]), name)
    if callable(found := getattr(__import__(module, fromlist=[name]), name)):
        assert "path" in inspect.signature(found).parameters


def test_no_other_private_name_is_used():
    """Each is tested above."""
    known = {"runs/programs.py", "sampling/hosts.py", "kernels/attention/cudnn.py"}
    users = {
        str(path.relative_to(ROOT / "syncos_jax"))
        for folder in ("", "kernels", "weights_convert")
        for path in (ROOT / "syncos_jax" / folder).rglob("*.py")
        if " jax._src" in path.read_text(encoding="utf-8")
    }
    assert users == known, users
