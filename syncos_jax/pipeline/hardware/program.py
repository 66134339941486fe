"""Analyses a compiled program's text (HLO): memory traffic, collectives, copies, products.

GPU compilers do not report memory traffic, so it is counted here: what each operation (a fusion is
one) reads and writes. Arrays in a TPU's fast memory are free. A loop counts once per known
iteration, else once; a conditional by its largest branch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "s64": 8, "u64": 8,
    "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8, "c128": 16,
    "s4": 1, "u4": 1,
}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"\s*([\w\-]+)\((.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "iota",
}  # fmt: skip
_CUTS = {"slice", "dynamic-slice", "gather"}
_SAME = {"bitcast", "convert", "reshape"}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
_PRODUCTS = re.compile(r"cublas|convForward|convBackward|fmha|onednn")


@dataclass(frozen=True)
class Array:
    """An array of the program: dtype, shape, and whether it is in a TPU's fast memory."""

    dtype: str
    shape: tuple[int, ...]
    fast: bool = False

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of its elements, without padding of the layout."""
        return self.size * _BYTES.get(self.dtype, 4)


@dataclass(frozen=True)
class Instruction:
    """An operation of the program."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    called: tuple[tuple[str, str], ...]
    trips: int
    text: str


@dataclass
class Program:
    """A compiled program.

    Attributes:
        computations: instructions by computation.
        entry: the name of the first.
    """

    computations: dict[str, list[Instruction]]
    entry: str
    _cost: dict[str, float] = field(default_factory=dict)

    @property
    def bytes(self) -> float:
        """Read and written by all operations together."""
        return self._of(self.entry)

    def _of(self, name: str) -> float:
        if name not in self._cost:
            own = self.computations.get(name, [])
            table = {i.name: i.results for i in own}
            self._cost[name] = sum(self._one(i, table) for i in own)
        return self._cost[name]

    def _one(self, one: Instruction, table: Mapping[str, tuple[Array, ...]]) -> float:
        called = dict(one.called)
        if one.opcode == "while":
            return one.trips * (self._of(called["body"]) + self._of(called["condition"]))
        if one.opcode == "conditional":
            return max((self._of(name) for _, name in one.called), default=0.0)
        if one.opcode == "call":
            return self._of(called["to_apply"])
        if one.opcode in _FREE or one.opcode.endswith("-done"):
            return 0.0
        arrays = [a for name in one.operands for a in table.get(name, ())]
        if one.opcode == "fusion":
            arrays = list(self._read_by(one, table))
        if one.opcode in ("copy-start", "slice-start", "dynamic-slice-start"):
            # The result is a tuple of the part that is copied, what it is copied from, and flags.
            sides = [a for a in one.results if a.shape]
            part = min(a.bytes for a in sides) if sides else 0
            return float(part * sum(not a.fast for a in sides[:2]))
        if one.opcode == "custom-call" and _PRODUCTS.search(one.text):
            arrays += one.results[:1]  # the second is room to work in
        elif not one.opcode.endswith("-start"):
            arrays += one.results
        if one.opcode in ("dynamic-slice", "slice", "gather"):
            arrays = [*one.results, *one.results]
        return float(sum(a.bytes for a in arrays if not a.fast))

    def _read_by(
        self, fusion: Instruction, table: Mapping[str, tuple[Array, ...]]
    ) -> Iterator[Array]:
        """What a fusion reads: its operands, or only the pieces that it slices from them."""
        own = self.computations.get(dict(fusion.called).get("calls", ""), [])
        for index, name in enumerate(fusion.operands):
            whole = table.get(name, ())
            named = f" parameter({index})"
            inside = [i for i in own if i.opcode == "parameter" and named in i.text]
            pieces = _cut(own, inside[0].name) if inside and len(whole) == 1 else None
            if pieces is None:
                yield from whole
            else:
                yield from (replace(whole[0], shape=piece.shape) for piece in pieces)

    def instructions(self) -> Iterator[tuple[Instruction, Mapping[str, tuple[Array, ...]]]]:
        """All instructions, those within fusions too, each with the arrays of its computation."""
        for own in self.computations.values():
            table = {i.name: i.results for i in own}
            for one in own:
                yield one, table

    def arrays(self) -> Iterator[Array]:
        """All that operations write to memory: of fusions the result only."""
        for name, own in self.computations.items():
            if not self._fused(name):
                for one in own:
                    yield from one.results

    def _fused(self, name: str) -> bool:
        return name in self._called_by_fusions

    @property
    def _called_by_fusions(self) -> set[str]:
        found = self.__dict__.get("_fusions")
        if found is None:
            found = {
                called
                for own in self.computations.values()
                for one in own
                if one.opcode not in ("while", "conditional", "call", "async-start")
                for _, called in one.called
            }
            self.__dict__["_fusions"] = found
        return found

    def collectives(self) -> dict[str, tuple[int, int]]:
        """Number and bytes (of the results, on each device) of the exchanges, by kind."""
        found: dict[str, tuple[int, int]] = {}
        for one, _ in self.instructions():
            kind = one.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                # The result of an asynchronous one holds its operands as well.
                sizes = [a.bytes for a in one.results if a.shape]
                moved = max(sizes, default=0) if one.opcode.endswith("-start") else sum(sizes)
                count, total = found.get(kind, (0, 0))
                found[kind] = count + 1, total + moved
        return found

    def moved(self) -> dict[str, tuple[int, int]]:
        """Number and bytes of the transposes and copies that stand for themselves."""
        found: dict[str, tuple[int, int]] = {}
        for name, own in self.computations.items():
            if self._fused(name):
                continue
            for one in own:
                kind = one.opcode.removesuffix("-start")
                if kind in ("transpose", "copy") and one.results:
                    count, total = found.get(kind, (0, 0))
                    found[kind] = count + 1, total + one.results[0].bytes
        return found

    def products(self, dtype: str, least: int = 0) -> list[str]:
        """Matrix products and convolutions of which an operand of at least so many elements is of
        a dtype."""
        found = []
        for one, table in self.instructions():
            named = one.opcode == "custom-call" and _PRODUCTS.search(one.text)
            if one.opcode in ("dot", "convolution") or named:
                operands = [a for name in one.operands for a in table.get(name, ())]
                if any(a.dtype == dtype and a.size >= least for a in operands):
                    sides = " x ".join(f"{a.dtype}{list(a.shape)}" for a in operands)
                    found.append(f"{one.opcode} {sides}")
        return found

    def scores(self, queries: int, keys: int, least: int) -> list[Array]:
        """Arrays that could hold an attention's scores: with the sides `queries` and `keys` and at
        least so many elements."""
        found = []
        for array in self.arrays():
            sides = list(array.shape)
            for side in (queries, keys):
                if side in sides:
                    sides.remove(side)
            if len(sides) <= len(array.shape) - 2 and array.size >= least:
                found.append(array)
        return found


