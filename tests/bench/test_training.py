import dataclasses
import resource

import numpy as np
import pytest
import torch
from torch import nn

from bench import checkpoint
from bench.data.clips import ClipSet
from bench.presets import get_preset
from bench.skeleton import get_layout
from bench.training import TrainingDivergedError, _guessing, class_weights, learning_rate, predict, train_classifier

QUICK = get_preset("quick").attack
CONFIG = dataclasses.replace(QUICK, frames=4, epochs=12, least_steps=0, batch=8, lr=0.05, warmup=1, patience=0, rotate=0.0)


def make_clips(n=60, seed=0):
    """Clips of 6 frames of noise; the label is the sign of the mean height of the head."""
    generator = torch.Generator().manual_seed(seed)
    layout = get_layout("kinect-v1")
    rows = torch.randn((n * 6, 3, 20), generator=generator)
    labels = torch.arange(n) % 2
    rows[:, 1, 3] += (labels.repeat_interleave(6) * 2 - 1).float()
    index = torch.arange(n)
    names = np.array([str(i) for i in range(n)], dtype=object)
    return ClipSet(rows, index * 6, index * 0 + 6, index * 0 + 1, names, layout, 1, 30.0), labels


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(60, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, clips):
        return self.linear(clips.mean(dim=2).flatten(1))


class Deeper(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(60, 3), nn.Linear(3, 2))

    def forward(self, clips):
        return self.layers(clips.mean(dim=2).flatten(1))


def fit(config=CONFIG, seed=0, labels=None, model=None):
    clips, truth = make_clips()
    model = model or Linear()
    history = train_classifier(
        model, clips, truth if labels is None else labels, np.arange(40), np.arange(40, 50), config, seed=seed
    )
    return model, history, clips, truth


