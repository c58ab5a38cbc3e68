"""What language models learn from: sentences of texts and books, the check against leaks, perplexity, training."""

import gzip
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from asr import config, leaks, manifest, sentences
from asr.cli import app
from asr.errors import AsrError, ConfigError, CorpusError, TrainingError
from asr.language import perplexity
from asr.language.perplexity import of_lstm, of_words, perplexity_of
from asr.language.training import LmTrainingOptions, TextOptions, train
from asr.lm_checkpoint import load_lm
from asr.manifest import Utterance
from asr.model.lm import CharacterLm, LmOptions
from asr.ngram import NgramModel, NgramOptions, build
from asr.sentences import Sentence
from asr.tokenizer import Tokenizer

BOOK = """\
CHAPTER I.

It was late.  Mr. Brown said: "Is it
time?" and rose.

[Illustration: a lamp]

He left at 7 o'clock! She did not--J. Smith did.
"""
FOUR = ["the cat sat on the mat", "a dog barked", "birds sing at dawn", "no one came to the door"]
TOKENIZER = Tokenizer()
TINY = LmOptions(embedding=8, width=32)


def _texts(path: Path, **options: Any) -> list[str]:
    return [sentence.text for sentence in sentences.read([path], **options)]


def _lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _manifest(path: Path, *texts: str) -> Path:
    audio = path.parent / "a.wav"
    manifest.write(path, [Utterance(f"u{n}", audio, 1.0, text) for n, text in enumerate(texts)])
    return path


def _sentences(*texts: str, path: str = "t") -> list[Sentence]:
    return [Sentence(text, path, line) for line, text in enumerate(texts, 1)]


def test_a_text_without_blank_lines_has_an_utterance_a_line(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.txt", "Yes. It is.", "No 7!")
    assert sentences.read([path]) == [
        Sentence("yes it is", str(path), 1),
        Sentence("no seven", str(path), 2),
    ]


def test_a_book_is_cut_into_sentences_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "b.txt.gz"
    path.write_bytes(gzip.compress(BOOK.encode()))
    assert [(s.text, s.line) for s in sentences.read([path])] == [
        ("chapter i", 1),
        ("it was late", 3),
        ("mister brown said is it time and rose", 3),
        ("he left at seven o'clock", 8),
        ("she did not j smith did", 8),
    ]


def test_long_sentences_are_cut_at_clauses(tmp_path: Path) -> None:
    clause = " ".join(["word"] * 20)
    path = tmp_path / "b.txt"
    path.write_text(f"{clause}, {clause}; {clause}.\n\n{' '.join(['run'] * 80)}\n")
    lengths = [len(text.split()) for text in _texts(path)]
    assert lengths == [20, 20, 20, 35, 35, 10]


def test_a_paragraph_of_any_length_takes_no_longer_a_sentence(tmp_path: Path) -> None:
    path, seconds = tmp_path / "b.txt", []
    for count in (3_000, 30_000):
        path.write_text("CHAPTER I\n\n" + "It was late. He left\nat seven.\n" * count)
        begun = time.process_time()
        found = sentences.read([path])
        seconds.append(time.process_time() - begun)
    assert len(found) == 60_001
    assert [s.line for s in found[:4]] == [1, 3, 3, 5]
    assert (
        seconds[1] < 25 * seconds[0]
    )  # copying the rest at every sentence made it a hundred times


def test_manifests_are_read_and_normalised(tmp_path: Path) -> None:
    assert _texts(_manifest(tmp_path / "m.jsonl", "ONE TWO", "", "Three, 4")) == [
        "one two",
        "three four",
    ]


def test_a_manifest_of_another_ending_is_one_and_lines_are_its_own(tmp_path: Path) -> None:
    _manifest(tmp_path / "m.jsonl", "one two", "three", "four")
    lines = (tmp_path / "m.jsonl").read_text(encoding="utf-8").splitlines()
    path = _lines(tmp_path / "test_manifest.json", lines[0], "", *lines[1:])
    assert _texts(_lines(tmp_path / "a.txt", "{laughs} well")) == ["laughs well"]
    (tmp_path / "m.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(CorpusError, match=r"m\.json\.gz: a manifest; unpack it"):
        sentences.read([tmp_path / "m.json.gz"])
    assert [(s.text, s.line) for s in sentences.read([path])] == [
        ("one two", 1),
        ("three", 3),
        ("four", 4),
    ]
    assert _texts(path, skip=["test_manifest.json:3-3"]) == ["one two", "four"]


def test_lines_can_be_left_out(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.txt", "one", "two", "three", "four")
    assert _texts(path, skip=["a.txt:2-3"]) == ["one", "four"]
    with pytest.raises(ConfigError, match=r"b\.txt is not among a\.txt"):
        sentences.read([path], ["b.txt:1-2"])
    with pytest.raises(ConfigError, match="must be FILE:FIRST-LAST"):
        sentences.read([path], ["a.txt"])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", None, "cannot read text: No such file"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8 text"),
        ("a.txt", b"\n\n ...\n", "no words in it"),
        ("a.txt.gz", b"plain", "damaged, or not a gzip file"),
        (
            "a.txt.gz",
            gzip.compress(b"hello there" * 99, mtime=0)[:30],
            "damaged, or not a gzip file",
        ),
    ],
)
def test_a_text_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=f"{name}: {reason}"):
        sentences.read([tmp_path / name])


