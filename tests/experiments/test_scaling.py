import pytest

from experiments.scaling import SMOKE, main, words_of
from jaxgain.cli.arguments import parse
from jaxgain.cli.sweep import Sweep


def test_the_command_that_is_measured_is_a_sweep_of_those_sizes(tmp_path):
    sweep = parse(Sweep, words_of(SMOKE, 7, str(tmp_path))[1:], command="sweep", about="")
    assert (sweep.seeds, sweep.width, sweep.depth, sweep.inputs) == (7, 10, 2, 1)
    assert sweep.out == tmp_path


@pytest.mark.slow
def test_a_tiny_run_prints_its_tables(capsys):
    main([], default=SMOKE)
    printed = capsys.readouterr().out
    assert printed.count("30 networks of width 10 and depth 2: ") == 2 and "of the computing, beside it" in printed
    assert printed.count("| 1 | ") == 2
