"""Settings of the whole suite: CPU, and JAX at its strictest."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test reaches out
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Most of the suite's time is compiling programs that then run for a moment: half of it without
# the compiler's dear passes. Set it to 0 to test the programs that users get.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import hypothesis
import jax
import pytest
from filelock import FileLock
from jax.experimental.compilation_cache import compilation_cache

# A product of int and float, or a silent broadcast over a missing axis, is an error.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

pytest_plugins = ["studio_fixtures"]

hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def programs_are_kept_by_the_commands_alone():
    """A command that ran in this process would leave JAX's cache on for every test after it, which
    then spend most of their time writing small programs."""
    yield
    if jax.config.jax_compilation_cache_dir is not None:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


@pytest.fixture
def memory_to_itself(tmp_path_factory, worker_id):
    """Tests of networks at full size take 10 GB each: one of them at a time, whatever -n says."""
    folder = tmp_path_factory.getbasetemp()
    with FileLock((folder if worker_id == "master" else folder.parent) / "full_size.lock"):
        yield
