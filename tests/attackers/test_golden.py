"""Published networks against outputs of their authors' own modules (fixture `golden`; skipped without them)."""

import numpy as np
import pytest
import torch

from attackers.backbones import create

NETWORKS = {"2s-agcn": "agcn", "ms-g3d": "msg3d"}


@pytest.fixture(scope="module", params=NETWORKS, ids=str)
def reference(request, golden):
    """(name, state dict, arrays) of one network."""
    with np.load(golden / f"{NETWORKS[request.param]}.npz") as arrays:
        state = {key.removeprefix("state/"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith("state/")}
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    with np.load(golden / f"{NETWORKS[request.param]}.ref.npz") as arrays:
        return request.param, state, {key: arrays[key] for key in arrays if not key.startswith("state/")}


def loaded(name, state, dtype=torch.float32):
    model = create(name, layout="ntu", num_classes=60, num_bodies=2)
    model.load_reference_state(state)
    return model.to(dtype)


def forget_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_logits_in_float32(reference, mode):
    name, state, arrays = reference
    model = getattr(loaded(name, state), mode)()
    forget_dropout(model)
    with torch.no_grad():
        logits = model(torch.from_numpy(arrays["x"])).numpy()
    expected = arrays[f"y_{mode}_f64"]
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_gradients_in_float64(reference, mode):
    name, state, arrays = reference
    model = getattr(loaded(name, state, torch.float64), mode)()
    forget_dropout(model)
    clips = torch.from_numpy(arrays["x"]).double().requires_grad_()
    logits = model(clips)
    logits.sum().backward()
    expected = arrays[f"y_{mode}_f64"]
    assert np.abs(logits.detach().numpy() - expected).max() < 1e-9 * np.abs(expected).max()
    slope = arrays[f"dx_{mode}_f64"]
    assert np.abs(clips.grad.numpy() - slope).max() < 1e-9 * np.abs(slope).max()
    # Norms of the gradient of each of the authors' parameters, read from where each of them lies in ours.
    expected = dict(zip(arrays["gradnorm_keys"].tolist(), arrays[f"gradnorm_{mode}_f64"], strict=True))
    largest = max(expected.values())
    gradients = gradients_by_reference_key(model)
    for key, norm in expected.items():
        assert float(gradients[key].norm()) == pytest.approx(norm, rel=1e-9, abs=1e-9 * largest), key


def gradients_by_reference_key(model):
    """Puts every parameter's gradient in its place and reads the parameters as a published state dict would be written."""
    for parameter in model.parameters():
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    found = model.reference_tensors().items()
    return {key: reference.target.detach() for key, reference in found if reference.target is not None}


def test_running_statistics_after_one_pass_in_train_mode(reference):
    name, state, arrays = reference
    model = loaded(name, state, torch.float64).train()
    with torch.no_grad():
        model(torch.from_numpy(arrays["x"]).double())
    found = model.reference_tensors()
    for key, norm in zip(arrays["bn_after_train_keys"].tolist(), arrays["bn_after_train_norm"], strict=True):
        assert float(found[key].target.norm()) == pytest.approx(norm, rel=1e-6), key


def test_states_of_other_shapes_are_refused(reference):
    name, state, _ = reference
    with pytest.raises(ValueError, match=r"fc.weight has shape \(60, .*\), expected \(40, "):
        create(name, layout="ntu", num_classes=40, num_bodies=2).load_reference_state(state)
    with pytest.raises(ValueError, match=r"1 missing \(fc.bias\)"):
        loaded(name, {key: value for key, value in state.items() if key != "fc.bias"})


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        *(("2s-agcn", classes, count) for classes, count in ((60, 3_469_510), (40, 3_464_370), (2, 3_454_604))),
        *(("ms-g3d", classes, count) for classes, count in ((60, 3_194_595), (40, 3_186_895), (2, 3_172_265))),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, count):
    model = create(name, layout="ntu", num_classes=classes, num_bodies=2)
    assert sum(p.numel() for p in model.parameters()) == count
    one_body = create(name, layout="ntu", num_classes=classes, num_bodies=1)
    assert sum(p.numel() for p in one_body.parameters()) == count - 150
