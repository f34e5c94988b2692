"""Modelfiles are read as Ollama reads them, and what is wrong with a stranger's is told with line, cause and cure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contract.base import load_base
from contract.contract import load_contract
from eval.parity.modelfile_lint import lint
from models.modelfile import load_modelfile, read_commands, read_modelfile, shown_parameters
from plumbing.errors import UserError
from quantize.modelfile import fields, render
from tests.conftest import ROOT


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
    assert shown_parameters('stop    "a\\n\\"b\\""\nstop    "\\x1b"\nstop    1\nseed    0') == {
        "stop": ('a\n"b"', "\x1b", "1"),
        "seed": (0.0,),
    }


def test_no_modelfile(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; `python -m quantize`"):
        load_modelfile(tmp_path / "Modelfile")


READ = (
    ('SYSTEM """one\ntwo"""', "one\ntwo"),
    ('SYSTEM "one\ntwo"', "one\ntwo"),  # as /api/show writes a text of several lines
    ('SYSTEM """say "x" and """ in the line, and on"""', 'say "x" and """ in the line, and on'),
    ('SYSTEM """one""" # no comment\nPARAMETER num_ctx 1\n"""', 'one""" # no comment\nPARAMETER num_ctx 1\n'),
    ("SYSTEM   spaced   ", "spaced"),
    ("  system\tindented", "indented"),
    ("SYSTEM 5\u00a0mg\u200b", "5mg"),
    ("SYSTEM a\u2028b", "ab"),
    ("# SYSTEM no", ""),
    ("SYSTEM one\nSYSTEM two", "two"),
    ("SYSTEM one\r\nFROM m.gguf\r\n", "one"),
    ('SYSTEM """"""', ""),
)


@pytest.mark.parametrize(("text", "value"), READ)
def test_reads_as_ollama_does(text: str, value: str) -> None:
    assert read_modelfile(text).system == value


def test_every_command_has_its_line() -> None:
    text = '# one\nFROM m.gguf\n\nTEMPLATE """a\nb"""\nPARAMETER stop "x y "\n'
    assert [(c.line, c.name, c.value) for c in read_commands(text)] == [
        (2, "from", "m.gguf"), (4, "template", "a\nb"), (6, "parameter", "stop x y "),
    ]  # fmt: skip


TEMPLATE = 'TEMPLATE """[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}[/INST] {{ .Response }}</s>"""'
CLEAN = f"""FROM ./model.gguf
{TEMPLATE}
SYSTEM You are brief.
PARAMETER stop "</s>"
PARAMETER temperature 0
PARAMETER num_ctx 4096
"""
BARE = "FROM ./model.gguf\n" + TEMPLATE + '\nPARAMETER stop "</s>"\nPARAMETER temperature 0\nPARAMETER num_ctx 4096\n'


def write(folder: Path, text: str) -> Path:
    (folder / "model.gguf").write_bytes(b"GGUF....")
    path = folder / "Modelfile"
    path.write_bytes(text.encode())
    return path


def with_line(line: str) -> str:
    return CLEAN + line + "\n"


# name -> (the file, its finding's line, cause, cure)
BAD: dict[str, tuple[str, int, str, str]] = {
    "no FROM": (CLEAN.replace("FROM ./model.gguf", "# nothing"), 0, "no FROM", "add FROM ./model.gguf"),
    "FROM a registry": (CLEAN.replace("./model.gguf", "llama3.2:1b"), 1, "a name of a registry", "FROM ./model.gguf"),
    "FROM nowhere": (CLEAN.replace("./model.gguf", "./other.gguf"), 1, "no file ./other.gguf there", "correct the path"),
    "FROM nowhere, no dot": (CLEAN.replace("./model.gguf", "b.gguf"), 1, "no file b.gguf there", "put the GGUF there"),
    "FROM empty": (CLEAN.replace("FROM ./model.gguf", "FROM "), 1, "FROM is empty", "write FROM"),
    "FROM no GGUF": (CLEAN.replace("./model.gguf", "./Modelfile"), 1, "./Modelfile is not a GGUF file", "export"),
    "FROM twice": (with_line("FROM ./model.gguf"), 7, "a second FROM", "keep one"),
    "no TEMPLATE": (CLEAN.replace(TEMPLATE, ""), 0, "no TEMPLATE", "write the base's own"),
    "empty TEMPLATE": (CLEAN.replace(TEMPLATE, 'TEMPLATE """"""'), 2, "no TEMPLATE", "write the base's own"),
    "literal BOS": (CLEAN.replace("[INST] ", "<s>[INST] "), 2, "literal <s>", "remove <s>"),
    "literal BOS of llama 3": (CLEAN.replace("[INST] ", "\n<|begin_of_text|>[INST] "), 3, "literal <|begin", "remove <|b"),
    "BOS between": (CLEAN.replace('</s>"""', '</s><s>"""'), 2, "literal <s>", "remove <s>"),
    "dead SYSTEM": (
        CLEAN.replace("{{ if .System }}{{ .System }} {{ end }}", ""), 3, "SYSTEM is dead", "put {{ .System }} into",
    ),
    "no user": (CLEAN.replace("{{ .Prompt }}", ""), 2, "neither .Prompt nor .Messages", "put {{ .Prompt }}"),
    "jinja": (CLEAN.replace("{{ .Prompt }}", "{% for m in messages %}{{ .Prompt }}{% endfor %}"), 2, "is jinja", "write {{"),
    "[INST] left open": (CLEAN.replace("[/INST]", "[INST]"), 2, "[INST] 2 time(s) and [/INST] 0 time(s)", "close each"),
    "if without end": (CLEAN.replace("{{ end }}", ""), 2, "opens 1 block(s) and ends 0", "end each if"),
    "open braces": (CLEAN.replace("{{ .Prompt }}", "{{ .Prompt "), 2, "5 {{ and 4 }}", "end each"),
    "escape in TEMPLATE": (CLEAN.replace("{{ end }}", "\\n{{ end }}"), 2, "TEMPLATE holds \\n: a Modelfile knows no", "write"),
    "escape in a stop": (with_line('PARAMETER stop "\\n"'), 7, "PARAMETER holds \\n", "write the character"),
    "no stop": (CLEAN.replace('PARAMETER stop "</s>"', ""), 0, "no stop", 'add PARAMETER stop "</s>"'),
    "empty stop": (with_line('PARAMETER stop ""'), 7, "the stop is empty", "write PARAMETER stop"),
    "another's stop": (
        CLEAN.replace('stop "</s>"', 'stop "<|im_end|>"'), 4, "no stop is the template's end marker </s>", "add PARAMETER",
    ),
    "a stop from nowhere": (
        CLEAN.replace(TEMPLATE, "TEMPLATE Q: {{ .System }} {{ .Prompt }} A:"), 4, "'</s>' does not occur in", "write the base",
    ),
    "no num_ctx": (CLEAN.replace("PARAMETER num_ctx 4096", ""), 0, "no num_ctx", "add PARAMETER num_ctx 4096"),
    "tiny num_ctx": (CLEAN.replace("4096", "128"), 6, "num_ctx 128 is tiny", "write 4096"),
    "num_predict fills it": (with_line("PARAMETER num_predict 4096"), 6, "no room beside num_predict 4096", "raise num_ctx"),
    "no temperature": (CLEAN.replace("PARAMETER temperature 0\n", ""), 0, "no temperature", "add PARAMETER temperature"),
    "unknown parameter": (with_line("PARAMETER top-p 0.9"), 7, "unknown parameter 'top-p'", "did you mean top_p?"),
    "capital letter": (with_line("PARAMETER Seed 1"), 7, "unknown parameter 'Seed'", "did you mean seed?"),
    "nothing like it": (with_line("PARAMETER zzz 1"), 7, "unknown parameter 'zzz'", "remove the line"),
    "word for a number": (with_line("PARAMETER top_p high"), 7, "top_p is 'high', expected a number", "alone"),
    "fraction for a whole": (with_line("PARAMETER seed 1.5"), 7, "seed is '1.5', expected a whole number", "alone"),
    "yes for true": (with_line("PARAMETER use_mmap yes"), 7, "use_mmap is 'yes', expected true or false", "alone"),
    "comment behind": (with_line("PARAMETER seed 1 # one"), 7, "seed is '1 # one'", "put the comment on a line of its own"),
    "twice": (with_line("PARAMETER num_ctx 2048"), 7, "num_ctx is in line 6 too", "keep one"),
    "typical_p": (with_line("PARAMETER typical_p 1"), 7, "typical_p is no longer supported", "remove the line"),
    "mirostat": (with_line("PARAMETER mirostat 1"), 7, "mirostat was removed: Ollama ignores it", "remove the line"),
    "ADAPTER": (with_line("ADAPTER ./lora"), 7, "Ollama no longer loads LoRA adapters", "python -m quantize"),
    "unknown command": (with_line("PARAMETR seed 1"), 7, "'parametr' is not a command", "did you mean PARAMETER?"),
    "lines without quotes": (
        BARE + "SYSTEM one\nBe brief.\nBe kind.\n", 7, "'be' is not a command (and 1 further lines)", "triple quotes",
    ),
    "role of a MESSAGE": (with_line("MESSAGE bot hi"), 7, "MESSAGE has the role 'bot'", "write system, user or assistant"),
    "two SYSTEMs": (with_line("SYSTEM later"), 3, "a later SYSTEM replaces this one", "keep one"),
    "quote left open": (BARE + 'SYSTEM """one\ntwo\n', 6, "opens a quote that no line's end closes", 'with """'),
    "triple quote inside": (BARE + 'SYSTEM """one """ two"""\n', 6, 'SYSTEM holds """ inside', 'keep one """'),
    "text behind the quote": (BARE + 'SYSTEM """one""" # no\n"""\n', 6, 'SYSTEM holds """ inside', 'keep one """'),
    "single quotes over lines": (BARE + 'SYSTEM "one\ntwo"\n', 6, "several lines in single quotes", 'write """'),
    "other quotes": (BARE + "SYSTEM 'one'\n", 6, "SYSTEM is in quotes that Ollama does not know", 'use "'),
    "curly quotes": (with_line("PARAMETER stop “x”"), 7, "PARAMETER is in quotes that Ollama does not know", 'use "'),
    "no-break space": (BARE + 'SYSTEM """one\n5\u00a0mg"""\n', 7, "U+00A0 (no-break space) 1 time(s)", "a plain character"),
    "joiner": (BARE + "SYSTEM \U0001f469\u200d⚕\n", 6, "U+200D (zero-width joiner) 1 time(s)", "register by the API"),
    "wide space": (BARE + "SYSTEM a\u3000b\u3000c\n", 6, "U+3000 (ideographic space) 2 time(s)", "a plain character"),
    "carriage returns": (BARE + 'SYSTEM """one\r\ntwo"""\n', 6, "holds carriage returns", "LF line ends"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "cause", "cure"), BAD.values(), ids=BAD)
