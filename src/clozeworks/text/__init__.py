"""Text and its tokens: tokenizers, their training and audit, sentences, folding; no torch."""