SPAN = "one two three four five six seven eight nine ten eleven twelve"


@pytest.mark.parametrize(
    ("training", "held_out", "leaked"),
    [
        ("one two three four five six", "one two three four five six", True),
        ("one two three four five", "one two three four five", False),  # a common short sentence
        (f"so {SPAN} ends", f"and {SPAN}", True),
        (f"so {SPAN[:-7]} ends", f"and {SPAN[:-7]}", False),
        ("one two three four five six and more", "one two three four five six", False),
    ],
)
def test_held_out_text_is_found(training: str, held_out: str, leaked: bool) -> None:
    found = leaks.find(_sentences("hello", training), _sentences(held_out, path="dev"))
    assert [leak.training.line for leak in found] == ([2] if leaked else [])


def test_a_span_over_two_sentences_is_found() -> None:
    first, second = SPAN[:23], SPAN[24:]
    found = leaks.find(_sentences("x", first, second), _sentences(SPAN, path="dev"))
    assert [(leak.training.line, leak.text) for leak in found] == [(2, SPAN)]


def test_leaks_are_refused_in_one_line_with_their_places() -> None:
    with pytest.raises(CorpusError) as error:
        leaks.refuse(_sentences(*[f"so {SPAN}"] * 5, "fine"), _sentences("fine", SPAN, path="dev"))
    message = str(error.value)
    assert message.startswith(
        "5 of 6 sentences hold text that is kept out: t:1 has dev:2 ('one two"
    )
    assert message.endswith("; and 2 more")
    assert "\n" not in message
    leaks.refuse(_sentences("fine"), [])
    leaks.refuse([], _sentences("fine"))


def test_perplexity_of_words_by_hand() -> None:
    model = NgramModel(build(["a b", "a b"], NgramOptions(1)))
    result = of_words(model, ["a b", "dog a"])
    assert (result.sentences, result.words, result.characters, result.unknown) == (2, 4, 8, 1)
    assert result.unknown_rate == 0.25
    known = result.nats - result.unknown_nats
    unk = math.exp(model.score((), "dog")[0])
    assert result.unknown_nats == pytest.approx(-math.log(unk))
    assert result.per_word == pytest.approx(math.exp(known / 5))
    assert result.per_word_with_unknown == pytest.approx(math.exp(result.nats / 6))


def _train(folder: Path, tmp_path: Path, resume: bool = True, **training: Any) -> Path:
    text = _lines(tmp_path / "four.txt", *FOUR)
    dev = _manifest(tmp_path / "dev.jsonl", "A DOG BARKED")
    values = {"learning_rate": 0.02, "warmup_steps": 5, "validate_every": 100} | training
    return train(
        folder,
        lm=LmOptions(embedding=8, width=32, dropout=0.1 if "max_steps" in training else 0.0),
        text=TextOptions(train=(str(text),), dev=(str(dev),), batch_tokens=128),
        training=LmTrainingOptions(**values),
        resume=resume,
    )


