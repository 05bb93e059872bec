"""What the Evaluator measures: ranks, metrics, how sure a difference is."""
