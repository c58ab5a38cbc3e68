"""Decoders from nothing, on the bundled model's encoder as it is: `python -m recipes.ladder.decoders [name]...`.

All of decoders.txt (or the base and those named) learn side by side from what the encoder makes of the same batches,
and are scored greedily on dev-clean. Needs the manifests of recipes/librispeech/run.sh here, and sentencepiece.
"""

import argparse
import csv
import io
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from asr import audio, checkpoint, config, manifest, metrics
from asr.augment import spec_augment, warp_frequencies
from asr.batching import Batch, TrainingSet, epoch_batches, padded
from asr.checkpoint import Trained
from asr.config import Config
from asr.decoding import DecodingOptions
from asr.decoding.greedy import greedy
from asr.devices import trains_in_bf16
from asr.features import LogMel
from asr.files import atomic_write
from asr.manifest import Utterance
from asr.model.decoder import Decoder, State
from asr.model.memory import Memory, length_mask
from asr.model.seq2seq import (
    cross_entropy,
    decoder_inputs_and_targets,
    guide_penalty,
    open_forget_gates,
)
from asr.text import normalise
from asr.tokenizer import Tokenizer
from asr.training import optimizer as optimizers
from asr.training.monitor import Monitor
from asr.training.run import load_data
from asr.training.validation import spread
from recipes.ladder.rows import (
    CHARACTERS,
    DECODERS,
    HERE,
    OF_DECODERS,
    WORDS,
    read_changes,
    table,
)

RECIPE = HERE.parent / "librispeech" / "here.toml"
MODEL = HERE.parents[1] / "asr" / "assets" / "english.pt"
RATE, WARMUP, COOLDOWN = 2e-3, 50, 0.6  # share of the steps in which the rate falls to 0
GUIDED = 0.5  # share of the steps in which the guided-attention penalty falls to 0


class Spells(Protocol):
    """What a decoder needs of a tokenizer."""

    @property
    def size(self) -> int:
        """Tokens, the special ones included."""

    def encode(self, text: str) -> list[int]:
        """Text to tokens."""

    def decode(self, ids: Iterable[int]) -> str:
        """Tokens to text."""


class Pieces:
    """Subword pieces (byte-pair encoding, Sennrich et al. 2016) after the special ids of `Tokenizer`."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        """Learn `size` pieces of the texts."""
        import sentencepiece

        found = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=found,
            model_type="bpe",
            vocab_size=size + 1,  # one of its own, for what is unknown
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=found.getvalue())
        self.size = Tokenizer.first_character + self.pieces.vocab_size()

    def encode(self, text: str) -> list[int]:
        """Text to tokens."""
        return [Tokenizer.first_character + piece for piece in self.pieces.encode(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Tokens to text."""
        first = Tokenizer.first_character
        text: str = self.pieces.decode([i - first for i in ids if i >= first])
        return text


class Alone(nn.Module):
    """A decoder as `greedy` wants a model."""

    def __init__(self, decoder: Decoder, frame_seconds: float) -> None:
        super().__init__()
        self.decoder = decoder
        self.frame_seconds = frame_seconds
        self.apply(open_forget_gates)

    def initial_state(self, memory: Memory) -> State:
        """The state before the first token."""
        return self.decoder.initial_state(memory)

    def step(self, tokens: Tensor, memory: Memory, state: State) -> tuple[Tensor, State]:
        """Last tokens (N,) to log_probs (N, V) and the next state."""
        return self.decoder.step(tokens, memory, state)


