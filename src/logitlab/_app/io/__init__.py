"""Reading and writing files: arrays, tables, labels and outputs."""
