"""Plans for hardware that is not there: what compiled programs are read for, and the asking."""

import dataclasses
import importlib.util
import io
import json

import jax
import jax.numpy as jnp
import pytest
from tiny_families import write
from typer.testing import CliRunner

from syncos_jax.cli.app import app
from syncos_jax.cli.hardware import lines
from syncos_jax.errors import InputError
from syncos_jax.pipeline import hardware
from syncos_jax.pipeline.flops import flops
from syncos_jax.pipeline.hardware import (
    Compiled,
    Memory,
    Report,
    compile_in_subprocess,
    compile_worker,
    parse,
    roofline,
)
from syncos_jax.pipeline.hardware.abstract import abstract_model
from syncos_jax.pipeline.hardware.compile import Job, fitting
from syncos_jax.pipeline.hardware.program import read
from syncos_jax.pipeline.hardware.report import from_dict
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.placement import Placement
from syncos_jax.scenario import Scenario

SCENARIO = Scenario.from_dict(
    {"global": "a ball", "events": [{"prompt": "it rolls", "frames": 24}]}
)
HLO = """HloModule jit_f, entry_computation_layout={()->()}

%fused (a: bf16[8,16]) -> f32[8,16] {
  %a = bf16[8,16]{1,0} parameter(0)
  %big = f32[8,16]{1,0} convert(%a)
  ROOT %dot.1 = f32[8,16]{1,0} dot(%big, %big), lhs_contracting_dims={1}
}

%body (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]{1,0}) parameter(0)
  %x = f32[8,16]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %t = f32[16,8]{1,0:T(8,128)} transpose(%x), dimensions={1,0}
  ROOT %r = (s32[], f32[8,16]{1,0}) tuple(%x, %t)
}

%cond (p: (s32[], f32[8,16])) -> pred[] {
  %p = (s32[], f32[8,16]{1,0}) parameter(0)
  ROOT %c = pred[] constant(true)
}

ENTRY %main (arg: bf16[8,16]) -> f32[8,16] {
  %arg = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="x(y)"}
  %copy-start = (bf16[8,16]{1,0:T(8,128)(2,1)S(1)}, bf16[8,16]{1,0}, u32[]{:S(2)}) copy-start(%arg)
  %copy-done = bf16[8,16]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %f = f32[8,16]{1,0} fusion(%copy-done), kind=kLoop, calls=%fused
  %init = (s32[], /*index=1*/f32[8,16]{1,0}) tuple(%f, %f)
  %w = (s32[], f32[8,16]{1,0}) while(%init), condition=%cond, body=%body, TRIPS
  %v = (f32[8,16]{1,0}, s8[33554432]{0}) custom-call(%f), custom_call_target="__cublas$gemm"
  %g = f32[32,16]{1,0} all-gather(%f), dimensions={0}
  ROOT %out = f32[8,16]{1,0} get-tuple-element(%w), index=1
}
""".replace("TRIPS", 'backend_config={"known_trip_count":{"n":"10"}}')


CUT = """HloModule jit_f

%fused (a: bf16[8,16], b: f32[8,16]) -> f32[1,16] {
  %a = bf16[8,16]{1,0} parameter(0)
  %b = f32[8,16]{1,0} parameter(1)
  %wide = f32[8,16]{1,0} convert(%a)
  %row = f32[1,16]{1,0} slice(%wide), slice={[0:1], [0:16]}
  %other = f32[1,16]{1,0} slice(%b), slice={[0:1], [0:16]}
  %sum = f32[16]{0} reduce(%b), dimensions={0}
  ROOT %out = f32[1,16]{1,0} add(%row, %other)
}

ENTRY %main (a: bf16[8,16], b: f32[8,16]) -> f32[1,16] {
  %a = bf16[8,16]{1,0} parameter(0)
  %b = f32[8,16]{1,0} parameter(1)
  ROOT %f = f32[1,16]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused
}
"""


def test_what_is_only_cut_from_is_not_read_whole():
    """A row of the first, all of the second, which is summed too, and a row is written."""
    assert read(CUT).bytes == 2 * 16 + 4 * 8 * 16 + 4 * 16


def test_whatever_a_compiler_raises_is_one_line(monkeypatch, capsys):
    def report(*_, **__):
        raise NotImplementedError("a kernel\ncannot be divided")

    question = {"target": "v5e:8", "model": "videocrafter2", "scenario": SCENARIO.to_dict()}
    question |= {"sampler": None, "dtype": "bfloat16", "weights_over": 1, "decode": True}
    monkeypatch.setattr(compile_worker, "parse", lambda target: target)
    monkeypatch.setattr(compile_worker, "report", report)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(question)))
    compile_worker.main()
    said = capsys.readouterr().out
    assert "v5e:8: NotImplementedError: a kernel cannot be divided" in said


