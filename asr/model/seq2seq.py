"""Encoder, decoder and CTC head as one network, with one loss: (1 - w) * attention + w * CTC; a speller beside them."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.model.crf import Trigram
from asr.model.decoder import Decoder, DecoderOptions, State
from asr.model.encoder import Encoder, EncoderLayer, EncoderOptions
from asr.model.memory import Memory, length_mask
from asr.model.sounds import WIDTH, SpellerOptions, batch_of_sounds
from asr.options import check_range
from asr.phonemes import BLANK, SIZE
from asr.tokenizer import Tokenizer

CTC_BESIDE = 0.1  # weight of CTC's loss beside CTC-CRF's; no other was tried
CTC_SECONDS = 0.04  # longest CTC frame: English has up to about 25 characters a second


@dataclass(frozen=True)
class ModelOptions:
    """All sizes of the network, apart from what the features and the tokenizer fix."""

    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    decoder: DecoderOptions = field(default_factory=DecoderOptions)
    ctc: bool = True  # a CTC head on the memory
    phonemes: bool = False  # a CTC head of English phonemes on the encoder's first layer
    phoneme_layers: int = 0  # BLSTM layers of their own between the first layer and that head
    speller: SpellerOptions | None = None  # a second decoder, which attends to what that head hears
    speaking_rate: float = 0.0  # phonemes a second that it hears best, see asr.encoding; 0: as all

    def __post_init__(self) -> None:
        """Refuse what needs a head where there is none; raises ConfigError."""
        check_range(self, "model", ("phoneme_layers", "speaking_rate"), 0)
        for name in ("phoneme_layers", "speller", "speaking_rate"):
            if getattr(self, name) and not self.phonemes:
                raise ConfigError(f"model.{name}: needs model.phonemes = true")

    @property
    def of_speller(self) -> "ModelOptions | None":
        """The sizes of the speller, a network of the same kind."""
        if self.speller is None:
            return None
        return ModelOptions(self.speller.encoder, self.speller.decoder, ctc=False)


@dataclass(frozen=True)
class LossWeights:
    """What the loss is made of; training changes some of them as it goes on."""

    ctc: float = 0.3  # share of CTC in the loss, the rest is attention; at 1 the decoder is not run
    label_smoothing: float = 0.0  # probability spread evenly over all characters
    guide: float = 0.0  # weight of the guided-attention penalty
    guide_width: float = 0.1  # its tolerance, as a share of the utterance
    sampling: float = 0.0  # share of decoder inputs that are its own guesses
    phonemes: float = 0.0  # weight of their CTC loss, added to the rest
    phonemes_alone: bool = False  # only their loss is computed
    speller_alone: bool = False  # only the speller's is, from sounds


@dataclass(frozen=True)
class Losses:
    """Sums over the batch in nats, with the count of targets they are divided by (characters and one eos each)."""

    attention: Tensor
    ctc: Tensor
    guide: Tensor
    phonemes: Tensor
    total: Tensor
    targets: Tensor


class Seq2Seq(nn.Module):
    """Listen, Attend and Spell (Chan et al. 2016) with a joint CTC head (Kim et al. 2017)."""

    def __init__(
        self, options: ModelOptions, *, vocabulary: int, n_mels: int = 80, hop_seconds: float = 0.01
    ) -> None:
        super().__init__()
        self.options = options
        self.vocabulary = vocabulary
        self.n_mels = n_mels
        self.frame_seconds = hop_seconds * options.encoder.reduction  # seconds per memory step
        width = 2 * options.encoder.width
        self.encoder = Encoder(n_mels, options.encoder)
        self.decoder = Decoder(vocabulary, width, options.decoder)
        self.ctc_factor = ctc_factor(self.frame_seconds)
        self.ctc = nn.Linear(width, vocabulary * self.ctc_factor) if options.ctc else None
        self.phoneme_layers = nn.ModuleList(
            EncoderLayer(options.encoder, width, 1) for _ in range(options.phoneme_layers)
        )
        self.phonemes = nn.Linear(width, SIZE) if options.phonemes else None
        self.trigram: Trigram | None = None  # with it phonemes learn by CTC-CRF
        self.apply(open_forget_gates)
        self.speller: Seq2Seq | None = None
        if (sizes := options.of_speller) is not None:
            self.speller = Seq2Seq(sizes, vocabulary=vocabulary, n_mels=WIDTH)

    def encode(self, features: Tensor, feature_lengths: Tensor) -> Memory:
        """Features (B, T, M) with frame counts (B,) to a memory of ceil(T / reduction) steps."""
        levels = self.encoder.levels(features, feature_lengths)
        memory = self._memory(*levels[-1])
        if self.phonemes is None:
            return memory
        return replace(memory, first=levels[0][0], first_lengths=levels[0][1])

    def with_speller(self, memory: Memory) -> Memory:
        """The memory with what a speller attends to, which gives it its share in `step`; as it is without one."""
        heard = None if self.speller is None else self.phoneme_log_probs(memory)
        if self.speller is None or heard is None:
            return memory
        return replace(memory, spelled=self.speller.encode(*batch_of_sounds(*heard)))

    def _memory(self, values: Tensor, lengths: Tensor) -> Memory:
        return self.decoder.memory(values, lengths, length_mask(lengths, values.shape[1]))

    def initial_state(self, memory: Memory) -> State:
        """The decoder's state before the first token, and the speller's where the memory is for it too."""
        state = self._begin(memory)
        if self.speller is None or memory.spelled is None:
            return state
        return replace(state, spelled=self.speller.initial_state(memory.spelled))

    def step(self, tokens: Tensor, memory: Memory, state: State) -> tuple[Tensor, State]:
        """Last tokens (N,), at first all sos, to log_probs (N, V) of the next ones and the next state.

        N is the memory's B, or K times that for a beam: K rows side by side then share an utterance's memory. The
        speller has its share in them where memory and state are for it too.
        """
        log_probs, new = self._decode(tokens, memory, state)
        if self.speller is None or memory.spelled is None or state.spelled is None:
            return log_probs, new
        assert self.options.speller is not None
        other, spelled = self.speller.step(tokens, memory.spelled, state.spelled)
        first = Tokenizer.eos  # those before it have -inf
        both = log_probs[:, first:].float(), other[:, first:].float()
        mixed = torch.lerp(*both, self.options.speller.share).log_softmax(-1)
        mixed = nn.functional.pad(mixed, (first, 0), value=float("-inf"))
        return mixed, replace(new, spelled=spelled)

    def _begin(self, memory: Memory) -> State:
        """The decoder's own state before the first token."""
        return self.decoder.initial_state(memory)

    def _decode(self, tokens: Tensor, memory: Memory, state: State) -> tuple[Tensor, State]:
        """The decoder's own step."""
        return self.decoder.step(tokens, memory, state)

    def ctc_log_probs(self, memory: Memory) -> Tensor | None:
        """Memory to CTC log_probs (B, U * ctc_factor, V), valid to memory.lengths * ctc_factor; None without a head.

        Where a memory step is longer than 40 ms, one step emits `ctc_factor` CTC frames, so that fast speech has at
        least as many frames as characters.
        """
        if self.ctc is None:
            return None
        logits: Tensor = self.ctc(memory.values).float()
        return logits.unflatten(2, (self.ctc_factor, self.vocabulary)).flatten(1, 2).log_softmax(-1)

    def phoneme_log_probs(self, memory: Memory) -> tuple[Tensor, Tensor] | None:
        """Memory to phoneme log_probs (B, F, P), valid to the frame counts (B,); None without a head."""
        if memory.first is None or memory.first_lengths is None:
            return None
        if memory.heard is not None:
            return memory.heard, memory.first_lengths
        return self._phonemes(memory.first, memory.first_lengths)

    def hear(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, M) with frame counts (B,) to phoneme log_probs as above, and nothing else."""
        return self._phonemes(*self.encoder.levels(features, feature_lengths, 1)[0])

    def _phonemes(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        assert self.phonemes is not None
        for layer in self.phoneme_layers:
            values, lengths = layer(values, lengths)
        logits: Tensor = self.phonemes(values).float()
        return logits.log_softmax(-1), lengths

    def forward(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        weights: LossWeights,
        phonemes: Tensor | None = None,
        phoneme_lengths: Tensor | None = None,
    ) -> Losses:
        """The losses of a batch: features (B, T, M), (B,), tokens (B, L) without sos and eos, (B,).

        Phonemes (B, P) with counts (B,) are for the head that options.phonemes adds. Where the speller learns alone,
        features are sounds (B, S, WIDTH).
        """
        if weights.speller_alone:
            assert self.speller is not None
            plain = replace(weights, speller_alone=False, ctc=0.0)
            losses: Losses = self.speller(features, feature_lengths, tokens, token_lengths, plain)
            return losses
        if weights.phonemes_alone:
            return self._phonemes_alone(
                features, feature_lengths, phonemes, phoneme_lengths, weights.phonemes
            )
        levels = self.encoder.levels(features, feature_lengths)
        memory = self._memory(*levels[-1])
        share = weights.ctc if self.ctc is not None else 0.0
        ctc_loss = self._ctc_loss(memory, tokens, token_lengths) if share > 0 else _nothing(memory)
        attention_loss = guide_loss = _nothing(memory)
        if share < 1:
            attention_loss, guide_loss = self._attention_losses(
                memory, tokens, token_lengths, weights
            )
        total = (1 - share) * (attention_loss + weights.guide * guide_loss) + share * ctc_loss
        phoneme_loss = _nothing(memory)
        if self.phonemes is not None and weights.phonemes > 0:
            assert phonemes is not None
            assert phoneme_lengths is not None
            phoneme_loss = self._phoneme_loss(*levels[0], phonemes, phoneme_lengths)
            total = total + weights.phonemes * phoneme_loss
        targets = (token_lengths + 1).sum()
        return Losses(attention_loss, ctc_loss, guide_loss, phoneme_loss, total, targets)

    def _phonemes_alone(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        phonemes: Tensor | None,
        phoneme_lengths: Tensor | None,
        weight: float,
    ) -> Losses:
        assert phonemes is not None
        assert phoneme_lengths is not None
        first = self.encoder.levels(features, feature_lengths, 1)[0]
        loss = self._phoneme_loss(*first, phonemes, phoneme_lengths)
        nothing = loss.new_zeros(())
        return Losses(nothing, nothing, nothing, loss, weight * loss, phoneme_lengths.sum())

    def learn_phonemes_alone(self) -> None:
        """Keep all weights as they are but those that only phonemes need."""
        self.requires_grad_(False)
        self.phoneme_layers.requires_grad_(True)
        if self.phonemes is not None:
            self.phonemes.requires_grad_(True)

    def learn_speller_alone(self) -> None:
        """Keep all weights as they are but the speller's."""
        self.requires_grad_(False)
        if self.speller is not None:
            self.speller.requires_grad_(True)

    def _attention_losses(
        self, memory: Memory, tokens: Tensor, token_lengths: Tensor, weights: LossWeights
    ) -> tuple[Tensor, Tensor]:
        """Sums of the decoder's cross-entropy and of the guided-attention penalty."""
        inputs, targets = decoder_inputs_and_targets(tokens, token_lengths)
        log_probs, attention = self.decoder.teacher_forced(inputs, memory, weights.sampling)
        valid = length_mask(token_lengths + 1, targets.shape[1])
        loss = cross_entropy(log_probs, targets, valid, weights.label_smoothing)
        if weights.guide == 0:
            return loss, _nothing(memory)
        return loss, guide_penalty(attention, token_lengths + 1, memory, weights.guide_width)

    def _ctc_loss(self, memory: Memory, tokens: Tensor, token_lengths: Tensor) -> Tensor:
        log_probs = self.ctc_log_probs(memory)
        assert log_probs is not None
        frames = memory.lengths * self.ctc_factor
        return ctc_loss(log_probs, frames, tokens, token_lengths, Tokenizer.blank)

    def _phoneme_loss(
        self, values: Tensor, lengths: Tensor, phonemes: Tensor, phoneme_lengths: Tensor
    ) -> Tensor:
        log_probs, lengths = self._phonemes(values, lengths)
        loss = ctc_loss(log_probs, lengths, phonemes, phoneme_lengths, BLANK)
        if self.trigram is None:
            return loss
        partition = self.trigram.log_partition(log_probs, lengths)
        return (1 + CTC_BESIDE) * loss + partition[fits(lengths, phonemes, phoneme_lengths)].sum()


