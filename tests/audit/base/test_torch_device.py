"""The torch path gives the intervals of the CPU: run by torch on any machine, on CUDA if any."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import DTypeLike

from factories_matrices import MATRICES, Array, gaussian, trained_like, true_norm, with_spectrum
from factories_weights import measured
from gradience.audit.base.devices import Cpu, DeviceChoice, has_gpu
from gradience.audit.base.spectral_norm import BLOCK, Goal, NormInterval, spectral_norm
from gradience.errors import UnmeasurableError, UsageError

torch = pytest.importorskip("torch")

from gradience.audit.base.torch_device import TorchDevice, cuda, host  # noqa: E402

ROUNDING = 1e-12


@pytest.fixture(params=["torch on the CPU", "CUDA"])
def device(request: pytest.FixtureRequest) -> TorchDevice:
    if request.param == "CUDA":
        if not torch.cuda.is_available():
            pytest.skip("torch finds no CUDA device here")
        return cuda("cuda", Cpu())
    return host()


def assert_agrees(found: NormInterval, W: Array, width: float = 1e-3) -> None:
    truth, here = true_norm(W), spectral_norm(W)
    assert found.lower <= truth * (1 + ROUNDING)
    assert truth <= found.upper * (1 + ROUNDING)
    assert found.lower <= here.upper
    assert here.lower <= found.upper
    assert found.frobenius == pytest.approx(here.frobenius, rel=1e-12)
    assert found.width <= width


@pytest.mark.parametrize("dtype", [np.float64, ml_dtypes.bfloat16])
def test_every_matrix_that_was_ever_trouble_has_its_norm_inside(
    device: TorchDevice, dtype: DTypeLike
) -> None:
    arrays = {name: make().astype(dtype) for name, make in MATRICES.items()}
    for name, found in measured(device, arrays).items():
        assert_agrees(found, arrays[name])


def test_a_batch_gives_each_matrix_the_interval_it_has_alone(device: TorchDevice) -> None:
    kinds: dict[str, Array] = {
        "gaussian": gaussian(300, 200),
        "scaled": 1e-9 * gaussian(300, 200, 1),
        "trained-like": trained_like(300, 200),
        "cluster": with_spectrum(np.r_[np.full(64, 3.0), np.linspace(2, 0.1, 100)], 300, 200),
        "rank three": with_spectrum(np.array([2.5, 2.4, 0.1]), 300, 200),
        "zero": np.zeros((300, 200)),
    }
    arrays = {name: W.astype(ml_dtypes.bfloat16) for name, W in kinds.items()}
    together = measured(device, arrays)
    for name, W in arrays.items():
        alone = measured(device, {name: W})[name]
        assert together[name].lower == pytest.approx(alone.lower, rel=1e-6)
        assert together[name].upper == pytest.approx(alone.upper, rel=1e-5)
        assert_agrees(together[name], W)


def test_a_batch_that_does_not_fit_is_done_in_parts() -> None:
    arrays = {f"w{k}": gaussian(100, 90, k).astype(np.float32) for k in range(5)}
    small = TorchDevice(name="cpu", batch_bytes=2 * 4 * 100 * 90)
    at_once, in_parts = measured(host(), arrays), measured(small, arrays)
    for name in arrays:
        assert in_parts[name].upper == pytest.approx(at_once[name].upper, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_short_types_are_measured_as_they_are_stored(device: TorchDevice, dtype: DTypeLike) -> None:
    W = (10 * trained_like(300, 200)).astype(dtype)
    assert_agrees(measured(device, {"w": W})["w"], W)


def test_a_narrower_goal_is_reached_in_float64(device: TorchDevice) -> None:
    W = trained_like(300, 200).astype(np.float32)
    found = measured(device, {"w": W}, Goal(width=1e-8))["w"]
    assert_agrees(found, W, width=1e-8)


def test_what_is_not_finite_is_refused_by_name_and_spoils_no_other(device: TorchDevice) -> None:
    good = gaussian(200, 150).astype(ml_dtypes.bfloat16)
    bad, worse = good.copy(), good.copy()
    bad[7, 3], worse[199, 149] = np.nan, np.inf
    found = measured(device, {"bad": bad, "good": good, "worse": worse})
    assert isinstance(found["bad"], UnmeasurableError)
    assert "1 NaN" in str(found["bad"])
    assert "1 Inf" in str(found["worse"])
    assert_agrees(found["good"], good)


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: gaussian(90, 80, seed),
        lambda seed: with_spectrum(np.r_[1.02, np.full(69, 1.0)], 90, 80, seed),
    ],
    ids=["gaussian", "one above a plateau"],
)
def test_the_upper_bound_fails_no_more_often_than_eta(draw: Callable[[int], Array]) -> None:
    # One start serves a whole batch: the spread comes from the matrices, drawn anew each time.
    trials, eta = 200, 0.05
    arrays = {str(seed): draw(seed).astype(np.float32) for seed in range(trials)}
    found = measured(host(), arrays, Goal(eta=eta, width=0.05))
    failures = sum(found[name].upper < true_norm(W) for name, W in arrays.items())
    assert failures <= 0.06 * trials


def by_newer_switch(backend: Any) -> Callable[[str], None]:
    return lambda precision: setattr(backend, "fp32_precision", precision)


MATMUL = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
EVERYWHERE, ON_CUDA, ON_CPU = map(by_newer_switch, [torch.backends, *MATMUL])


@pytest.fixture(
    params=[
        (torch.set_float32_matmul_precision, "high", "highest"),
        (EVERYWHERE, "tf32", "none"),
        (ON_CUDA, "tf32", "none"),
        (ON_CPU, "tf32", "none"),
    ],
    ids=["older switch", "everywhere", "on CUDA", "on the CPU"],
)
def with_tf32(request: pytest.FixtureRequest) -> Iterator[None]:
    switch, on, off = request.param
    switch(on)
    yield
    for one, value in ((switch, off), (ON_CUDA, "none"), (ON_CPU, "none")):
        one(value)


def precisions() -> list[str]:
    """How matrices of float32 are multiplied, on each backend."""
    return [backend.fp32_precision for backend in MATMUL]


@pytest.mark.usefixtures("with_tf32")
def test_the_users_choice_of_precision_is_not_used_and_not_lost(device: TorchDevice) -> None:
    W = trained_like(300, 200).astype(np.float32)
    before = precisions()
    assert "tf32" in before
    assert_agrees(measured(device, {"w": W})["w"], W)
    assert precisions() == before


def test_on_a_device_that_shares_no_memory_all_is_as_on_the_host() -> None:
    """What each process of a GPU has to keep to, where there is none: see `factories_far`."""
    script = Path(__file__).with_name("far_norms.py")
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = json.loads(done.stdout)
    for name, run in runs.items():
        assert not run["left_over"], name
        if name == "no room":
            continue
        assert run["stayed"], name
        assert run["apart"] == [], name
    # Weights go over once; of a pass come back the coefficients of a step.
    roomy, tight = runs["roomy"], runs["tight"]
    assert roomy["over"] < 1.01 * roomy["nbytes"]
    assert roomy["back"] < 1.1 * roomy["passes"] * 3 * BLOCK**2 * 8
    # A batch that does not fit leaves nothing behind that its halves would need.
    assert tight["stayed"] == roomy["stayed"]
    assert tight["most"] < roomy["most"] / 2
    assert runs["no room"]["stayed"] == []


def test_work_too_small_for_a_gpu_stays_on_the_cpu() -> None:
    start = time.process_time()
    assert DeviceChoice(name="auto", threads=2).device(1000) == Cpu(threads=2)
    assert time.process_time() - start < 0.1


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.device_count() < 8:
        with pytest.raises(UsageError, match=r"cuda:7: torch .* finds"):
            DeviceChoice(name="cuda:7").device(1)


def test_without_a_driver_auto_does_not_import_torch(tmp_path: Path) -> None:
    assert not has_gpu(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert has_gpu(tmp_path)
    if has_gpu():
        pytest.skip("this machine has a GPU driver, so torch is asked")
    script = """
import sys
from gradience.audit.base.devices import DeviceChoice
print(DeviceChoice(name="auto").device(1 << 40).name, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "cpu False\n"


def test_without_torch_auto_is_the_cpu_and_cuda_names_the_extra() -> None:
    script = """
import sys
sys.modules["torch"] = None  # as where it is not installed: importing it fails
from gradience.audit.base.devices import Cpu, DeviceChoice, has_gpu
from gradience.errors import MissingExtraError
assert DeviceChoice(name="auto", threads=2).device(1 << 40) == Cpu(threads=2)
try:
    DeviceChoice(name="cuda").device(1)
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "--device cuda needs torch, and it is not installed\n"