def test_a_tiny_model_memorises_four_sentences(tmp_path: Path) -> None:
    trained = load_lm(_train(tmp_path / "run", tmp_path, epochs=80, validate_every=40))
    assert of_lstm(trained.model, trained.tokenizer, FOUR).per_character < 1.35
    assert trained.info["sentences"] == 4
    assert trained.info["dev"]["character"] < 1.5
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(row)["kind"] for row in rows} == {"train", "dev"}


def test_it_learns_with_muon_too(tmp_path: Path) -> None:
    before = load_lm(_train(tmp_path / "run", tmp_path, max_steps=1, optimizer="muon"))
    after = load_lm(_train(tmp_path / "run", tmp_path, max_steps=60, optimizer="muon"))
    first, last = (of_lstm(t.model, t.tokenizer, FOUR).per_character for t in (before, after))
    assert last < 0.5 * first


def test_patience_ends_a_training_that_no_longer_gets_better_on_dev(tmp_path: Path) -> None:
    still = {"learning_rate": 0.0, "max_steps": 50, "validate_every": 1, "patience": 3}
    assert load_lm(_train(tmp_path / "run", tmp_path, **still)).info["steps"] == 4


def test_perplexity_of_lstm_is_that_of_each_sentence_alone(tmp_path: Path) -> None:
    trained = load_lm(_train(tmp_path / "run", tmp_path, max_steps=3))
    together = of_lstm(trained.model, trained.tokenizer, FOUR)
    alone = [of_lstm(trained.model, trained.tokenizer, [s]).nats for s in FOUR]
    assert together.nats == pytest.approx(sum(alone), rel=1e-5)
    assert together.characters == sum(map(len, FOUR))


def test_k_steps_resume_k_steps_equals_2k_steps(tmp_path: Path) -> None:
    straight = load_lm(_train(tmp_path / "a", tmp_path, max_steps=12, cooldown=0))
    _train(tmp_path / "b", tmp_path, max_steps=6, cooldown=0)
    resumed = load_lm(_train(tmp_path / "b", tmp_path, max_steps=12, cooldown=0))
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_a_longer_training_goes_on_from_before_the_rate_fell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(tmp_path / "a", tmp_path, max_steps=8, cooldown=0.5)
    capsys.readouterr()
    longer = load_lm(_train(tmp_path / "a", tmp_path, max_steps=16, cooldown=0.5))
    assert "going on from step 4" in capsys.readouterr().err
    assert longer.info["steps"] == 16


def test_the_best_model_of_an_end_that_is_given_up_is_not_chosen(tmp_path: Path) -> None:
    short = {"max_steps": 8, "cooldown": 0.5, "validate_every": 2}
    _train(tmp_path / "run", tmp_path, **short)
    longer = {"max_steps": 16, "cooldown": 0.5}  # and nothing is validated
    info = load_lm(_train(tmp_path / "run", tmp_path, **longer)).info
    assert (info["chosen"], info["steps"]) == ("last", 16)
    assert [row["step"] for row in info["validations"]] == [2, 4]
    assert not (tmp_path / "run" / "best.pt").exists()
    assert info["epochs"] == 16  # of one batch each


def test_other_texts_than_it_began_with_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(tmp_path / "run", tmp_path, max_steps=2)
    _train(tmp_path / "run", tmp_path, max_steps=4)
    said = "its texts are not what it began with"
    assert said not in capsys.readouterr().err
    text = TextOptions(train=(str(_lines(tmp_path / "other.txt", "hello there")),))
    options = LmTrainingOptions(max_steps=6)
    train(tmp_path / "run", lm=TINY, text=text, training=options)
    assert said in capsys.readouterr().err


def test_a_perplexity_too_large_for_a_number_is_infinite() -> None:
    assert perplexity_of(1e6, 2) == math.inf
    assert perplexity_of(math.log(8), 3) == pytest.approx(2)
    assert math.isnan(perplexity_of(0.0, 0))


