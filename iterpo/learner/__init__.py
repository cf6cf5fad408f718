"""The algorithm-blind learner: log-probs in, one number a token back, one backward. Needs torch, transformers, peft."""
