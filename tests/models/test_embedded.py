import json
import shutil
from pathlib import Path

import pytest

from eval.parity.__main__ import training_tokenizer
from models.answers import Request
from models.embedded import open_gguf, read_served
from models.ollama_chat import open_ollama
from models.ollama_server import Server
from plumbing.errors import UserError
from plumbing.handover import sha256
from quantize.register import register
from tests.conftest import make_small_adapter, make_small_base
from tests.eval.parity.test_parity import make_model

GGUF = "model.q4_k_m.gguf"
ASKED = {
    "one turn": ({"role": "user", "content": "Explain the medical term: Hypertension"},),
    "own system text": ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is uremia?"}),
    "awkward text": ({"role": "user", "content": " double  spaces, 🫀 and [INST] \n"},),
    "system text emptied": ({"role": "system", "content": ""}, {"role": "user", "content": "What is uremia?"}),
    "two turns": tuple({"role": r, "content": t} for r, t in [("user", "One?"), ("assistant", "1"), ("user", "Two?")]),
}


def request(name: str, tokens: int = 8, **options: float) -> Request:
    return Request(name, ASKED[name], {"num_predict": tokens} | options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says something: with tied embeddings random weights only repeat the last token."""
    place = tmp_path_factory.mktemp("embedded")
    base = make_small_base(place / "base", tie_word_embeddings=False, initializer_range=0.2)
    return make_model(make_small_adapter(base, place / "adapter"), place / "model")


def test_prompt_is_the_trained_one_with_one_bos(folder: Path) -> None:
    served = read_served(folder)
    encode = training_tokenizer(folder.parent / "base", served.base)
    with open_gguf(folder / GGUF) as backend:
        answers = {name: backend.ask(request(name)) for name in ASKED}
    expected = {name: len(encode(served.prompt(messages))) + 1 for name, messages in ASKED.items()}
    assert {name: answer.prompt_tokens for name, answer in answers.items()} == expected
    assert all(answer.error_kind == "" and answer.done_reason in ("stop", "length") for answer in answers.values())


def test_prompt_begins_with_the_served_system_unless_the_conversation_brings_one(folder: Path) -> None:
    served = read_served(folder)
    assert served.prompt(ASKED["one turn"]).startswith("[INST] You explain medical terms")
    assert served.prompt(ASKED["own system text"]) == "[INST] Be brief.\n\nWhat is uremia?[/INST]"


@pytest.mark.parametrize(
    "penalty",
    [{}, {"repeat_penalty": 1.08}, {"repeat_penalty": 5.0}, {"frequency_penalty": 0.0}, {"frequency_penalty": 20.0}],
)
def test_answers_as_ollama_does(ollama: str, folder: Path, penalty: dict[str, float]) -> None:
    """A penalty counts the prompt's words too."""
    register(folder, "embedded", Server(ollama))
    with open_gguf(folder / GGUF) as here, open_ollama(Server(ollama), "embedded") as there:
        for name in ASKED:
            mine, theirs = (of.ask(request(name, **penalty)) for of in (here, there))
            assert theirs.error == ""
            assert (mine.text, mine.done_reason) == (theirs.text, theirs.done_reason) and len(mine.text) > 5
            assert (mine.prompt_tokens, mine.answer_tokens) == (theirs.prompt_tokens, theirs.answer_tokens)
        assert here.pins()["weights"] == there.pins()["weights"] == sha256(folder / GGUF)
        assert there.pins()["num_ctx"] == here.pins()["num_ctx"] == 1024


def test_same_question_same_answer(folder: Path) -> None:
    with open_gguf(folder / GGUF) as backend:
        texts = [backend.ask(request(name, 32)).text for name in ("one turn", "two turns", "one turn", "one turn")]
    assert texts[0] == texts[2] == texts[3] != texts[1]


def test_length_is_told_and_a_prompt_too_long_is_an_error(folder: Path) -> None:
    with open_gguf(folder / GGUF) as backend:
        assert backend.ask(request("one turn", 3)).answer_tokens == 3
        assert backend.ask(request("one turn", 3)).done_reason == "length"
        long = backend.ask(Request("long", ({"role": "user", "content": "kidney " * 2000},)))
    assert long.error_kind == "server" and "the context 1024" in long.error


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def sign(folder: Path) -> None:
    """Make the manifest agree with a damaged file, as whoever edits by hand might."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["outputs"][GGUF] = sha256(folder / GGUF)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("signed", [False, True], ids=["as found", "signed"])
@pytest.mark.parametrize("share", [0.0, 0.00001, 0.001, 0.02, 0.5, 0.999])
def test_a_truncated_gguf_is_one_line(
    folder: Path, tmp_path: Path, share: float, signed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = shutil.copytree(folder, tmp_path / "model")
    cut(damaged / GGUF, share)
    if signed:
        sign(damaged)
    with pytest.raises(UserError, match="python -m quantize") as caught, open_gguf(damaged / GGUF):
        pass
    assert GGUF in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "llama.cpp keeps its own talk to itself"


def test_one_flipped_byte_is_found(folder: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(folder, tmp_path / "model")
    data = bytearray((damaged / GGUF).read_bytes())
    data[-1000] ^= 1
    (damaged / GGUF).write_bytes(data)
    with pytest.raises(UserError, match="cut short or changed"), open_gguf(damaged / GGUF):
        pass


@pytest.mark.parametrize("name", [GGUF, "manifest.json", "base.toml", "task.toml", "Modelfile"])
def test_a_missing_file_is_one_line(folder: Path, tmp_path: Path, name: str) -> None:
    torn = shutil.copytree(folder, tmp_path / "model")
    (torn / name).unlink()
    with pytest.raises(UserError, match="no "), open_gguf(torn / GGUF):
        pass


def test_llama_cpp_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_gguf(folder / GGUF) as backend:
        backend.ask(request("one turn"))
    assert capfd.readouterr() == ("", "")


def test_draws_are_repeatable_and_follow_the_seed(folder: Path) -> None:
    def drawn(seed: int) -> str:
        asked = Request("a", ASKED["one turn"], {"num_predict": 16, "temperature": 1.5, "seed": seed})
        return backend.ask(asked).text

    with open_gguf(folder / GGUF) as backend:
        texts = [drawn(0), drawn(1), drawn(0), drawn(1)]
    assert texts[:2] == texts[2:] and texts[0] != texts[1]


def test_settings_stand_before_the_folders_own(folder: Path) -> None:
    with open_gguf(folder / GGUF, {"num_predict": 3, "num_ctx": 512}) as backend:
        answer = backend.ask(Request("a", ASKED["one turn"]))
        assert (answer.answer_tokens, backend.pins()["num_ctx"], backend.options["num_ctx"]) == (3, 512, 512)
    with open_gguf(folder / GGUF) as backend:
        own = {name: backend.options[name] for name in ("num_ctx", "num_predict", "stop", "frequency_penalty")}
    assert own == {"num_ctx": 1024, "num_predict": 512, "stop": ["</s>"], "frequency_penalty": 0.5}


def test_an_identity_is_of_weights_and_prompt(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "model")
    task = (other / "task.toml").read_text()
    (other / "task.toml").write_text(task.replace("first-year health students", "children"))
    with open_gguf(folder / GGUF) as one, open_gguf(other / GGUF) as two, open_gguf(folder / GGUF) as same:
        assert one.identity == same.identity != two.identity and sha256(folder / GGUF) in one.identity