def test_a_new_beginning_forgets_the_old_state(tmp_path: Path) -> None:
    path = _train(tmp_path / "a", tmp_path, max_steps=4)
    first = load_lm(path).model.state_dict()
    second = load_lm(_train(tmp_path / "a", tmp_path, resume=False, max_steps=4)).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_on_held_out_text_is_refused(tmp_path: Path) -> None:
    text = _lines(tmp_path / "t.txt", "hello", f"so {SPAN}")
    dev, test = _manifest(tmp_path / "d.jsonl", "hello"), _manifest(tmp_path / "e.jsonl", SPAN)
    for options in (
        TextOptions(train=(str(text),), dev=(str(dev),), exclude=(str(test),)),
        TextOptions(train=(str(text),), dev=(str(test),)),
    ):
        with pytest.raises(CorpusError, match=r"1 of 2 sentences .*t\.txt:2 has .*e\.jsonl:1"):
            train(tmp_path / "run", lm=TINY, text=options, training=LmTrainingOptions(max_steps=1))


def test_a_training_that_cannot_be_is_refused(tmp_path: Path) -> None:
    text = TextOptions(train=(str(_lines(tmp_path / "t.txt", "hello")),))
    with pytest.raises(TrainingError, match="never end"):
        train(tmp_path / "a", lm=TINY, text=text, training=LmTrainingOptions())
    once = LmTrainingOptions(max_steps=1)
    with pytest.raises(TrainingError, match=r"text\.train"):
        train(tmp_path / "a", lm=TINY, text=TextOptions(), training=once)
    train(tmp_path / "a", lm=TINY, text=text, training=once)
    with pytest.raises(AsrError, match=r"last\.pt: not the state of this training"):
        train(tmp_path / "a", lm=LmOptions(width=3), text=text, training=once)
    with pytest.raises(ConfigError, match=r"training\.cooldown 2"):
        LmTrainingOptions(cooldown=2)


