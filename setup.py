"""Lists the packages; everything else stands in pyproject.toml.

``kernels/`` and ``weights_convert/`` lie at the top of the repository and install as subpackages of
``syncos_jax``: a top-level package called ``kernels`` would shadow the one that other libraries
import. Setuptools cannot discover packages through such a renaming, so it is done here.
"""

from pathlib import Path

from setuptools import find_packages, setup

RENAMED = ("kernels", "weights_convert")

packages = find_packages(include=["syncos_jax", "syncos_jax.*"])
package_dir = {"syncos_jax": "syncos_jax"}
for folder in RENAMED:
    if Path(folder, "__init__.py").is_file():
        package_dir[f"syncos_jax.{folder}"] = folder
        packages.append(f"syncos_jax.{folder}")
        packages += [f"syncos_jax.{folder}.{name}" for name in find_packages(folder)]

setup(packages=packages, package_dir=package_dir)
