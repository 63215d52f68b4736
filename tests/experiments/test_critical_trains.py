import pytest
import xarray

from experiments.critical_trains import NAMES, SMOKE, judge, main


def made(critical, *, error=0.01):
    """GELU networks of which those with a usual gain reach 0.5."""
    accuracy = [0.5, 0.5, 0.5, 0.5, critical]
    dims = ("optimizer", "activation", "init")
    return xarray.Dataset(
        {"accuracy": (dims, [[accuracy]]), "error": (dims, [[[error] * 5]])},
        coords={"optimizer": ["momentum"], "activation": ["gelu"], "init": list(NAMES)},
    )


@pytest.mark.parametrize(
    ("critical", "verdict"), [(0.9, (True, True)), (0.6, (True, False)), (0.48, (True, False)), (0.46, (False, False))]
)
def test_two_standard_errors_decide_who_is_behind(critical, verdict):
    # the error of a difference is √2 × 0.01
    assert judge(made(critical)) == {"gelu": verdict}


@pytest.mark.slow
def test_the_experiment_runs(tmp_path, capsys):
    main(["--out", str(tmp_path)], default=SMOKE)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["critical_trains.nc", "critical_trains.png"]
    assert "The claim " in capsys.readouterr().out
