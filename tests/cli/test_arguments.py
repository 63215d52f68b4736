import pytest

from jaxgain.cli.arguments import refusing


def test_bad_input_found_by_jaxgain_is_one_line_and_code_2(capsys):
    from jaxgain.runs.files import load_dataset

    with pytest.raises(SystemExit) as stop, refusing():
        load_dataset("no/such/file.nc")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "jaxgain: cannot read the dataset no/such/file.nc: there is no such file\n"


def test_an_error_of_the_program_itself_is_not_hidden():
    with pytest.raises(ValueError, match="invalid literal"), refusing():
        int("x")
    with pytest.raises(KeyError), refusing():
        _ = {}["x"]
