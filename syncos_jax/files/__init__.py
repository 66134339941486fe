"""Files: written whole or not at all, read as documents; the words of errors about them."""

from syncos_jax.files.atomic import cache_folder, check_writable, replacing, replacing_folder

__all__ = ["cache_folder", "check_writable", "replacing", "replacing_folder"]
