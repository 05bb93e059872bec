"""The Evaluator."""
