"""Training in a folder: it goes on where it was stopped, with the bits of one that never was."""

import numpy as np
import pytest

from jaxgain.runs import job as job_module
from jaxgain.training import train as train_module
from jaxgain.training.config import TrainConfig
from jaxgain.training.train import train

SETTINGS = dict(inits=(0.5, 1, 2), depths=2, widths=8, steps=4, measure_every=2, batch=8, seeds=4)


def test_training_goes_on_where_it_was_stopped_with_the_same_bits(tmp_path, monkeypatch, stopping_after):
    monkeypatch.setattr(job_module, "SECONDS_OF_PART", 0.0)
    monkeypatch.setattr(train_module, "SIDE_BY_SIDE", 2)
    config = TrainConfig(**SETTINGS)
    whole = train(config)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=stopping_after(1), folder=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["train.parts"]
    damaged = sorted((tmp_path / "train.parts").glob("*.part"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said, seen = [], []
    found = train(config, folder=tmp_path, report=said.append, progress=lambda *what: seen.append(what))
    assert f"{damaged} is damaged" in said[0] and "of the training is in" in said[1]
    assert len(seen) == 3 and seen[-1][:2] == (12, 12)
    for name in whole.data_vars:
        assert found[name].values.tobytes() == whole[name].values.tobytes(), name
    assert [file.name for file in tmp_path.iterdir()] == ["train.nc"]

    said.clear()
    again = train(config, folder=tmp_path, report=said.append)
    assert "is a complete training of these settings" in said[0]
    np.testing.assert_array_equal(again["loss"], whole["loss"])
    with pytest.raises(ValueError, match=r"train\.nc is a training of other settings \(seeds: 4 → 5\); choose another"):
        train(TrainConfig(**SETTINGS | {"seeds": 5}), folder=tmp_path)
