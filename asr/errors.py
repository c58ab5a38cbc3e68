"""The errors that a user can cause: one clear line each, shown by the command line without a traceback."""


class AsrError(Exception):
    """Base of every error whose message is meant for the user: it names the file or option and what is allowed."""


class AudioError(AsrError):
    """An audio file that cannot be used: missing, empty, truncated, not audio, or with NaN in it."""


class ManifestError(AsrError):
    """A manifest that cannot be read: missing, not JSON lines, or a line without a needed key."""


class ConfigError(AsrError):
    """A recipe or option with an unknown key, a wrong type or a value out of range."""


class CorpusError(AsrError):
    """A corpus folder, archive or download that is not what its preparation expects."""


class CheckpointError(AsrError):
    """A checkpoint that is missing, damaged, or made by an incompatible model."""


class TrainingError(AsrError):
    """A training that cannot start or go on."""
