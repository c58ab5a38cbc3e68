"""Features (B, T, M) in, memory values (B, U, D) out: strided convolutions and a pyramid of bidirectional RNNs.

Every pyramid level joins two neighbouring steps into one (Chan et al. 2016, "Listen, Attend and Spell", eq. 5), so
that the attention has fewer steps to choose from. The rate at which the first RNN runs decides the cost: with
`subsampling = 4`, two strided convolutions bring 100 Hz down to 25 Hz before it.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.model.memory import length_mask
from asr.options import check_range

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
}


@dataclass(frozen=True)
class EncoderOptions:
    """Sizes of the encoder. Frames per memory step = subsampling * 2 ** pyramid_levels."""

    cell: str = "lstm"  # lstm | gru | rnn
    width: int = 256  # units of one direction; the memory is twice as wide
    subsampling: int = 4  # reduction by strided convolutions before the first RNN: 1 (none), 2 or 4
    channels: int = 32  # of the convolutions
    bottom_layers: int = 1  # BiRNN layers before the first pyramid level
    pyramid_levels: int = 1  # BiRNN layers that halve the rate
    flat_layers: int = 2  # BiRNN layers on top that keep the rate
    dropout: float = 0.1  # probability, on the input of every layer
    locked_dropout: bool = False  # one mask for all steps of an utterance (Gal & Ghahramani 2016)
    norm: bool = True  # layer norm after every layer
    residual: bool = False  # add a layer's input to its output where they are equally wide

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ConfigError(f"encoder cell {self.cell!r}: allowed are {', '.join(CELLS)}")
        if self.subsampling not in (1, 2, 4):
            raise ConfigError(f"encoder subsampling {self.subsampling}: allowed are 1, 2, 4")
        check_range(self, "model.encoder", ("width", "channels"), 1)
        check_range(self, "model.encoder", ("bottom_layers", "pyramid_levels", "flat_layers"), 0)
        check_range(self, "model.encoder", ("dropout",), 0, 1)
        if self.bottom_layers + self.pyramid_levels + self.flat_layers < 1:
            raise ConfigError("encoder: needs at least one layer")

    @property
    def reduction(self) -> int:
        """Frames per memory step."""
        return self.subsampling * 2**self.pyramid_levels


class Encoder(nn.Module):
    """Convolutional subsampling, then bottom, pyramid and flat bidirectional layers."""

    def __init__(self, n_mels: int, options: EncoderOptions) -> None:
        super().__init__()
        self.options = options
        self.subsample = Subsampling(n_mels, options)
        bottom, flat = [1] * options.bottom_layers, [1] * options.flat_layers
        reductions = bottom + [2] * options.pyramid_levels + flat
        inputs = [options.width] + [2 * options.width] * (len(reductions) - 1)
        self.layers = nn.ModuleList(map(partial(EncoderLayer, options), inputs, reductions))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, M) with frame counts (B,) to values (B, U, D) with step counts (B,), zero past them."""
        return self.levels(features, lengths)[-1]

    def levels(
        self, features: Tensor, lengths: Tensor, count: int | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """What each layer gives, from the first to the one that `forward` returns, or the first `count` of them."""
        values, lengths = self.subsample(features, lengths)
        outputs = []
        for layer in self.layers[:count]:
            values, lengths = layer(values, lengths)
            outputs.append((values, lengths))
        return outputs


class Subsampling(nn.Module):
    """Strided 3x3 convolutions over time and mel (each halves both), then a projection to the layers' width.

    The input is zeroed past the lengths before each convolution, so a padded batch sees what an utterance alone sees;
    whatever stood there, NaN included, goes no further.
    """

    def __init__(self, n_mels: int, options: EncoderOptions) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        channels = 1
        for _ in range(options.subsampling.bit_length() - 1):
            self.convolutions.append(nn.Conv2d(channels, options.channels, 3, stride=2, padding=1))
            channels, n_mels = options.channels, (n_mels + 1) // 2
        self.project = nn.Linear(channels * n_mels, options.width)
        self.norm = nn.LayerNorm(options.width) if options.norm else nn.Identity()

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, M) and (B,) to (B, T', width) and (B,), T' = T / subsampling rounded up."""
        mask = length_mask(lengths, features.shape[1])
        maps = features.masked_fill(~mask[:, :, None], 0)[:, None]
        for convolution in self.convolutions:
            maps = maps * length_mask(lengths, maps.shape[2])[:, None, :, None]
            maps = torch.relu(convolution(maps))
            lengths = (lengths + 1) // 2
        values = maps.transpose(1, 2).flatten(2)
        return self.norm(self.project(values)), lengths


class EncoderLayer(nn.Module):
    """Dropout, join `reduction` neighbouring steps, run both directions, normalise."""

    def __init__(self, options: EncoderOptions, input_size: int, reduction: int) -> None:
        super().__init__()
        self.reduction = reduction
        self.residual = options.residual and input_size * reduction == 2 * options.width
        dropout = LockedDropout if options.locked_dropout else nn.Dropout
        self.dropout = dropout(options.dropout)
        self.rnn = BiRNN(options.cell, input_size * reduction, options.width)
        self.norm = nn.LayerNorm(2 * options.width) if options.norm else nn.Identity()

    def pass_through(self) -> None:
        """Make of a residual layer with a norm the identity: its own part is scaled by 0, which training may change."""
        if isinstance(self.norm, nn.LayerNorm):
            nn.init.zeros_(self.norm.weight)
            nn.init.zeros_(self.norm.bias)

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, U, I) and (B,) to (B, U / reduction, D) and (B,); rounded up, a missing neighbour is zero."""
        values = self.dropout(values)
        if self.reduction > 1:
            values, lengths = join_neighbours(values, lengths)
        output: Tensor = self.norm(self.rnn(values, lengths))
        if self.residual:
            output = output + values
        return output * length_mask(lengths, output.shape[1])[:, :, None], lengths


class BiRNN(nn.Module):
    """A bidirectional RNN whose padding is exact: the backward half reads each utterance from its own last step.

    Two one-directional layers over padded tensors, the second over time-reversed utterances, cost the same as one
    bidirectional layer and keep the fused kernels that packed sequences lose on a CPU.
    """

    def __init__(self, cell: str, input_size: int, width: int) -> None:
        super().__init__()
        self.forward_rnn = CELLS[cell](input_size, width, batch_first=True)
        self.backward_rnn = CELLS[cell](input_size, width, batch_first=True)

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        """(B, U, I) and (B,) to (B, U, 2 * width)."""
        ahead, _ = self.forward_rnn(values)
        back, _ = self.backward_rnn(reverse(values, lengths))
        return torch.cat([ahead, reverse(back, lengths)], dim=-1)


class LockedDropout(nn.Module):
    """Dropout with one mask for all steps of an utterance: whole units are off (Gal & Ghahramani 2016)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        """(B, U, D) to the same shape; nothing is done outside training."""
        if not self.training or self.probability == 0:
            return values
        mask = values.new_ones(values.shape[0], 1, values.shape[2])
        return values * nn.functional.dropout(mask, self.probability)


def reverse(values: Tensor, lengths: Tensor) -> Tensor:
    """Each utterance of (B, U, D) backwards within its own length (B,); padding stays where it is."""
    steps = torch.arange(values.shape[1], device=values.device)
    index = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return values.gather(1, index[:, :, None].expand_as(values))


def join_neighbours(values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Two neighbouring steps side by side in one: (B, U, D) and (B,) to (B, ceil(U / 2), 2 D) and (B,)."""
    values = values * length_mask(lengths, values.shape[1])[:, :, None]
    if values.shape[1] % 2:
        values = nn.functional.pad(values, (0, 0, 0, 1))
    batch, steps, width = values.shape
    return values.reshape(batch, steps // 2, 2 * width), (lengths + 1) // 2
