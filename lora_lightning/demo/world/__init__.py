"""The composed picture world that flux-mini, captioner-mini and encoder-mini are trained on."""
