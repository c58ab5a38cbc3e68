import json
import os
import tempfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from asr import audio, checkpoint, ngram
from asr.checkpoint import Trained
from asr.cli import app
from asr.decoding import DecodingOptions, decode
from asr.encoding import encode
from asr.errors import AudioError, CheckpointError, ConfigError
from asr.export import check, export, load_exported, open_engine
from asr.features import FeatureOptions
from asr.model import Seq2Seq
from asr.model.memory import length_mask
from asr.recognizer import load
from tests.models import CELLS, KINDS, MELS, TOKENIZER, padded, random_features, tiny_model
from tests.recognizers import tiny_trained

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

ASSETS = Path(__file__).parents[1] / "asr" / "assets"
SAMPLES = Path(__file__).parents[1] / "data" / "samples"
OTHER_SIZES = {
    "layers": 2,
    "input_feeding": False,
    "subsampling": 1,
    "bottom_layers": 1,
    "residual": True,
    "norm": False,
    "ctc": False,
}
PHONEMES = {"phonemes": True, "phoneme_layers": 2, "bottom_layers": 1}
SPELLER = {**PHONEMES, "speller": 0.3}


def _onnx(model: Seq2Seq, *, int8: bool = False) -> Seq2Seq:
    trained = Trained(model, TOKENIZER, FeatureOptions(n_mels=MELS), {})
    return open_engine(trained, "onnx", int8=int8, threads=1).model


