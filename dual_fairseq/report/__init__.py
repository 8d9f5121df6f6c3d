"""A report on runs: tables, pictures, examples of translations and of attention."""
