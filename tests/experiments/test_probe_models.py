import pytest

from experiments.probe_models import SMOKE, main


@pytest.mark.slow
def test_the_experiment_runs(tmp_path, capsys):
    main(["--out", str(tmp_path)], default=SMOKE)
    assert [file.name for file in tmp_path.iterdir()] == ["probe.png"]
    assert "Looking every 10 steps at 5 sites adds" in capsys.readouterr().out
