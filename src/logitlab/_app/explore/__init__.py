"""`logitlab explore`: datasets, the values that the page shows, and its server."""
