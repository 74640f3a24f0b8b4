"""The page with sliders: rows to look at, what logitlab makes of them, and a server for both."""
