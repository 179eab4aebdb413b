"""A fit goes on where it stopped, with the same result to the last bit, however it was stopped."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from trainer.checks import check_can_be_written
from trainer.data.faces import FacePatches
from trainer.data.prepare import EvaluationFaces, PreparedData
from trainer.detection.fit import DetectorEpoch
from trainer.fitting import progress
from trainer.fitting.average import EVERY_STEPS, MovingAverage
from trainer.fitting.checkpoint import CHECKPOINT_NAME, Checkpoint, RunOrigin
from trainer.fitting.fit import fit
from trainer.fitting.progress import INTERVAL_S, Progress, ReportProgress
from trainer.fitting.repeatable import make_repeatable
from trainer.fitting.run_folder import LOCK_NAME, locked_folder, remove_leftovers
from trainer.networks.architectures import build_network
from trainer.networks.export import QUANTIZATION_PICTURES, fold_temperature, quantization_batches, quantization_crops
from trainer.reports.calibrate import at_temperature
from trainer.reports.findings import Epoch
from trainer.settings import RECIPES

SIDE = 32
RECIPE = msgspec.structs.replace(RECIPES["lite"], size_px=SIDE, epochs=3, batch=16, learning_rate=0.02)
EPOCH = Epoch(epoch=1, loss=0.5, accuracy=0.8, validation_loss=0.6, validation_accuracy=0.7)
ORIGIN = RunOrigin(arch="lite", recipe=RECIPE, seed=7, data="0123")


class Cancelled(Exception):
    """The listener wants no more."""


def toy_prepared() -> PreparedData:
    """Return faces whose lower half is dark when they wear a mask: 40 to train on, 12 to report on."""
    rng = np.random.default_rng(0)

    def pictures(faces: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        has_mask = np.arange(faces) % 3 == 0
        pixels = rng.integers(100, 156, (faces, side, side, 3), np.uint8)
        pixels[:, side // 2 :] //= np.where(has_mask, 3, 1).astype(np.uint8)[:, None, None, None]
        return pixels, has_mask

    def faces(number: int) -> EvaluationFaces:
        crops, has_mask = pictures(number, SIDE)
        sides = np.full(number, 40, np.float32)
        names = tuple(str(place) for place in range(number))
        return EvaluationFaces(crops=crops, has_mask=has_mask, side_px=sides, sources=("toy",) * number, names=names)

    pixels, has_mask = pictures(40, 45)
    training = FacePatches(
        pixels=pixels,
        squares=np.tile(np.array([[4, 4, 36]], np.float32), (40, 1)),
        tight=np.arange(40) % 2 == 0,
        has_mask=has_mask,
        side_px=np.full(40, 40, np.float32),
        sources=("toy",) * 30 + ("street",) * 10,
    )
    return PreparedData(
        training=training,
        calibration=faces(4),
        validation=faces(12),
        tests={},
        counts={},
        digests={},
        manifest=(),
        left_out=(),
    )


def small_network() -> keras.Model:
    """Return a network with what has a state of its own: batch normalisation and dropout."""
    crops = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(crops)
    x = keras.layers.Conv2D(8, 5, strides=4, use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8)(x))
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(crops, keras.layers.Dense(1, activation="sigmoid")(x))


def fit_toy(
    folder: Path, report: Callable[[Progress], None], threads: int | None = None
) -> tuple[keras.Model, tuple[Epoch, ...]]:
    """Fit a fresh network from the checkpoint in a folder on."""
    make_repeatable(ORIGIN.seed, threads)
    network = small_network()
    return network, fit(network, toy_prepared(), ORIGIN, Checkpoint(folder, Epoch), report)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture(scope="module")
def uninterrupted(finished: Path) -> tuple[keras.Model, tuple[Epoch, ...]]:
    return fit_toy(finished, lambda _: None)


def same_weights(one: keras.Model, other: keras.Model) -> bool:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def test_a_fit_learns_and_repeats_to_the_last_bit(
    uninterrupted: tuple[keras.Model, tuple[Epoch, ...]], tmp_path: Path
) -> None:
    network, epochs = uninterrupted

    again, same_epochs = fit_toy(tmp_path, lambda _: None)

    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert epochs[2].validation_loss < epochs[0].validation_loss
    assert same_epochs == epochs
    assert same_weights(network, again)


def test_a_fit_cancelled_within_an_epoch_continues_with_the_same_result(
    uninterrupted: tuple[keras.Model, tuple[Epoch, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    seen: list[Progress] = []

    def cancel(now: Progress) -> None:
        if (now.epoch, now.step) == (2, 2):
            raise Cancelled

    with pytest.raises(Cancelled):
        fit_toy(tmp_path, cancel)
    network, epochs = fit_toy(tmp_path, seen.append)

    assert {now.epoch for now in seen} == {2, 3}
    assert epochs == uninterrupted[1]
    assert same_weights(network, uninterrupted[0])


def test_a_fit_killed_within_an_epoch_continues_with_the_same_result(
    uninterrupted: tuple[keras.Model, tuple[Epoch, ...]], tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from trainer.fitting import progress; import test_fit as toy\n"
        "def wait(now):\n"
        "    if (now.epoch, now.step) == (3, 2): print('there', flush=True); sys.stdin.read()\n"
        "progress.INTERVAL_S = 0.0; toy.fit_toy(Path(sys.argv[1]), wait, int(sys.argv[2]) or None)"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    threads = tf.config.threading.get_intra_op_parallelism_threads()  # as another test may have set it in this process
    command = [sys.executable, "-c", script, str(tmp_path), str(threads)]
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"there\n"
        run.send_signal(signal.SIGKILL)
    (tmp_path / "checkpoint.part").write_bytes(b"as far as it came")

    network, epochs = fit_toy(tmp_path, lambda _: None)

    assert run.returncode == -signal.SIGKILL
    assert epochs == uninterrupted[1]
    assert same_weights(network, uninterrupted[0])


def test_a_finished_fit_gives_its_weights_without_training(
    uninterrupted: tuple[keras.Model, tuple[Epoch, ...]], finished: Path
) -> None:
    network, epochs = uninterrupted
    seen: list[Progress] = []

    again, same_epochs = fit_toy(finished, seen.append)

    assert seen == []
    assert same_epochs == epochs
    assert same_weights(network, again)


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    Checkpoint(tmp_path, Epoch).save([keras.Variable(np.zeros(3))], ORIGIN, ())
    recipe = msgspec.structs.replace(RECIPE, about="another network", epochs=5)
    other = RunOrigin(arch="lite", recipe=recipe, seed=8, data="4567")

    why = rf"seed 7, now 8; about {RECIPE.about}, now another network; epochs 3, now 5; other pictures"
    with pytest.raises(ValueError, match=rf"begun differently \({why}\)"):
        Checkpoint(tmp_path, Epoch).epochs_of(other)


def test_the_checkpoint_of_another_kind_of_run_is_not_called_damaged(tmp_path: Path) -> None:
    epoch = DetectorEpoch(epoch=1, loss=0.5, average_precision=0.8)
    Checkpoint(tmp_path, DetectorEpoch).save([keras.Variable(np.zeros(3))], ORIGIN, (epoch,))
    other = msgspec.structs.replace(ORIGIN, arch="yunet")

    with pytest.raises(ValueError, match=r"begun differently \(arch"):
        Checkpoint(tmp_path, Epoch).epochs_of(other)
    with pytest.raises(ValueError, match=r"checkpoint\.npz is damaged"):  # figures that no run of this kind has
        Checkpoint(tmp_path, Epoch).epochs_of(ORIGIN)
    assert Checkpoint(tmp_path, DetectorEpoch).epochs_of(ORIGIN) == (epoch,)


@pytest.mark.parametrize("kept", [0, 20, 600, -1])
def test_a_damaged_checkpoint_is_named(kept: int, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT_NAME
    Checkpoint(tmp_path, Epoch).save([keras.Variable(np.zeros(300))], ORIGIN, ())
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(ValueError, match=r"checkpoint\.npz is damaged .*: remove it to begin the run again"):
        Checkpoint(tmp_path, Epoch)


@pytest.mark.parametrize("record", [b'{"origin": {"arch": "\xff"}}', b'{"?": ' + b"[" * 100_000])
def test_a_checkpoint_whose_record_cannot_be_read_is_named(record: bytes, tmp_path: Path) -> None:
    np.savez(tmp_path / CHECKPOINT_NAME, record=np.frombuffer(record, np.uint8))

    with pytest.raises(ValueError, match=r"checkpoint\.npz is damaged .*: remove it to begin the run again"):
        Checkpoint(tmp_path, Epoch)


def test_a_flipped_bit_in_a_checkpoint_is_found(tmp_path: Path) -> None:
    variable = keras.Variable(np.zeros(30_000))
    path = tmp_path / CHECKPOINT_NAME
    Checkpoint(tmp_path, Epoch).save([variable], ORIGIN, ())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(ValueError, match="is damaged"):
        Checkpoint(tmp_path, Epoch).restore([variable])


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    variable = keras.Variable(np.zeros(3))
    checkpoint = Checkpoint(tmp_path, Epoch)
    checkpoint.save([variable], ORIGIN, (EPOCH,))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written \(File too large\): .* continues after epoch 1"):
            checkpoint.save([variable], ORIGIN, (EPOCH, EPOCH))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert Checkpoint(tmp_path, Epoch).epochs_of(ORIGIN) == (EPOCH,)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]


def test_a_checkpoint_of_another_network_is_rejected(tmp_path: Path) -> None:
    Checkpoint(tmp_path, Epoch).save([keras.Variable(np.zeros(3))], ORIGIN, ())

    with pytest.raises(ValueError, match="its variables are not those of the network"):
        Checkpoint(tmp_path, Epoch).restore([keras.Variable(np.zeros(4))])


def test_a_fit_without_a_finite_loss_says_what_to_change(tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(RECIPE, optimizer="adam", warmup_share=None, learning_rate=float("inf"))
    origin = msgspec.structs.replace(ORIGIN, recipe=recipe)

    with pytest.raises(ValueError, match=r"epoch 1 has no finite loss: lower the learning rate \(inf\)"):
        fit(small_network(), toy_prepared(), origin, Checkpoint(tmp_path, Epoch), lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_progress_comes_every_second_and_at_each_epochs_end() -> None:
    now_s = [0.0]
    told: list[Progress] = []
    reporting = ReportProgress(told.append, 2, steps=5, first_epoch=0, clock=lambda: now_s[0])
    figures = {"loss": 0.5, "accuracy": 0.75}

    for epoch in range(2):
        reporting.on_epoch_begin(epoch)
        for batch in range(5):
            now_s[0] += INTERVAL_S / 2
            reporting.on_train_batch_end(batch, figures)
        reporting.on_epoch_end(epoch, figures | {"val_loss": 0.6, "val_accuracy": 0.7})

    assert [(now.epoch, now.step, now.is_epoch_end) for now in told] == [
        (1, 3, False),
        (1, 5, False),
        (1, 5, True),
        (2, 2, False),
        (2, 4, False),
        (2, 5, True),
    ]
    assert told[0].text().startswith("epoch 1 of 2, step 3 of 5: loss 0.500, accuracy 75.0%, ")
    assert told[2].text().startswith("epoch 1 of 2: loss 0.500, accuracy 75.0%; on validation pictures loss 0.600, ")
    assert msgspec.json.decode(msgspec.json.encode(told[2]), type=Progress) == told[2]


def test_time_left_is_reported_by_the_steps_of_this_process() -> None:
    now_s = [0.0]
    told: list[Progress] = []
    reporting = ReportProgress(told.append, 4, steps=10, first_epoch=2, clock=lambda: now_s[0])

    reporting.on_epoch_begin(2)
    for batch, took_s in enumerate((30, 2, 2)):  # the first step includes what is done once
        now_s[0] += took_s
        reporting.on_train_batch_end(batch, {"loss": 0.5, "accuracy": 0.75})

    assert [now.seconds_left for now in told] == [2.0 * 18, 2.0 * 17]


def test_validation_that_takes_long_is_reported_too() -> None:
    now_s = [0.0]
    told: list[Progress] = []
    reporting = ReportProgress(told.append, 1, steps=2, first_epoch=0, clock=lambda: now_s[0])

    reporting.on_epoch_begin(0)
    for batch in range(2):
        reporting.on_train_batch_end(batch, {"loss": 0.5, "accuracy": 0.75})
    for batch in range(3):
        now_s[0] += INTERVAL_S
        reporting.on_test_batch_end(batch)

    assert [(now.step, now.is_epoch_end) for now in told] == [(2, False)] * 3


def test_the_average_is_what_is_evaluated() -> None:
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    average = MovingAverage(network, decay=0.5, steps_done=1000)
    weight = network.weights[0]

    for step in range(EVERY_STEPS + 1):
        weight.assign([[float(step)]])
        average.on_train_batch_end(step)
    average.on_test_begin()
    evaluated = float(weight[0, 0])
    average.on_test_end()

    taken_in = (1 - 0.5**EVERY_STEPS) * (EVERY_STEPS - 1)
    assert evaluated == 0.5 * taken_in + 0.5 * EVERY_STEPS
    assert float(weight[0, 0]) == EVERY_STEPS


def test_the_average_of_a_short_run_forgets_its_beginning() -> None:
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    average = MovingAverage(network, decay=0.999, steps_done=0)

    network.weights[0].assign([[1.0]])
    for step in range(8):
        average.on_train_batch_end(step)
    average.on_test_begin()

    assert float(network.weights[0][0, 0]) > 0.98


def test_a_folded_temperature_divides_the_logits() -> None:
    network = build_network("lite", SIDE)
    crops = toy_prepared().validation.crops
    before = np.asarray(network(crops, training=False))

    fold_temperature(network, 2.5)

    after = np.asarray(network(crops, training=False))
    np.testing.assert_allclose(after, at_temperature(before, 2.5), atol=1e-6)


@pytest.mark.parametrize(("side", "batch"), [(32, 32), (112, 32), (224, 8), (512, 1)])
def test_quantization_takes_no_more_memory_for_larger_crops(side: int, batch: int) -> None:
    crops = np.zeros((40, side, side, 3), np.uint8)

    sizes = [len(fed["crops"]) for fed in quantization_batches(crops)]

    assert max(sizes) == batch
    assert sum(sizes) == 40


def test_quantization_sees_each_data_set_and_label_as_often() -> None:
    patches = toy_prepared().training

    crops = quantization_crops(patches, RECIPE, seed=0)

    lower = crops[: QUANTIZATION_PICTURES // 2, SIDE // 2 + 2 :].mean(axis=(1, 2, 3))
    assert crops.shape == (QUANTIZATION_PICTURES, SIDE, SIDE, 3)
    assert np.mean(lower < 90) == pytest.approx(0.5, abs=0.06)  # a third of the faces wear a mask


def test_a_run_folder_belongs_to_one_process(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "run"):
        with (
            pytest.raises(
                ValueError, match=f"process {os.getpid()} is training in .*/run: .*another folder with --out"
            ),
            locked_folder(tmp_path / "run"),
        ):
            pass
        (tmp_path / "run" / "classifier.keras").touch()

    assert [path.name for path in (tmp_path / "run").iterdir()] == ["classifier.keras"]


def test_a_run_folder_without_a_run_is_left_as_it_was(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()

    for folder in (mine, tmp_path / "new"):
        check_can_be_written(folder)

    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list(mine.iterdir()) == []


def test_a_run_folder_is_free_when_its_process_was_killed(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from trainer.fitting.run_folder import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        process.kill()
    left = (tmp_path / LOCK_NAME).exists()

    with locked_folder(tmp_path):
        held = (tmp_path / LOCK_NAME).read_text()

    assert left
    assert held == str(os.getpid())


def test_what_a_killed_run_left_is_removed_but_its_checkpoint(tmp_path: Path) -> None:
    for name in (LOCK_NAME, "checkpoint.part", CHECKPOINT_NAME):
        (tmp_path / name).touch()

    with locked_folder(tmp_path / "other"):
        remove_leftovers(tmp_path / "other")
        held = (tmp_path / "other" / LOCK_NAME).exists()
    remove_leftovers(tmp_path)

    assert held
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]


def test_a_disk_that_is_full_may_have_room_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_lock: int, _text: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("models.file_lock.os.write", write)
    why = r"run cannot be written \(No space left on device\): choose .*, or try again later"

    with pytest.raises(OSError, match=why), locked_folder(tmp_path / "run"):
        pass
    with pytest.raises(ValueError, match=why):  # a user who is about to enqueue a job can do something about it
        check_can_be_written(tmp_path / "run")
    remove_leftovers(tmp_path / "run")  # a trainer goes on


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(ValueError, match=r"file/run cannot be written \(Not a directory\): choose another folder"),
        locked_folder(tmp_path / "file" / "run"),
    ):
        pass
