from pathlib import Path

import pytest

from contract.base import load_base
from contract.contract import load_contract
from contract.errors import UserError
from eval.modelfile import load_modelfile, read_modelfile, shown_parameters
from quantize.modelfile import fields, render


@pytest.mark.parametrize("base", ["tiny", "mistral_7b_instruct_v0_3"])
def test_reads_what_quantize_renders(base: str) -> None:
    values = fields(load_contract("terminology"), load_base(base))
    found = read_modelfile(render(values, "model.gguf"))
    assert (found.template, found.system) == (values["template"], values["system"])
    sent = {k: tuple(v) if isinstance(v, list) else (float(v),) for k, v in values["parameters"].items()}
    assert found.parameters == sent


def test_a_stranger_writes_otherwise() -> None:
    text = (
        '# comment\nfrom ./m.gguf\nparameter stop </s>\nPARAMETER   stop "[INST]"\nPARAMETER temperature 0.70\n'
        'SYSTEM """two\nPARAMETER num_ctx 9\nlines"""\nTEMPLATE "{{ .Prompt }}"\n'
    )
    found = read_modelfile(text)
    assert found.parameters == {"stop": ("</s>", "[INST]"), "temperature": (0.7,)}
    assert (found.template, found.system) == ("{{ .Prompt }}", "two\nPARAMETER num_ctx 9\nlines")


def test_nothing_set_is_empty() -> None:
    assert read_modelfile("FROM m.gguf\n").parameters == {} == shown_parameters("")


def test_shown_values_keep_their_escapes() -> None:
    assert shown_parameters('stop    "a\\n\\"b\\""\nstop    "[INST] "\nseed    0') == {
        "stop": ('a\n"b"', "[INST] "),
        "seed": (0.0,),
    }


def test_no_modelfile(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; `python -m quantize`"):
        load_modelfile(tmp_path / "Modelfile")
