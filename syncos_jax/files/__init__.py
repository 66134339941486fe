"""Atomic and durable files, YAML and JSON documents, versioned JSON files."""

from syncos_jax.files.atomic import cache_folder, check_writable, replacing, replacing_folder

__all__ = ["cache_folder", "check_writable", "replacing", "replacing_folder"]
