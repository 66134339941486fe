"""The attentions of the networks at full size: what is tested, compiled and timed.

``python benchmarks/kernels.py`` measures them; the tests take each at `Shape.small`.
"""

from dataclasses import dataclass, replace

import jax


@dataclass(frozen=True)
class Shape:
    """An attention of a network.

    Attributes:
        name: where it stands.
        b, T, S, N, D: batch, queries, keys, heads, head size.
        dtype: of its arrays.
    """

    name: str
    b: int
    T: int
    S: int
    N: int
    D: int
    dtype: str = "bfloat16"

    @property
    def arrays(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Queries, keys and values."""
        sides = ((self.b, length, self.N, self.D) for length in (self.T, self.S, self.S))
        return tuple(jax.ShapeDtypeStruct(side, self.dtype) for side in sides)

    @property
    def flops(self) -> float:
        """Of its two products."""
        return 4.0 * self.b * self.N * self.T * self.S * self.D

    @property
    def least_bytes(self) -> int:
        """What has to be read and written at least: queries, keys, values and the result."""
        times = zip((2, 1, 1), self.arrays, strict=True)
        return sum(count * array.size * array.dtype.itemsize for count, array in times)

    @property
    def small(self) -> "Shape":
        """The same in little: as odd, with the same head size, and no more than a CPU can try."""
        T, S = (n if n <= 160 else 256 + n % 128 for n in (self.T, self.S))
        return replace(self, b=min(self.b, 2), T=T, S=S, N=min(self.N, 2))

    def like(self, q: jax.ShapeDtypeStruct, keys: int) -> bool:
        """Whether queries and a number of keys are this attention's."""
        return (tuple(q.shape), keys, str(q.dtype)) == (
            self.arrays[0].shape,
            self.S,
            self.dtype,
        )


def _unet(name: str, b: int, F: int, H: int, W: int) -> tuple[Shape, ...]:
    """VideoCrafter2's, for `b` clips of F frames of H x W cells."""
    found = [Shape(f"{name}: frames, at the entrance", b * H * W, F, F, 8, 64)]
    for level, heads in enumerate((5, 10, 20, 20)):
        cells = (H >> level) * (W >> level)
        found += [
            Shape(f"{name}: cells, level {level}", b * F, cells, cells, heads, 64),
            Shape(f"{name}: text, level {level}", b, F * cells, 77, heads, 64),
            Shape(f"{name}: frames, level {level}", b * cells, F, F, heads, 64),
        ]
    return tuple(found)


SHAPES: tuple[Shape, ...] = (
    *_unet("VideoCrafter2", 2, 16, 40, 64),
    Shape("VideoCrafter2's autoencoder", 6, 2560, 2560, 1, 512),
    Shape("VideoCrafter2's autoencoder, float32", 6, 2560, 2560, 1, 512, "float32"),
    Shape("CogVideoX-2B", 2, 17776, 17776, 30, 64),
    Shape("Wan2.1-1.3B: tokens", 2, 32760, 32760, 12, 128),
    Shape("Wan2.1-1.3B: text", 2, 32760, 512, 12, 128),
    Shape("Wan2.1's autoencoder", 1, 6240, 6240, 1, 384),
    Shape("Wan2.1's autoencoder, float32", 1, 6240, 6240, 1, 384, "float32"),
)