def test_a_program_is_read():
    program = read(HLO)
    array = 8 * 16
    # The copy reads from memory into the fast one; the fusion reads from there and writes; ten
    # transposes read and write; so does the product, which has room to work in; the exchange reads
    # a share and writes four.
    expected = (2 + 4 + 10 * 8 + 8 + 4 + 4 * 4) * array
    assert program.bytes == expected
    assert program.collectives() == {"all-gather": (1, 4 * 4 * array)}
    assert program.moved() == {"transpose": (1, 4 * array), "copy": (1, 2 * array)}
    products = ["dot f32[8, 16] x f32[8, 16]", "custom-call f32[8, 16]"]
    assert program.products("f32") == products
    assert program.products("f32", least=1000) == program.products("bf16") == []
    assert {a.shape for a in program.scores(16, 8, array)} == {(8, 16), (16, 8)}
    assert program.scores(16, 8, array + 1) == program.scores(8, 8, array) == []


def test_a_program_of_this_machine_is_read():
    """XLA's own count of what operations read and write, where it has one."""

    def f(x, w):
        return jnp.tanh(x @ w) + jnp.float32(1.0)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((256, 512), (512, 128))]
    compiled = jax.jit(f).lower(*shapes).compile()
    found = read(compiled.as_text()).bytes
    assert found == pytest.approx(compiled.cost_analysis()["bytes accessed"], rel=0.35)


def test_flops_are_counted():
    def f(x, w, kernel):
        y = jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=3)[0]
        layout = ("NHWC", "HWIO", "NHWC")
        images = y.reshape(1, 8, 8, 16)
        z = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)
        z = jax.lax.cond(z.sum() > 0, lambda: z.reshape(64, -1) @ w[:5], lambda: x)
        return jax.lax.platform_dependent(z, cpu=lambda z: z, default=lambda z: z @ w)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 16), (16, 16), (3, 3, 16, 5))]
    products = 3 * 64 * 16 * 16 + 64 * 16 * 9 * 5 + 64 * 5 * 16 + 64 * 16 * 16
    assert flops(f, *shapes) == 2 * products


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tpu:8", "unknown hardware 'tpu:8', expected one of v5e, v6e, v5p, h100"),
        ("v5e:3", "v5e:3: unknown number of chips, expected one of 1, 2, 4, 8"),
        ("h100:", "expected one of 1, 2, 4, 8"),
    ],
)
def test_hardware_that_is_unknown(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


def test_hardware_is_named():
    assert str(parse("v5e")) == "v5e:1"
    assert parse("v5e:8").title == "8 × TPU v5e"


def test_a_model_without_weights_has_the_shapes_of_one_with():
    real, abstract = load_model("demo", jnp.float32), abstract_model("demo", jnp.float32)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), dict(real.weights))
    assert (
        jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), dict(abstract.weights)) == shapes
    )
    encoded = jax.eval_shape(lambda: real.encode_prompts(["a", "b", "c"]))
    assert abstract.conditioning_shapes(3) == encoded


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("videocrafter2", 1_413_284_420, (2, 77, 1024)),
        ("cogvideox-2b", 1_693_783_872, (2, 226, 4096)),
        ("wan2.1-1.3b", 1_418_996_800, (2, 512, 4096)),
    ],
)
def test_published_models_need_no_files(name, parameters, text):
    model = abstract_model(name, jnp.bfloat16)
    assert sum(leaf.size for leaf in jax.tree.leaves(model.params)) == parameters
    assert model.conditioning_shapes(2)["text"].shape == text


def program(windows, total, *, fits=True, **more):
    return Compiled("run", 2 * windows, windows, 100, Memory(total, 0, 0, 0), fits, **more)


class FakeJob:
    """As `compile.Job`, of programs that need 1 GiB and one more for each window."""

    def __init__(self, memory):
        target = parse("v5e:1")
        chip = dataclasses.replace(target.chip, memory=memory)
        self.target = dataclasses.replace(target, chip=chip)
        self.placement = type("P", (), {"num_clip_shards": 1})()
        self.asked = []

    def prepare(self, scenario, sampler):
        return sampler.windows_per_call

    def run(self, request):
        windows = request if isinstance(request, int) else 13
        self.asked.append(windows)
        total = (1 + windows) * 2**30
        return program(windows, total, fits=total <= 0.95 * self.target.chip.memory)


class FakeRequest:
    def __init__(self, windows_per_call=None):
        self.sampler = self
        self.windows_per_call = windows_per_call

    def replace(self, windows_per_call):
        return FakeRequest(windows_per_call)


@pytest.mark.parametrize(
    ("gib", "windows", "asked"), [(64, 13, [13]), (8, 6, [13, 1, 6, 7]), (1, 1, [13, 1])]
)
def test_as_many_windows_as_fit(gib, windows, asked):
    job = FakeJob(gib * 2**30)
    best, tried = fitting(job, SCENARIO, FakeRequest())
    assert (best.windows, best.fits) == (windows, gib > 1)
    assert job.asked[:3] == asked[:3]
    assert set(tried) == set(job.asked)


def test_a_number_of_windows_that_is_given_stays():
    job = FakeJob(2**30)
    best, tried = fitting(job, SCENARIO, FakeRequest(windows_per_call=13))
    assert (best.fits, tried) == (False, {13: False})