def _cut(own: list[Instruction], name: str) -> list[Array] | None:
    """The pieces of an array that a computation slices from it; None if it reads all of it."""
    pieces: list[Array] = []
    for user in (i for i in own if name in i.operands):
        if user.opcode in _CUTS:
            pieces += user.results
        elif user.opcode in _SAME and (more := _cut(own, user.name)) is not None:
            pieces += more
        else:
            return None
    return pieces or None


def read(text: str) -> Program:
    """Parses a program's text (``compiled.as_text()``)."""
    computations: dict[str, list[Instruction]] = {}
    entry, own = "", None
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" ") and "->" in line:
            head = line.removeprefix("ENTRY ").lstrip("%")
            name = re.split(r"[\s(]", head, maxsplit=1)[0]
            own = computations.setdefault(name, [])
            if line.startswith("ENTRY"):
                entry = name
        elif own is not None:
            one = _instruction(line)
            if one is not None:
                own.append(one)
    return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    if found is None:
        return None
    # Comments such as /*index=5*/ hold an equals sign.
    rest = re.sub(r"/\*.*?\*/", "", found[3])
    kind_end = _closed(rest, 1) if rest.startswith("(") else rest.find(" ")
    parts = _OPCODE.match(rest, kind_end)
    if kind_end < 0 or parts is None:
        return None
    kind, opcode, after = rest[:kind_end], parts[1], parts[2]
    end = _closed(after) - 1
    called = [(role, name) for role, name in _CALLED.findall(after[end:])]
    branches = _BRANCHES.search(after[end:])
    if branches:
        called += [("branch", name.strip().lstrip("%")) for name in branches[1].split(",")]
    trips = _TRIPS.search(after)
    return Instruction(
        name=found[2],
        opcode=opcode,
        results=tuple(_arrays(kind)),
        operands=tuple(_OPERAND.findall(after[:end])),
        called=tuple(called),
        trips=int(trips[1]) if trips else 1,
        text=rest[:2000],
    )


def _closed(text: str, start: int = 0) -> int:
    """Where the parenthesis that is open before `start` has been closed."""
    depth = 1
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return index + 1
    return len(text)


def _arrays(text: str) -> Iterator[Array]:
    for dtype, sides, layout in _ARRAY.findall(text):
        if dtype in _BYTES:
            shape = tuple(int(side) for side in sides.split(",") if side)
            yield Array(dtype, shape, "S(1)" in layout)
