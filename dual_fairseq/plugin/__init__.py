"""The idea: two translation models trained as a pair, as task, criterion and model of fairseq."""
