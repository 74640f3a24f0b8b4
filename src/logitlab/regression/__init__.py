"""Softmax regression: an objective over rows, a solver, engines that hold the rows."""
