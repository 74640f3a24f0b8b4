"""Softmax regression on tables: columns of numbers, text and dates become features."""