def ctc_loss(
    log_probs: Tensor, frames: Tensor, labels: Tensor, label_lengths: Tensor, blank: int
) -> Tensor:
    """Sum of the CTC losses of (B, F, V) and (B,) with labels (B, L) and (B,); one that cannot fit counts as 0."""
    return nn.functional.ctc_loss(
        log_probs.transpose(0, 1),
        labels,
        frames,
        label_lengths,
        blank=blank,
        reduction="sum",
        zero_infinity=True,
    )


def fits(frames: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
    """Whether (B,) CTC can say labels (B, L) and (B,) in so many frames (B,): two equal ones need a blank between."""
    repeated = (labels[:, 1:] == labels[:, :-1]) & length_mask(label_lengths, labels.shape[1])[
        :, 1:
    ]
    return frames >= label_lengths + repeated.sum(1)


def ctc_factor(frame_seconds: float) -> int:
    """CTC frames per memory step of `frame_seconds`."""
    return max(1, math.ceil(frame_seconds / CTC_SECONDS - 1e-9))


def _nothing(memory: Memory) -> Tensor:
    return memory.values.new_zeros(())


def decoder_inputs_and_targets(tokens: Tensor, token_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (B, L) to inputs sos + tokens and targets tokens + eos, both (B, L + 1), padded with pad."""
    start = tokens.new_full((tokens.shape[0], 1), Tokenizer.sos)
    padding = tokens.new_full((tokens.shape[0], 1), Tokenizer.pad)
    targets = torch.cat([tokens, padding], 1).scatter(1, token_lengths[:, None], Tokenizer.eos)
    return torch.cat([start, tokens], 1), targets


def cross_entropy(log_probs: Tensor, targets: Tensor, valid: Tensor, smoothing: float) -> Tensor:
    """Sum over valid positions of the cross-entropy with smoothed targets: log_probs (B, L, V), the rest (B, L)."""
    targets = targets.masked_fill(~valid, Tokenizer.eos)
    loss = -log_probs.gather(2, targets[:, :, None])[:, :, 0]
    if smoothing > 0:
        loss = (1 - smoothing) * loss - smoothing * log_probs[:, :, Tokenizer.eos :].mean(-1)
    return (loss * valid).sum()


def guide_penalty(attention: Tensor, lengths: Tensor, memory: Memory, width: float) -> Tensor:
    """Sum over rows of the attention (B, L, U) that lies away from the diagonal (Tachibana et al. 2018, eq. 8-9)."""
    rows, steps = attention.shape[1:]
    position = torch.arange(rows, device=lengths.device) / lengths[:, None]
    time = torch.arange(steps, device=lengths.device) / memory.lengths.clamp(min=1)[:, None]
    penalty = 1 - torch.exp(-((position[:, :, None] - time[:, None]) ** 2) / (2 * width**2))
    return (attention * penalty * length_mask(lengths, rows)[:, :, None]).sum()


def open_forget_gates(module: nn.Module) -> None:
    """Start LSTMs with a forget gate bias of 1 (Jozefowicz et al. 2015)."""
    if isinstance(module, nn.LSTM):
        for name, bias in module.named_parameters():
            if name.startswith("bias_ih"):
                with torch.no_grad():
                    bias[module.hidden_size : 2 * module.hidden_size] += 1
