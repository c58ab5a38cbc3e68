"""The search beside a model: read, copied, and what is wrong with it named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import arpa

from asr.confidence import Calibration, Logistic
from asr.decoding import DecodingOptions, FirstPass, Ranking, Search
from asr.errors import AsrError, ConfigError
from asr.lm_checkpoint import TrainedLm, save_lm
from asr.model.lm import CharacterLm, LmOptions
from asr.search_file import copy_search, default_calibration, default_search
from asr.tokenizer import Tokenizer


def test_a_model_without_a_file_beside_it_is_decoded_greedily(tmp_path: Path) -> None:
    assert default_search(tmp_path / "model.pt") == (Search(), None)


def test_the_file_beside_a_model_holds_its_search(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer()
    lm = CharacterLm(tokenizer.size, LmOptions(embedding=4, width=8))
    save_lm(tmp_path / "lm.pt", TrainedLm(lm, tokenizer, {}))
    (tmp_path / "words.arpa").write_text(arpa("horse"), encoding="utf-8")
    (tmp_path / "words.dict").write_text("horse HH AO R S\n", encoding="utf-8")
    (tmp_path / "english.toml").write_text(
        'lm = "lm.pt"\nngram = "words.arpa"\npronunciations = "words.dict"\n'
        "[decoding]\nbeam_size = 8\nctc_weight = 0.3\n[ranking]\nlength_bonus = 2\n"
        "[first_pass]\nhypotheses = 99\n",
        encoding="utf-8",
    )
    search, calibration = default_search(tmp_path / "english.pt")
    assert search.options == DecodingOptions(beam_size=8, ctc_weight=0.3)
    assert search.ranking == Ranking(length_bonus=2.0)
    assert search.first_pass == FirstPass(hypotheses=99)
    assert search.order == DecodingOptions(beam_size=8, ctc_weight=0.3, length_bonus=2.0)
    assert search.lm is not None
    assert search.lm.tokenizer.alphabet == tokenizer.alphabet
    assert search.ngram is not None
    known, unknown = (search.ngram.score(search.ngram.start(), w)[0] for w in ("horse", "hose"))
    assert known > unknown
    assert search.pronunciations == {"horse": (17, 5, 29, 30)}
    assert calibration is None
    names = search.in_use()
    assert [str(names[key]).rpartition("-")[0] for key in ("lm", "ngram")] == ["lm", "words"]
    assert names["hotwords"] is None
    assert str(names["pronunciations"]).startswith("words-")  # for the first pass
    without = replace(search, first_pass=None).in_use()
    assert without["pronunciations"] is None  # its weight is 0
    (tmp_path / "out").mkdir()
    copy_search(tmp_path / "english.pt", tmp_path / "out")
    copied, _ = default_search(tmp_path / "out")
    assert copied.pronunciations == search.pronunciations
    assert (copied.options, copied.ranking) == (search.options, search.ranking)
    assert copied.first_pass == search.first_pass


def test_one_calibration_may_serve_both_searches(tmp_path: Path) -> None:
    row = Logistic(("mean_log_prob",), (-1.0,), (0.5,), (2.0,), 0.1)
    Calibration(row).save(tmp_path / "both.json")
    (tmp_path / "english.toml").write_text(
        'calibration = "both.json"\ngreedy_calibration = "both.json"\n'
    )
    (tmp_path / "out").mkdir()
    copy_search(tmp_path / "english.pt", tmp_path / "out")
    for greedy in (False, True):
        assert default_calibration(tmp_path / "out", greedy=greedy) == Calibration(row)


def test_files_of_one_name_are_not_copied_over_each_other(tmp_path: Path) -> None:
    for folder in ("a", "b", "out"):
        (tmp_path / folder).mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder / "model").write_text(folder)
    (tmp_path / "english.toml").write_text('lm = "a/model"\nngram = "b/model"\n')
    with pytest.raises(ConfigError, match=r"english\.toml: ngram: .* another model"):
        copy_search(tmp_path / "english.pt", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[decoding]\nbeam = 8\n",
            r"english\.toml: unknown option decoding\.beam; allowed are beam",
        ),
        ("[decoding]\nbeam_size = 0\n", r"english\.toml: beam_size is 0"),
        ("[first_pass]\nhypotheses = 0\n", r"english\.toml: first_pass\.hypotheses 0"),
        ("[ranking]\nngram_weight = -1\n", r"english\.toml: ranking\.ngram_weight is -1"),
        ("lm = 3\n", r"english\.toml: option lm: a value of type str"),
        ("lm = \n", r"english\.toml: not a TOML file"),
        ('lm = "none.pt"\n', r"none\.pt: cannot read"),
        ('ngram = "none.arpa"\n', r"none\.arpa: "),
        ('pronunciations = "none.gz"\n', r"none\.gz: cannot read pronunciations: No such file"),
        ('calibration = "none.json"\n', r"none\.json: cannot read calibration"),
    ],
)
def test_what_is_wrong_with_the_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "english.toml").write_text(text, encoding="utf-8")
    with pytest.raises(AsrError, match=reason) as error:
        default_search(tmp_path / "english.pt")
    assert "\n" not in str(error.value)


def test_a_calibration_is_read(tmp_path: Path) -> None:
    (tmp_path / "english.toml").write_text('calibration = "bad.json"\n', encoding="utf-8")
    (tmp_path / "bad.json").write_text(json.dumps([]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.json: not a calibration"):
        default_search(tmp_path / "english.pt")


def test_a_folder_may_be_named_by_a_dot_and_have_dots_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model-1.5"
    folder.mkdir()
    (folder / "search.toml").write_text("[decoding]\nbeam_size = 3\n")
    (tmp_path / "model-1.toml").write_text("[decoding]\nbeam_size = 2\n")  # another model's
    assert default_search(folder)[0].options.beam_size == 3
    monkeypatch.chdir(folder)
    assert default_search(".")[0].options.beam_size == 3
    (tmp_path / "model-1.5.toml").write_text("[decoding]\nbeam_size = 4\n")
    assert default_search(".")[0].options.beam_size == 4
