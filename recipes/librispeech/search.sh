# Sourced by recipes: write_search FOLDER puts beside FOLDER/model.pt, in runs/NAME, a search that does not ask phonemes:
# a beam with CTC and the bundled language models, with the weights that mini was measured with.

write_search() {
    cat > "$1/model.toml" << 'TOML'
ngram = "../../asr/assets/english-words.ngram"
word_lm = "../../asr/assets/english-words.pt"

[decoding]
beam_size = 24
ctc_weight = 0.2
ngram_weight = 0.5
word_lm_share = 0.65
unknown_penalty = 5.0
length_bonus = 0.4
TOML
}