def _follow(model: Seq2Seq, features: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """All that a search may see of a model: memory, CTC, and some steps of the decoder."""
    with torch.inference_mode():
        memory = model.with_speller(model.encode(features, lengths))
        state = model.initial_state(memory)
        found = [memory.values, memory.keys, memory.lengths.float(), memory.mask.float()]
        ctc = model.ctc_log_probs(memory)
        found += [] if ctc is None else [ctc]
        heard = model.phoneme_log_probs(memory)
        found += [] if heard is None else [heard[1].float(), _valid(*heard)]
        for token in (TOKENIZER.sos, *TOKENIZER.encode("fade"), TOKENIZER.eos):
            tokens = torch.full_like(memory.lengths, token)
            log_probs, state = model.step(tokens, memory, state)
            found += [log_probs.exp(), *state.hidden]
            found += [state.context, state.attention, state.coverage]
            if state.spelled is not None:
                found += [*state.spelled.hidden, state.spelled.context, state.spelled.coverage]
    return found


def _valid(log_probs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What is past the lengths has no meaning."""
    return log_probs * length_mask(lengths, log_probs.shape[1])[..., None]


@pytest.mark.parametrize(
    "options",
    [{}, OTHER_SIZES, PHONEMES, SPELLER],
    ids=["usual", "other sizes", "phonemes", "speller"],
)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_export_equals_eager(cell: str, kind: str, options: dict[str, object]) -> None:
    model = tiny_model(cell=cell, kind=kind, **options)
    batch = padded(random_features(37, 22, 5, 1), float("nan"))
    eager, exported = _follow(model, *batch), _follow(_onnx(model), *batch)
    assert len(eager) == len(exported)
    for ours, theirs in zip(eager, exported, strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_an_exported_model_hears_three_times_as_the_original_does() -> None:
    model, options = tiny_model(**PHONEMES), FeatureOptions(n_mels=MELS)
    batch = padded(random_features(37, 22))
    with torch.inference_mode():
        eager, exported = (encode(net, *batch, 0.06, options) for net in (model, _onnx(model)))
        once = model.phoneme_log_probs(model.encode(*batch))
    assert eager.heard is not None
    assert exported.heard is not None
    assert once is not None
    torch.testing.assert_close(
        _valid(exported.heard, once[1]), _valid(eager.heard, once[1]), atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(_valid(eager.heard, once[1]), _valid(once[0], once[1]), atol=1e-3)


def test_an_export_without_the_phonemes_graph_still_opens(tmp_path: Path) -> None:
    """As versions wrote it whose search could not use phonemes."""
    trained = Trained(tiny_model(**PHONEMES), TOKENIZER, FeatureOptions(n_mels=MELS), {})
    export(trained, tmp_path / "out")
    (tmp_path / "out" / "phonemes.onnx").unlink()
    model = load_exported(tmp_path / "out").model
    assert model.phonemes is None
    batch = padded(random_features(20))
    assert model.phoneme_log_probs(model.encode(*batch)) is None
    assert encode(model, *batch, 0.06, trained.features).heard is None


@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_no_result_of_an_exported_model(cell: str) -> None:
    model = _onnx(tiny_model(cell=cell, kind="location"))
    rows = random_features(41, 16, 7)
    together = _follow(model, *padded(rows, float("nan"), extra=3))
    for number, row in enumerate(rows):
        alone = _follow(model, *padded([row]))
        for ours, theirs in zip(alone, together, strict=True):
            part = theirs[number][: ours.shape[1]] if ours.ndim > 1 else theirs[number]
            torch.testing.assert_close(part, ours[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("exported", [False, True], ids=["eager", "exported"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_share_a_memory_equal_rows_with_a_memory_each(kind: str, exported: bool) -> None:
    model = tiny_model(kind=kind)
    network = _onnx(model) if exported else model
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    with torch.inference_mode():
        shared = network.encode(*padded(random_features(30, 18)))
        each = shared.select(rows)
        mine = theirs = network.initial_state(each)
        for tokens in torch.tensor([[2] * 6, [4, 5, 6, 7, 8, 9], [9, 8, 4, 4, 5, 6]]):
            log_probs, mine = network.step(tokens, shared, mine)
            expected, theirs = network.step(tokens, each, theirs)
            torch.testing.assert_close(log_probs.exp(), expected.exp(), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(mine.coverage, theirs.coverage, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(mine.context, theirs.context, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_search_finds_the_same_with_an_exported_model(beam_size: int) -> None:
    model, options = tiny_model(kind="location"), DecodingOptions(beam_size=beam_size)
    exported, batch = _onnx(model), padded(random_features(33, 50, 12))
    found = []
    for network in (model, exported):
        with torch.inference_mode():
            memory = network.encode(*batch)
            hypotheses = decode(network, memory, TOKENIZER, options)
        found.append([[h.tokens for h in best] for best in hypotheses])
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def english() -> Trained:
    return checkpoint.load(checkpoint.bundled())


@pytest.fixture(scope="module")
def speech() -> list[torch.Tensor]:
    names = ("river", "garden", "house")
    return [torch.from_numpy(audio.read(SAMPLES / f"{name}.opus")) for name in names]


def test_the_bundled_model_exported_writes_the_same_texts(
    english: Trained, speech: list[torch.Tensor], tmp_path: Path
) -> None:
    export(english, tmp_path / "model")
    found = check(english, load_exported(tmp_path / "model", threads=1), speech)
    assert found.utterances == 3
    assert found.changed == 0
    assert found.max_difference < 1e-3


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_8_bits_are_close_and_smaller(
    english: Trained, speech: list[torch.Tensor], engine: str
) -> None:
    int8 = open_engine(english, engine, int8=True, threads=1)
    found = check(english, int8, speech, int8=True)
    assert found.max_difference > 0
    with pytest.raises(CheckpointError, match="differs from the eager one"):
        check(english, int8, speech)


def test_8_bits_take_a_quarter_of_the_space(tmp_path: Path) -> None:
    trained = Trained(tiny_model(width=64), TOKENIZER, FeatureOptions(n_mels=MELS), {})
    export(trained, tmp_path / "float32")
    export(trained, tmp_path / "int8", int8=True)
    sizes = [(tmp_path / name / "encoder.onnx").stat().st_size for name in ("float32", "int8")]
    assert sizes[1] < 0.5 * sizes[0]
    assert load_exported(tmp_path / "int8").tokenizer.alphabet == TOKENIZER.alphabet
    once_more = load_exported(tmp_path / "float32", int8=True)  # on the way
    assert (tmp_path / "float32" / "encoder.onnx").stat().st_size == sizes[0]
    assert once_more.model.frame_seconds == trained.model.frame_seconds
    opened = [once_more, load_exported(tmp_path / "int8"), load_exported(tmp_path / "float32")]
    assert [(one.engine, one.int8) for one in opened] == [
        ("onnx", True),
        ("onnx", True),
        ("onnx", False),
    ]


def test_check_refuses_a_corrupted_export(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    trained, noise = tiny_trained(), [torch.randn(16_000)]
    export(trained, tmp_path)
    check(trained, load_exported(tmp_path), noise)
    graph = onnx.load(tmp_path / "ctc.onnx")
    weight = numpy_helper.to_array(graph.graph.initializer[0])
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight * 1.01, "weight0"))
    onnx.save(graph, tmp_path / "ctc.onnx")
    with pytest.raises(CheckpointError, match=r"differs .* nats, 0 of 1 transcripts"):
        check(trained, load_exported(tmp_path), noise)


def test_check_needs_audio() -> None:
    trained = tiny_trained()
    with pytest.raises(AudioError, match="no recording that is long enough"):
        check(trained, trained, [torch.zeros(300)])


def test_what_is_no_exported_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no exported model: model\.json: No such file"):
        open_engine(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"model\.json: damaged"):
        open_engine(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 9}')
    with pytest.raises(CheckpointError, match="export format 9; this version reads 1"):
        open_engine(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match="not a model of this version"):
        open_engine(tmp_path)
    export(tiny_trained(), tmp_path)
    (tmp_path / "step.onnx").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="graph step"):
        open_engine(tmp_path)
    (tmp_path / "step.onnx").unlink()
    with pytest.raises(CheckpointError, match="lacks the graph step"):
        open_engine(tmp_path)


def test_what_does_not_go_together_is_refused_in_one_line(tmp_path: Path) -> None:
    trained = tiny_trained()
    with pytest.raises(ConfigError, match="engine 'jax': allowed are torch, onnx"):
        open_engine(trained, "jax")
    with pytest.raises(ConfigError, match="engine onnx runs on the cpu only"):
        open_engine(trained, "onnx", device="cuda")
    with pytest.raises(ConfigError, match="int8 runs on the cpu only"):
        open_engine(trained, int8=True, device="cuda")
    export(trained, tmp_path)
    with pytest.raises(ConfigError, match="is an exported model; it needs engine onnx"):
        open_engine(tmp_path, "torch")
    with pytest.raises(CheckpointError, match="an exported model cannot be exported"):
        export(open_engine(tmp_path), tmp_path / "again")


def test_a_checkpoint_opens_with_either_engine(tmp_path: Path) -> None:
    trained = tiny_trained()
    checkpoint.save(tmp_path / "model.pt", trained)
    batch = torch.randn(1, 60, 80), torch.tensor([60])
    values = [
        open_engine(tmp_path / "model.pt", engine).model.encode(*batch).values
        for engine in (None, "onnx")
    ]
    torch.testing.assert_close(values[1], values[0].detach(), atol=1e-3, rtol=1e-3)


def _export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def _with_search(folder: Path) -> Path:
    """A model whose default search has a beam, CTC and word n-grams that lie elsewhere."""
    model = folder / "model.pt"
    checkpoint.save(model, tiny_trained())
    (folder / "lm").mkdir()
    sentences = ["the horse", "a house"]
    ngram.save(folder / "lm" / "words.ngram", ngram.build(sentences, ngram.NgramOptions(order=2)))
    (folder / "calibration.json").write_bytes((ASSETS / "english-calibration.json").read_bytes())
    (folder / "model.toml").write_text(
        'ngram = "lm/words.ngram"\ncalibration = "calibration.json"\n'
        "[decoding]\nbeam_size = 3\nctc_weight = 0.3\nngram_weight = 2\n"
    )
    return model


def test_an_exported_model_has_the_checkpoints_default_search(tmp_path: Path) -> None:
    model, folder = _with_search(tmp_path), tmp_path / "elsewhere" / "exported"
    assert _export(model, "--output", folder).exit_code == 0
    eager = load(model)
    for path in (model.with_suffix(".toml"), tmp_path / "lm" / "words.ngram"):
        path.unlink()  # the folder has its own
    exported = load(folder.rename(tmp_path / "moved"))
    assert exported.options == eager.options
    assert exported.calibration == eager.calibration is not None
    same = ("beam_size", "ngram", "ngram_weight", "calibration")
    assert [exported.settings[key] for key in same] == [eager.settings[key] for key in same]


def test_the_default_search_of_the_exported_bundled_model_writes_the_same_texts(
    tmp_path: Path,
) -> None:
    assert _export(checkpoint.bundled(), "--output", tmp_path / "exported").exit_code == 0
    sounds = [SAMPLES / f"{name}.opus" for name in ("horse", "letter")]
    eager, exported, greedy = (
        [one.transcribe(sound).text for sound in sounds]
        for one in (
            load(),
            load(tmp_path / "exported"),
            load(tmp_path / "exported", search="greedy"),
        )
    )
    assert exported == eager != greedy


def test_an_export_that_fails_its_check_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "model.pt", tiny_trained())
    checked = ("--check", SAMPLES / "river.opus")
    monkeypatch.setattr("asr.export.MAX_DIFFERENCE", -1.0)
    result = _export(tmp_path / "model.pt", "--output", tmp_path / "exported", *checked)
    assert result.exit_code == 2
    assert "differs from the eager one" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_an_export_replaces_an_earlier_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = _with_search(tmp_path), tmp_path / "exported"
    assert _export(model, "--output", folder).exit_code == 0
    for name in ("mine.txt", "whisper.onnx", "mine.json"):
        (folder / name).write_text("notes")
    search = folder / "search.toml"
    search.write_text(f'greedy_calibration = "mine.json"\n{search.read_text("utf-8")}', "utf-8")
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr("asr.export.MAX_DIFFERENCE", -1.0)
    checked = ("--check", SAMPLES / "river.opus")
    assert _export(model, "--output", folder, *checked).exit_code == 2
    assert sorted(path.name for path in folder.iterdir()) == before
    monkeypatch.undo()
    model.with_suffix(".toml").unlink()
    assert _export(model, "--output", folder, *checked).exit_code == 0
    assert load(folder).options == DecodingOptions()  # the search of the earlier one is gone
    named = {"model.json", "whisper.onnx", "mine.txt", "mine.json"}
    graphs = {f"{name}.onnx" for name in json.loads((folder / "model.json").read_text())["graphs"]}
    assert {path.name for path in folder.iterdir()} == named | graphs  # with all its files
    assert (folder / "mine.txt").read_text() == "notes"
    assert (folder / "whisper.onnx").read_text() == "notes"


def test_an_export_stays_on_the_disk_of_its_folder(tmp_path: Path) -> None:
    """A mount point, or a link to another disk: what is moved there must lie there before."""
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to write to")
    with tempfile.TemporaryDirectory(dir=other) as real:
        (tmp_path / "link").symlink_to(real)
        model = _with_search(tmp_path)
        for _ in range(2):
            assert _export(model, "--output", tmp_path / "link").exit_code == 0
        assert load(tmp_path / "link").options == load(model).options
        assert not [path for path in Path(real).iterdir() if path.is_dir()]


def test_export_command_writes_checks_and_names_the_folder(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model.pt", tiny_trained())
    folder, sound = tmp_path / "exported", str(SAMPLES / "river.opus")
    result = _export(tmp_path / "model.pt", "--output", folder, "--check", sound)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folder}\n"
    assert "checked on 1 recordings" in result.stderr
    assert {path.name for path in folder.iterdir()} == {
        "model.json",
        "encoder.onnx",
        "step.onnx",
        "ctc.onnx",
    }