@pytest.mark.parametrize("words", [0, 5])
def test_a_training_begins_with_the_tokens_and_weights_of_another(
    words: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin(folder: str, *lines: str, initial: Path | None = None, **sizes: Any) -> Path:
        text = TextOptions(train=(str(_lines(tmp_path / f"{folder}.txt", *lines)),))
        lm = LmOptions(**({"words": words, "embedding": 8, "width": 32} | sizes))
        still = LmTrainingOptions(max_steps=1, learning_rate=0.0, seed=1 if initial is None else 2)
        return train(tmp_path / folder, lm=lm, text=text, training=still, initial=initial)

    path = begin("a", *FOUR)
    first, second = load_lm(path), load_lm(begin("b", "a dog sat", "the sea", initial=path))
    assert second.tokenizer.to_dict() == first.tokenizer.to_dict()
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    capsys.readouterr()
    deeper = load_lm(begin("c", "the sea", initial=path, layers=2)).model
    told = capsys.readouterr().err
    assert "new: rnn.bias_hh_l1, rnn.bias_ih_l1, rnn.weight_hh_l1, rnn.weight_ih_l1" in told
    assert torch.equal(deeper.rnn.weight_hh_l0, first.model.rnn.weight_hh_l0)
    begin("c", "the sea", initial=path, layers=2)
    told = capsys.readouterr().err
    assert "going on from step 1" in told
    assert "weights from" not in told
    with pytest.raises(ConfigError, match=r"lm\.words is \d; the model to begin with is of "):
        begin("d", "the sea", initial=path, words=0 if words else 5)


def _asr(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_recipe_with_a_table_lm_trains_a_language_model(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    _lines(tmp_path / "t.txt", *FOUR)
    recipe.write_text(
        f'[text]\ntrain = ["{tmp_path}/t.txt"]\n[lm]\nwidth = 8\n[training]\nmax_steps = 2\n'
    )
    result = _asr("train", recipe, "--output", tmp_path / "run", "--set", "lm.layers=2")
    assert result.exit_code == 0, result.output
    assert load_lm(result.stdout.strip()).model.options == LmOptions(width=8, layers=2)
    recipe.write_text("[lm]\nwide = 8\n")
    with pytest.raises(
        ConfigError, match=r"unknown option lm\.wide; allowed are candidates, dropout"
    ):
        config.load_any(recipe)
    result = _asr("train", recipe, "--set", "training.ctc=0.3")
    assert (result.exit_code, result.stdout) == (2, "")


def test_lm_ngram_builds_and_lm_perplexity_measures(tmp_path: Path) -> None:
    text = _lines(tmp_path / "t.txt", *FOUR)
    for name in ("words.ngram", "words.arpa"):
        built = _asr("lm", "ngram", text, "--order", 2, "--output", tmp_path / name)
        assert (built.exit_code, built.stdout) == (0, f"{tmp_path / name}\n")
        assert "nothing is kept out" in built.stderr
        measured = _asr("lm", "perplexity", tmp_path / name, text, "--json")
        figures = json.loads(measured.stdout)
        assert figures["words"] == 19
        assert 1 < figures["per_word"] < 10
    assert "per word: " in _asr("lm", "perplexity", tmp_path / "words.arpa", text).stdout
    trained = _train(tmp_path / "run", tmp_path, max_steps=2)
    assert json.loads(_asr("lm", "perplexity", trained, text, "--json").stdout)["unknown"] == 0


def test_lm_ngram_knows_the_words_of_a_dictionary(tmp_path: Path) -> None:
    text = _lines(tmp_path / "t.txt", "the cat sat")
    words = _lines(
        tmp_path / "words.dict", "Cat  K AE T", "'em AH M", "'em(2) EH M", "e.g. X", "", "wombat"
    )
    model = tmp_path / "m.ngram"
    built = _asr("lm", "ngram", text, "--words", words, "--order", 1, "--output", model)
    assert built.exit_code == 0
    assert NgramModel.load(model).unigrams().keys() >= {"the", "cat", "em", "wombat"}
    missing = _asr("lm", "ngram", text, "--words", tmp_path / "no", "--output", model)
    assert (missing.exit_code, "no: cannot read text" in missing.stderr) == (2, True)
    empty = _asr("lm", "ngram", text, "--words", _lines(tmp_path / "0", "..."), "--output", model)
    assert "no words in it" in empty.stderr


def test_lm_ngram_refuses_leaks_and_lines_that_are_not_there(tmp_path: Path) -> None:
    text = _lines(tmp_path / "t.txt", "hello", SPAN)
    dev = _manifest(tmp_path / "d.jsonl", SPAN)
    model = tmp_path / "m.ngram"
    refused = _asr("lm", "ngram", text, "--exclude", dev, "--output", model)
    assert refused.exit_code == 2
    assert "error: 1 of 2 sentences hold text that is kept out" in refused.stderr
    assert not model.exists()
    for lines, message in (
        ("9-12", "its last text is on line 2"),
        ("2-1", "must be FILE:FIRST-LAST"),
    ):
        wrong = _asr("lm", "ngram", text, "--skip", f"t.txt:{lines}", "--output", model)
        assert wrong.exit_code == 2
        assert message in wrong.stderr
    left_out = ("--skip", "t.txt:2-2")
    assert _asr("lm", "ngram", text, "--exclude", dev, *left_out, "--output", model).exit_code == 0


@pytest.mark.parametrize("command", ["ngram", "perplexity"])
def test_lm_commands_have_help_with_an_example(command: str) -> None:
    assert f"Example: asr lm {command}" in _asr("lm", command, "--help").stdout


def test_a_state_of_other_words_is_refused_though_they_are_as_many(tmp_path: Path) -> None:
    def run(*lines: str) -> Path:
        text = TextOptions(train=(str(_lines(tmp_path / "t.txt", *lines)),))
        lm = LmOptions(words=2, embedding=8, width=8)
        return train(tmp_path / "a", lm=lm, text=text, training=LmTrainingOptions(max_steps=1))

    run("cat dog cat")
    run("dog cat cat")
    with pytest.raises(AsrError, match=r"last\.pt: .*its tokens are others"):
        run("dog cow dog")


def test_a_batch_of_sentences_holds_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Counting(CharacterLm):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            sizes.append(tokens.numel() * TOKENIZER.size)
            return super().forward(tokens)

    monkeypatch.setattr(perplexity, "BATCH_LOG_PROBS", 20_000)
    texts = ["a", *["the cat sat on the mat and slept"] * 30]
    of_lstm(Counting(TOKENIZER.size, TINY).eval(), TOKENIZER, texts)
    assert max(sizes) <= 20_000
    assert len(sizes) == 2
