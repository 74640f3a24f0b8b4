"""`logitlab fit` and `logitlab predict`: softmax regression on the columns of a table."""