def test_learns_what_can_be_learnt_and_nothing_else():
    model, history, clips, truth = fit()
    accuracy = (predict(model, clips, np.arange(50, 60), CONFIG).argmax(1) == truth[50:]).float().mean()
    assert accuracy == 1
    assert history.train_loss[-1] < history.train_loss[0]
    shuffled = truth[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    _, history, _, _ = fit(labels=shuffled)
    assert max(history.validation_accuracy) < 0.9


def test_same_seed_same_weights_and_global_state_is_left_alone():
    models = [Linear() for _ in range(3)]
    before = torch.random.get_rng_state()
    one, two, other = (fit(seed=s, model=m)[0].linear.weight for s, m in zip((1, 1, 2), models, strict=True))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_keeps_the_epoch_with_the_lowest_validation_loss():
    model, history, clips, truth = fit(dataclasses.replace(CONFIG, lr=2.0))
    assert history.best_epoch == int(np.argmin(history.validation_loss))
    logits = predict(model, clips, np.arange(40, 50), CONFIG)
    assert float(nn.functional.cross_entropy(logits, truth[40:50])) == pytest.approx(min(history.validation_loss), abs=1e-6)
    assert not model.training


def test_validation_that_asks_for_something_else_neither_chooses_nor_ends():
    """Labels of validation clips are turned round: the better a network, the larger their loss, and the first epoch would win."""
    labels = make_clips()[1].clone()
    labels[40:50] = 1 - labels[40:50]
    model, history, clips, truth = fit(labels=labels)
    assert int(np.argmin(history.validation_loss)) == 0
    assert history.best_epoch == len(history.train_loss) - 1 == CONFIG.epochs - 1
    accuracy = (predict(model, clips, np.arange(50, 60), CONFIG).argmax(1) == truth[50:]).float().mean()
    assert accuracy == 1


def test_where_nothing_can_be_learnt_training_ends():
    """Clips without any difference: neither loss gets better."""
    clips, labels = make_clips()
    clips = clips.with_rows(torch.ones_like(clips.rows))
    history = train_classifier(
        Linear(), clips, labels, np.arange(40), np.arange(40, 50), dataclasses.replace(CONFIG, epochs=100, patience=3), seed=0
    )
    assert len(history.train_loss) < 20


def test_stops_early_when_validation_no_longer_improves():
    random = torch.randint(0, 2, (60,), generator=torch.Generator().manual_seed(3))
    _, history, _, _ = fit(dataclasses.replace(CONFIG, epochs=100, patience=3, lr=1.0), labels=random)
    assert len(history.train_loss) < 30


def test_schedules_by_hand():
    step = dataclasses.replace(CONFIG, schedule="step", steps=(60, 80, 100), warmup=0, epochs=140, lr=0.1)
    assert [round(learning_rate(step, e), 8) for e in (0, 59.9, 60, 80, 139)] == [0.1, 0.1, 0.01, 0.001, 0.0001]
    cosine = dataclasses.replace(CONFIG, warmup=2, epochs=12, lr=0.4)
    assert learning_rate(cosine, 1) == pytest.approx(0.2, rel=0.01)
    assert learning_rate(cosine, 2) == pytest.approx(0.4)
    assert learning_rate(cosine, 7) == pytest.approx(0.2)
    assert learning_rate(cosine, 12) == pytest.approx(0)


def test_class_weights_are_inverse_frequencies_with_mean_one_over_clips():
    labels = torch.tensor([0, 0, 0, 1])
    weights = class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([4 / 6, 2, 0])
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_predictions_do_not_depend_on_the_batch():
    model, _, clips, _ = fit()
    every = np.arange(60)
    assert torch.allclose(predict(model, clips, every, CONFIG, batch=1), predict(model, clips, every, CONFIG), atol=1e-6)


def test_a_diverging_training_says_so():
    with pytest.raises(TrainingDivergedError, match="the training loss became nan in epoch"):
        fit(dataclasses.replace(CONFIG, lr=1e38, clip_norm=0.0, warmup=0, epochs=5))


@pytest.mark.parametrize(
    ("change", "epochs"),
    [
        ({}, 12),  # 60 clips, 48 of which train: 6 steps an epoch
        ({"least_steps": 72}, 12),
        ({"least_steps": 73}, 24),
        ({"least_steps": 200}, 36),
        ({"least_steps": 200, "most_steps": 100}, 16),  # the limit goes before
    ],
)
def test_small_data_sets_get_more_epochs(change, epochs):
    clips, labels = make_clips()
    config = dataclasses.replace(CONFIG, **change)
    history = train_classifier(Linear(), clips, labels, np.arange(48), np.arange(48, 60), config, seed=0)
    assert len(history.train_loss) == epochs


def test_patience_grows_with_the_epochs():
    clips, labels = make_clips()
    config = dataclasses.replace(CONFIG, patience=2, lr=1e-9)  # nothing gets better
    short, long = (
        train_classifier(Linear(), clips, labels, np.arange(48), np.arange(48, 60), c, seed=0)
        for c in (config, dataclasses.replace(config, least_steps=144))
    )
    assert len(short.train_loss) == 3
    assert len(long.train_loss) == 5


@pytest.mark.parametrize("sizes", [(20, 20), (200, 8), (5, 5, 5, 5, 60)])
def test_a_guess_hardly_ever_exceeds_what_counts_as_guessing(sizes):
    """The mean recall of random answers stays below the limit in 99 % of 4,000 trials, and the limit is not far above that."""
    truth = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    answers = torch.randint(len(sizes), (4000, len(truth)), generator=torch.Generator().manual_seed(0))
    right = (answers == truth).double()
    recall = torch.stack([right[:, truth == k].mean(dim=1) for k in range(len(sizes))]).mean(dim=0)
    assert (recall < _guessing(truth)).double().mean() > 0.99
    assert _guessing(truth) < recall.quantile(0.995) * 1.15


class Dropping(nn.Module):
    """Draws from torch's global generator, and keeps running statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(60), nn.Linear(60, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))

    def forward(self, clips):
        return self.layers(clips.mean(dim=2).flatten(1))


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch, optimiser):
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    config = dataclasses.replace(CONFIG, optimiser=optimiser, lr=0.01, rotate=20.0)
    clips, truth = make_clips()

    def run(file=None, stop=None):
        def progress(done, total, note):
            epochs.append(done)
            if done == stop:
                raise KeyboardInterrupt

        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = Dropping()
            how = {"seed": 3, "progress": progress, "checkpoint": file}
            history = train_classifier(model, clips, truth, np.arange(40), np.arange(40, 50), config, **how)
        return model.state_dict(), history

    epochs = []
    weights, history = run()
    file = tmp_path / "training.checkpoint"
    for stop in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            run(file, stop)
    epochs.clear()
    again, resumed = run(file)
    assert epochs == list(range(7, 13))  # six whole epochs were kept; the seventh was cut off before it was saved
    assert resumed == history
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    file.write_bytes(file.read_bytes()[:100])
    epochs.clear()
    again, _ = run(file)
    assert epochs[0] == 1  # a damaged one is not taken
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_a_checkpoint_of_another_training_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    clips, truth = make_clips()

    def run(seed, config=CONFIG):
        told = []
        how = {"seed": seed, "progress": lambda done, total, note: told.append(done), "checkpoint": tmp_path / "c"}
        train_classifier(Linear(), clips, truth, np.arange(40), np.arange(40, 50), config, **how)
        return told

    assert run(0)[0] == 1
    assert run(0) == []  # nothing is left to do
    assert run(1)[0] == 1
    assert run(1, dataclasses.replace(CONFIG, lr=0.04))[0] == 1
    monkeypatch.setattr("tests.bench.test_training.Linear", Deeper)
    assert run(1, dataclasses.replace(CONFIG, lr=0.04))[0] == 1  # of another network neither


def test_a_checkpoint_that_cannot_be_written_ends_no_training_and_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    clips, truth = make_clips()

    def run(file):
        notes = []
        model = Linear()
        how = {"seed": 0, "progress": lambda done, total, note: notes.append(note), "checkpoint": file}
        history = train_classifier(model, clips, truth, np.arange(40), np.arange(40, 50), CONFIG, **how)
        return history, notes

    history, notes = run(tmp_path / "kept")
    assert (tmp_path / "kept").exists()
    assert not any("checkpoint" in note for note in notes)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # as on a full disk
    try:
        same, notes = run(tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same == history
    assert [note.endswith(", its checkpoint could not be written") for note in notes] == [False] + 11 * [True]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_training_that_diverges_leaves_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    clips, truth = make_clips()
    there = []

    def loss(logits, labels):
        there.append((tmp_path / "c").exists())
        return nn.functional.cross_entropy(logits, labels) * (float("nan") if len(there) > 30 else 1.0)

    with pytest.raises(TrainingDivergedError):
        how = {"seed": 0, "loss": loss, "checkpoint": tmp_path / "c"}
        train_classifier(Linear(), clips, truth, np.arange(40), np.arange(40, 50), CONFIG, **how)
    assert there[-1]
    assert not list(tmp_path.iterdir())


class Crowded(Linear):
    """Runs out of memory with more than three clips."""

    def forward(self, clips):
        if self.training and len(clips) > 3:
            raise torch.OutOfMemoryError("too many")
        return super().forward(clips)


@pytest.mark.parametrize("balanced", [False, True])
def test_too_little_memory_is_met_with_smaller_pieces_of_the_same_batches(balanced):
    config = dataclasses.replace(CONFIG, balanced=balanced)
    whole, undisturbed, _, _ = fit(config)
    pieces, history, _, _ = fit(config, model=Crowded())
    assert (undisturbed.micro_batch, history.micro_batch) == (0, 2)
    assert "micro_batch" not in undisturbed.describe()
    assert history.describe()["micro_batch"] == 2
    assert history.train_loss == pytest.approx(undisturbed.train_loss, rel=1e-4)
    assert torch.allclose(whole.linear.weight, pieces.linear.weight, atol=1e-5)


def test_memory_for_no_clip_at_all_is_told():
    class Full(Linear):
        def forward(self, clips):
            raise torch.OutOfMemoryError("none left")

    with pytest.raises(torch.OutOfMemoryError, match="none left"):
        fit(model=Full())
