"""One training step, its optimizer, its TensorBoard summaries."""
