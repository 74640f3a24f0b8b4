"""`logitlab report`: evaluation of logits, as an HTML page and a JSON file."""
