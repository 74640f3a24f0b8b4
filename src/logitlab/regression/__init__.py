"""Softmax regression: objective, solver, engines that hold the rows, inference, estimator."""
