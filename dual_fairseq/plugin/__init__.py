"""The core: two translation models trained as a pair, as a fairseq task, criterion and model."""