def test_a_fault_is_told_with_line_cause_and_cure(tmp_path: Path, text: str, line: int, cause: str, cure: str) -> None:
    findings = lint(write(tmp_path, text))
    assert [f.line for f in findings if cause in f.cause and cure in f.cure] == [line], findings
    assert len(findings) == 1, findings
    assert "\n" not in str(findings[0])


@pytest.mark.parametrize("base", ["tiny", "mistral_7b_instruct_v0_3"])
def test_what_quantize_renders_is_clean(tmp_path: Path, base: str) -> None:
    values = fields(load_contract("terminology"), load_base(base))
    assert lint(write(tmp_path, render(values, "model.gguf"))) == []


CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
GOOD = {
    "plain": CLEAN,
    "without SYSTEM": BARE,
    "byte order mark": "\ufeff" + CLEAN,
    "lower case, CRLF between": CLEAN.lower().replace("[inst]", "[INST]").replace("[/inst]", "[/INST]")
    .replace(".system", ".System").replace(".prompt", ".Prompt").replace("\n", "\r\n"),
    "ChatML": BARE.replace(TEMPLATE, f'TEMPLATE """{CHATML}"""').replace("</s>", "<|im_end|>"),
    "more stops": CLEAN + 'PARAMETER stop "[INST]"\nPARAMETER stop "<|im_end|>"\n',
    "other commands": CLEAN + 'LICENSE """MIT\n\nas is"""\nMESSAGE user Hi\nMESSAGE assistant "Hello."\nREQUIRES 0.14.0\n',
    "numbers": CLEAN + "PARAMETER top_p .9\nPARAMETER seed -1\nPARAMETER min_p 1e-3\nPARAMETER use_mmap true\n",
    "Go's own escape": CLEAN.replace("{{ .Prompt }}", '{{ .Prompt }}{{ "\\n" }}'),
    "built-in renderer": CLEAN.replace(TEMPLATE, "RENDERER qwen3"),
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_a_good_file_is_clean(tmp_path: Path, text: str) -> None:
    assert lint(write(tmp_path, text)) == []


def run_lint(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eval.parity", "--modelfile", str(path), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"OLLAMA_HOST": "127.0.0.1:1"})


def test_the_command_needs_no_server_and_its_exit_says_what_was_found(tmp_path: Path) -> None:
    path = write(tmp_path, CLEAN)
    done = run_lint(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: nothing found\n", "")
    write(tmp_path, CLEAN.replace("[INST] ", "<s>[INST] ").replace("PARAMETER temperature 0\n", ""))
    done = run_lint(path)
    first, second = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (2, "")
    assert first.startswith(f"{path}: line 2: TEMPLATE holds a literal <s>: ") and first.endswith("; remove <s>")
    assert second.startswith(f"{path}: no temperature: ")
    assert [finding["line"] for finding in json.loads(run_lint(path, "--json").stdout)] == [2, 0]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "no such file; name a Modelfile"),
        (b"\xff\x00\x01", "not UTF-8 text; name a Modelfile"),
        (b"GGUF\x03\x00\x00\x00\x80\x81", "not UTF-8 text but a GGUF"),
        (b"GGUF\x03\x00\x00\x00", "holds NUL bytes, so it is not text but a GGUF"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, data: bytes | None, told: str) -> None:
    path = tmp_path / "Modelfile"
    if data is not None:
        path.write_bytes(data)
    done = run_lint(path)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith(f"error: {path}: {told}")
    assert run_lint(tmp_path).stderr == f"error: {tmp_path}: is a folder; name the Modelfile in it\n"
