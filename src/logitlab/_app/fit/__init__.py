"""`logitlab fit` and `logitlab predict`: a table to a calibrated model, and its predictions."""
