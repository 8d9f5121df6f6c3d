"""The idea: two translation models trained as a pair. All that ``fairseq-train --user-dir dual_fairseq`` runs."""
