"""iterpo.toml: sparse, strict, paths relative to the file, and refusals that name the key, its place and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from iterpo.config import InferenceSettings, Settings, load, valid_keys
from iterpo.errors import InvalidConfig
from iterpo.policies.probe import LIMIT_TOKENS
from iterpo.tokens import read_tokens

TOKEN = "0123456789abcdef"


def write(directory: Path, text: str) -> Path:
    path = directory / "iterpo.toml"
    path.write_text(text)
    return path


def refusal(directory: Path, text: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(write(directory, text))
    assert caught.value.code == "INVALID_ARGUMENT"
    return str(caught.value)


def test_an_empty_file_gives_every_default(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ""))
    assert settings.inference.address == "127.0.0.1:50051"
    assert settings.labeling.metrics_address == "127.0.0.1:9102"
    assert settings.learner.address == "127.0.0.1:50053"
    assert settings.model.path is None
    assert settings.run.algorithm == "grpo"


def test_paths_are_relative_to_the_file_and_the_database_lives_in_data_dir(tmp_path: Path) -> None:
    settings = load(write(tmp_path, 'data_dir = "data"\n[model]\npath = "m"\n[run]\nprompts = "p.jsonl"\n'))
    assert settings.data_dir == tmp_path / "data"
    assert settings.labeling.store == str(tmp_path / "data/feedback.db")
    assert settings.model.path == tmp_path / "m"
    assert settings.run.prompts == str(tmp_path / "p.jsonl")


def test_a_database_of_ones_own_is_kept(tmp_path: Path) -> None:
    for key in ("store", "database"):
        assert load(write(tmp_path, f'[labeling]\n{key} = "/elsewhere/f.db"')).labeling.store == "/elsewhere/f.db"


def test_a_store_that_is_no_file_stays_as_it_is(tmp_path: Path) -> None:
    address = "postgresql://iterpo@db.example:5432/feedback"
    assert load(write(tmp_path, f'[labeling]\nstore = "{address}"')).labeling.store == address


def test_without_a_path_the_file_in_the_working_directory_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load().inference.max_num_seqs == 64
    write(tmp_path, "[inference]\nmax_num_seqs = 7")
    assert load().inference.max_num_seqs == 7
    assert load().data_dir == tmp_path / ".iterpo"


def test_an_unknown_key_names_its_place_and_the_nearest_key(tmp_path: Path) -> None:
    text = refusal(tmp_path, "[inference]\nmax_model_length = 3")
    assert "Unknown key `max_model_length` in [inference]." in text
    assert "Did you mean `max_model_len`?" in text


def test_an_unknown_section_names_the_nearest_one(tmp_path: Path) -> None:
    text = refusal(tmp_path, "[inferense]\nmax_model_len = 512")
    assert "Unknown key `inferense` in the top level. Did you mean `inference`?" in text


def test_what_the_command_line_says_holds_instead_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[labeling]\nworkers = 2\nlanguage = "en"\n')
    changes = ["labeling.workers=4", "labeling.language=de-CH", "inference.replicas.quorum=0.5", "data_dir=elsewhere"]
    settings = load(path, changes)
    assert (settings.labeling.workers, settings.labeling.language) == (4, "de-CH")
    assert settings.inference.replicas.quorum == 0.5
    assert settings.data_dir == tmp_path / "elsewhere", "relative to the file, as the file's own are"
    assert load(path).labeling.workers == 2


@pytest.mark.parametrize("change", ["labeling.workers", "=4", "labeling.workers.more=4", "labeling.workres=4"])
def test_a_change_that_cannot_be_is_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(InvalidConfig):
        load(write(tmp_path, "[labeling]\nworkers = 2\n"), [change])


def test_a_key_that_is_like_no_other_lists_the_valid_ones(tmp_path: Path) -> None:
    text = refusal(tmp_path, "[learner]\nzzz = 3")
    assert "Valid keys are: address, listen, metrics_address, threads, runs, ranks, kept_batches, sinks." in text


def test_unknown_keys_of_labelers_and_nested_sections_are_found(tmp_path: Path) -> None:
    assert "Did you mean `verifier`?" in refusal(tmp_path, '[labelers.mine]\nkind = "verifier"\nverifer = "x"')
    assert "in [run.lora]" in refusal(tmp_path, "[run.lora]\nrank = 3")
    assert valid_keys(["run", "lora"]) == ["r", "alpha"]


def test_every_mistake_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, '[inference]\ndtype = "int4"\naddress = "nowhere"\n[run]\nalgoritm = "grpo"')
    assert "`dtype`" in text
    assert "host:port" in text
    assert "Did you mean `algorithm`?" in text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[inference\n", "is not TOML"),
        ("[inference]\nmax_lora_rank = 17", "8, 16, 32"),
        ("[inference]\nkv_cache_gib = 0", "greater than or equal to 1"),
        ("[inference]\nkv_cache_gib = 1.5", "valid integer"),
        ("[inference]\nmax_model_len = 127", "greater than or equal to 128"),
        ('[inference]\naddress = "127.0.0.1:70000"', "host:port"),
        ('[auth]\ntls_key = "k.pem"', "belong together"),
        ("[learner]\nranks = 2\nruns = 2", "set ranks or runs, not both"),
        ("inference = 3", "`inference`"),
        ('[labelers.mine]\nverifier = "regex"', "`kind` is missing"),
    ],
)
def test_values_that_cannot_work_are_refused_with_the_reason(tmp_path: Path, text: str, word: str) -> None:
    assert word in refusal(tmp_path, text)


def test_a_missing_file_and_one_that_is_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load(tmp_path / "missing.toml")
    (tmp_path / "iterpo.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidConfig, match="UTF-8"):
        load(tmp_path / "iterpo.toml")


def test_settings_do_not_change_after_they_are_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().inference.address = "127.0.0.1:1"  # type: ignore[misc]


def test_tokens_are_read_from_their_own_file(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"# who may what\n{TOKEN}=ab== = admin\n\n\"{TOKEN}-2\" = 'client'\n")
    settings = load(write(tmp_path, '[auth]\ntokens_file = "tokens"'))
    assert {g.token: g.role for g in settings.grants()} == {f"{TOKEN}=ab==": "admin", f"{TOKEN}-2": "client"}


def test_a_caller_takes_the_token_of_its_role_or_else_the_strongest(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}1 = client\n{TOKEN}2 = learner\n")
    settings = load(write(tmp_path, '[auth]\ntokens_file = "tokens"'))
    assert settings.token("client") == f"{TOKEN}1"
    assert settings.token("admin") == f"{TOKEN}2"
    assert Settings().token("admin") is None


def test_who_speaks_for_a_person_takes_that_person_s_token_or_one_that_is_bound_to_nobody(tmp_path: Path) -> None:
    bound = f"{TOKEN}a = annotator:ann\n{TOKEN}b = annotator:bob\n"
    (tmp_path / "tokens").write_text(bound + f"{TOKEN}l = lead\n")
    settings = load(write(tmp_path, '[auth]\ntokens_file = "tokens"'))
    assert [settings.token("annotator", name)[-1] for name in ("ann", "bob", "cleo")] == ["a", "b", "l"]
    assert settings.token("lead", "ann")[-1] == "l"
    (tmp_path / "tokens").write_text(f"{TOKEN}c = lead:carol\n{TOKEN}d = client\n")
    assert settings.token("lead")[-1] == "c", "who speaks for nobody may use anybody's"
    assert settings.token("lead", "dora")[-1] == "c", "and the server's refusal says what is wrong"
    (tmp_path / "tokens").write_text(bound + f"{TOKEN}c = annotator\n")
    assert [settings.token("annotator", name)[-1] for name in ("ann", "cleo")] == ["a", "c"]


@pytest.mark.parametrize("line", ["short = admin", f"{TOKEN} = emperor", TOKEN, ""])
def test_a_tokens_file_that_cannot_work_is_refused_without_showing_a_token(tmp_path: Path, line: str) -> None:
    (tmp_path / "tokens").write_text(line)
    with pytest.raises(InvalidConfig) as caught:
        read_tokens(tmp_path / "tokens")
    assert TOKEN not in str(caught.value)


def test_the_shortest_context_holds_the_proof_of_delivery() -> None:
    shortest = InferenceSettings(max_model_len=128).max_model_len
    assert shortest > LIMIT_TOKENS + 1  # a scored sequence leaves room for the one token that the engine must draw


def test_a_collectors_endpoint_is_a_url_and_is_said_how(tmp_path: Path) -> None:
    path = tmp_path / "iterpo.toml"
    path.write_text('[trace]\nendpoint = "localhost:4317"\n')
    with pytest.raises(InvalidConfig, match=r"for example http://127\.0\.0\.1:4317"):
        load(path)
    path.write_text('[trace]\nendpoint = "http://localhost:4317"\n')
    assert load(path).trace.endpoint == "http://localhost:4317"
