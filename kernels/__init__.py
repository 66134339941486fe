"""Operations of the networks that have more than one way to be computed.

Each file holds one operation with its plain ``jax.numpy`` reference, which is also what runs where
nothing faster has been measured. Imported as ``syncos_jax.kernels``.
"""