@dataclass
class Learner:
    """One decoder of the list, with what it spells in and what it learns by."""

    name: str
    recipe: Config
    tokenizer: Spells
    model: Alone
    optimizer: optimizers.Optimizer
    loss: float = 0.0  # a token, of the last step

    def learn(self, values: Tensor, lengths: Tensor, texts: Sequence[str], done: float) -> None:
        """A step on the encoder's output (B, U, D) with its lengths (B,); `done` is the share of all steps so far."""
        decoder, training = self.model.decoder, self.recipe.training
        tokens, counts = padded([tuple(self.tokenizer.encode(t)) for t in texts], Tokenizer.pad)
        tokens, counts = tokens.to(values.device), counts.to(values.device)
        memory = decoder.memory(values, lengths, length_mask(lengths, values.shape[1]))
        inputs, targets = decoder_inputs_and_targets(tokens, counts)
        log_probs, attention = decoder.teacher_forced(inputs, memory)
        valid = length_mask(counts + 1, targets.shape[1])
        loss = cross_entropy(log_probs, targets, valid, training.label_smoothing)
        guide = training.guide * max(0.0, 1 - done / GUIDED)
        total = loss
        if guide > 0:
            total = loss + guide * guide_penalty(
                attention, counts + 1, memory, training.guide_width
            )
        self.optimizer.zero_grad()
        (total / valid.sum()).backward()
        norm = nn.utils.clip_grad_norm_(decoder.parameters(), training.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.loss = float(loss.detach() / valid.sum())


def build(
    name: str, options: str, trained: Trained, texts: Sequence[str], recipe: str | Path = RECIPE
) -> Learner:
    """The decoder that a line of decoders.txt names, with random weights; `texts` are what pieces are learnt of."""
    words = shlex.split(options)
    pieces, words = (int(words[1]), words[2:]) if words[:1] == ["-p"] else (0, words)
    changed = config.load(recipe, [word for word in words if word != "--set"])
    tokenizer: Spells = Pieces(texts, pieces) if pieces else trained.tokenizer
    torch.manual_seed(changed.training.seed)
    width = 2 * trained.model.options.encoder.width
    decoder = Decoder(tokenizer.size, width, changed.model.decoder)
    model = Alone(decoder, trained.model.frame_seconds)
    optimizer = optimizers.build(model, "muon")
    for group in optimizer.param_groups:
        group["weight_decay"] = changed.training.weight_decay
    return Learner(name, changed, tokenizer, model, optimizer)


@torch.no_grad()
def listen(
    trained: Trained, batch: Batch, recipe: Config, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the encoder makes of a batch, masked as in training: (B, U, D) and (B,)."""
    augmentation = recipe.augment
    features = warp_frequencies(batch.features, augmentation.freq_warp, trained.features, generator)
    features = spec_augment(features, batch.feature_lengths, augmentation, generator)
    values, lengths = trained.model.encoder.levels(features, batch.feature_lengths)[-1]
    return values.float(), lengths


def train(
    learners: Sequence[Learner], trained: Trained, data: TrainingSet, recipe: Config, steps: int
) -> None:
    """All decoders from the same batches, for as many steps."""
    bf16 = trains_in_bf16(trained.model, torch.device("cpu"))
    order = (
        picks
        for epoch in range(steps)
        for picks in epoch_batches(
            [example.frames for example in data.examples],
            batch_frames=round(recipe.data.batch_seconds / data.hop_seconds),
            seed=recipe.training.seed,
            epoch=epoch,
        )
    )
    trained.model.eval()
    for step in track(range(steps), "decoders", console=Console(stderr=True)):
        batch = data.batch(next(order))
        rows = zip(batch.tokens.tolist(), batch.token_lengths.tolist(), strict=True)
        texts = [trained.tokenizer.decode(row[:length]) for row, length in rows]
        rate = RATE * min((step + 1) / WARMUP, 1.0, (1 - step / steps) / COOLDOWN)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            generator = torch.Generator().manual_seed(step)
            values, lengths = listen(trained, batch, recipe, generator)
            for learner in learners:
                for group in learner.optimizer.param_groups:
                    group["lr"] = rate
                torch.manual_seed(learner.recipe.training.seed * 1_000_003 + step)
                learner.model.train()
                learner.learn(values, lengths, texts, step / steps)
        if (step + 1) % recipe.training.log_every == 0:
            losses = "  ".join(f"{learner.name} {learner.loss:.3f}" for learner in learners)
            print(f"step {step + 1}  {losses}", file=sys.stderr, flush=True)


@torch.inference_mode()
def transcribe(
    learners: Sequence[Learner], trained: Trained, utterances: Sequence[Utterance]
) -> dict[str, list[str]]:
    """The texts of each decoder's greedy search."""
    log_mel = LogMel(trained.features)
    found: dict[str, list[str]] = {learner.name: [] for learner in learners}
    for utterance in track(utterances, "dev", console=Console(stderr=True)):
        waveform = audio.read(utterance.audio, sample_rate=trained.features.sample_rate)
        features = log_mel.extract(torch.from_numpy(waveform))[None]
        levels = trained.model.encoder.levels(features, torch.tensor([features.shape[1]]))
        values, lengths = levels[-1]
        for learner in learners:
            model = learner.model.eval()
            memory = model.decoder.memory(values, lengths, length_mask(lengths, values.shape[1]))
            best = greedy(model, memory, trained.tokenizer, DecodingOptions())[0]  # type: ignore[arg-type]
            found[learner.name].append(learner.tokenizer.decode(best.tokens))
    return found


def write_rows(path: Path, utterances: Sequence[Utterance], texts: Sequence[str]) -> None:
    """The edits of each utterance, in the columns of `asr evaluate --output` that the table reads."""
    said = [normalise(utterance.text) for utterance in utterances]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        rows = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        rows.writerow(["id", *WORDS[0], WORDS[1], *CHARACTERS[0], CHARACTERS[1], "hypothesis"])
        for utterance, text, words, characters in zip(
            utterances,
            texts,
            metrics.word_counts(said, texts),
            metrics.character_counts(said, texts),
            strict=True,
        ):
            edits = [words.substitutions, words.deletions, words.insertions]
            sizes = [words.reference_length, characters.errors, characters.reference_length]
            rows.writerow([utterance.id, *edits, *sizes, text])


def main() -> None:
    """Train, score, print the table."""
    changes = read_changes(DECODERS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(changes))
    parser.add_argument("--steps", type=int, default=1000, help="default: 1000")
    parser.add_argument(
        "--dev", type=int, default=150, help="utterances of dev-clean; default: 150"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/decoders"), help="the scores")
    options = parser.parse_args()
    if unknown := set(options.names) - set(changes):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(changes)}")
    recipe = config.load(RECIPE)
    trained = checkpoint.load(MODEL)
    utterances = spread([u for path in recipe.data.dev for u in manifest.read(path)], options.dev)
    data = load_data(recipe.data, trained, recipe.augment, Monitor(None))
    texts = [trained.tokenizer.decode(example.tokens) for example in data.examples]
    if options.names:
        changes = {name: line for name, line in changes.items() if name in ("base", *options.names)}
    learners = [build(name, line, trained, texts) for name, line in changes.items()]
    train(learners, trained, data, recipe, options.steps)
    for name, hypotheses in transcribe(learners, trained, utterances).items():
        write_rows(options.output / name / "greedy.tsv", utterances, hypotheses)
    print(*table(options.output, changes, OF_DECODERS), sep="\n")


if __name__ == "__main__":
    main()
