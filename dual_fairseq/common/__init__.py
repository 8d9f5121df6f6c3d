"""What every other folder may use: errors, files, progress. No torch, no fairseq."""