@pytest.mark.parametrize("family", ["ltx", "cogvideox"])
def test_the_other_networks_lie_on_the_devices_too(family, tmp_path):
    model = abstract_model(str(write(tmp_path / "model", family)), jnp.bfloat16)
    job = Job(model, Placement(make_mesh(1)), parse("h100:1"), print)
    sizes = {
        name: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for name, tree in model.weights.items()
    }
    assert {"transformer", "vae", "text_encoder"} <= set(sizes)
    assert job._others() == sum(sizes.values()) - sizes["transformer"]


def test_the_roofline_is_the_longest_of_three():
    one = program(4, 2**30, flops=197e12, bytes=2 * 819e9, exchanged={"all-gather": (1, 10**11)})
    line = roofline(one, parse("v5e:8"))
    assert (line.arithmetic, line.memory, line.exchange) == (1.0, 2.0, 1.0)
    assert (line.bound, line.seconds) == ("memory", 2.0)
    assert roofline(one, parse("v5e:1")).exchange == 0.0


def test_a_report_is_written_and_read():
    run = program(4, 2**30, flops=1e12, bytes=1e9, copies={"copy": (2, 5)}, wide=("dot",))
    report = Report("v5e:8", "demo", "bfloat16", 1, run, None, {"4": True})
    again = from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert report.seconds == pytest.approx(100 * max(1e12 / 197e12, 1e9 / 819e9))
    said = "\n".join(lines(report))
    assert "fits   with 4 windows per call (tried: 4 fit)" in said
    assert "100 network calls, roofline lower bound" in said


def test_the_commands_say_what_was_found(tmp_path, monkeypatch):
    file = tmp_path / "story.yaml"
    file.write_text("global: a ball\nevents: [{prompt: it rolls, frames: 24}]\n")
    asked = []

    def answer(target, model, scenario, **options):
        asked.append((target, model, scenario.total_frames(8), options))
        fits = target == "v5e:8"
        run = program(4, 2**30, fits=fits, flops=1e12, bytes=1e9)
        advice = "" if fits else "divide the weights (`weights_over`)"
        return Report(target, model, "bfloat16", 2, run, run, {"4": fits}, advice)

    monkeypatch.setattr(hardware, "compile_in_subprocess", answer)
    more = ["--model", "cogvideox-2b", "--weights-over", "2", "--on"]
    result = CliRunner().invoke(app, ["plan", str(file), *more, "v5e:8"])
    assert result.exit_code == 0 and "8 × TPU v5e" in result.stdout
    result = CliRunner().invoke(app, ["plan", str(file), *more, "v5e:8", "--json"])
    assert json.loads(result.stdout)["run"]["roofline"]["bound"] == "arithmetic"
    assert CliRunner().invoke(app, ["compile", str(file), *more, "v5e:8"]).exit_code == 0
    result = CliRunner().invoke(app, ["compile", str(file), *more, "v5e:1"])
    assert result.exit_code == 1 and "does not fit" in result.stdout
    assert asked[0] == ("v5e:8", "cogvideox-2b", 24, {"weights_over": 2})


def missing(plugin):
    return importlib.util.find_spec(plugin) is None


@pytest.mark.skipif(not missing("libtpu"), reason="the TPU's compiler is installed here")
def test_a_compiler_that_is_missing_is_named():
    with pytest.raises(InputError, match=r"TPU v5e is not installed.*syncos-jax\[tpu-compiler\]"):
        compile_in_subprocess("v5e:8", "demo", SCENARIO, dtype="float32")


def test_options_that_do_not_go_together(tmp_path):
    file = tmp_path / "story.yaml"
    file.write_text("global: a ball\nevents: [{prompt: it rolls, frames: 24}]\n")
    result = CliRunner().invoke(app, ["plan", str(file), "--weights-over", "2"])
    assert result.exit_code == 2 and "--weights-over needs --on" in result.stderr
    result = CliRunner().invoke(app, ["plan", str(file), "--on", "abacus:1"])
    assert result.exit_code == 2 and "unknown hardware 'abacus:1'" in result.stderr


needs_tpu = pytest.mark.skipif(
    missing("libtpu"), reason='no compiler for TPUs: pip install "syncos-jax[tpu-compiler]"'
)
needs_cuda = pytest.mark.skipif(
    missing("jax_cuda12_plugin"), reason='no compiler for GPUs: pip install "syncos-jax[cuda]"'
)


@pytest.mark.parametrize(
    "target", [pytest.param("v5e:8", marks=needs_tpu), pytest.param("h100:1", marks=needs_cuda)]
)
def test_the_demo_is_compiled_for_it(target):
    report = compile_in_subprocess(target, "demo", SCENARIO, decode=False)
    run = report.run
    assert run.fits and report.run.memory.total < 2**30
    assert run.flops > 0 and run.bytes > 0 and run.counted > 0
    assert set(run.exchanged) == ({"all-gather"} if target == "v5e:8" else set())
    assert run.wide == ()
